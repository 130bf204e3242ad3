"""What gateways have left, told apart by gateway, and removed of one without the other's."""

from collections.abc import AsyncIterator

import pytest

from gateway.cli import leftovers
from pool.clock import LoopClock
from pool.engine.base import ContainerSpec, EngineError
from pool.engine.labels import GATEWAY_LABEL
from pool.engine.memory import MemoryEngine
from pool.host import firewall

ONE, OTHER = "11111111-aaaa", "22222222-bbbb"


@pytest.fixture
async def engine(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[MemoryEngine]:
    """An engine with things of two gateways and of nobody, and rules of both and of one that is gone."""
    bridges = [f"{leftovers.BRIDGE_PREFIX}{id}e" for id in ("11111111", "22222222", "33333333")]

    async def protected(prefix: str) -> list[str]:
        return [bridge for bridge in bridges if bridge.startswith(prefix)]

    async def unprotect(bridge: str) -> None:
        bridges.remove(bridge)

    async def why_unavailable() -> None:
        return None

    monkeypatch.setattr(firewall, "why_unavailable", why_unavailable)
    monkeypatch.setattr(firewall, "protected_bridges", protected)
    monkeypatch.setattr(firewall, "unprotect", unprotect)
    engine = MemoryEngine(LoopClock())
    engine.add_image("base:latest")
    for gateway in (ONE, OTHER):
        labels = {GATEWAY_LABEL: gateway}
        await engine.create(ContainerSpec(name=f"c-{gateway[:1]}", image="base:latest", labels=labels))
        await engine.create_network(f"n-{gateway[:1]}", "", False, labels)
        engine.add_image(f"built/{gateway[:1]}:latest", labels)
    await engine.create(ContainerSpec(name="nobody", image="base:latest"))
    yield engine
    await engine.close()


async def test_what_is_found_is_sorted_by_gateway(engine: MemoryEngine) -> None:
    found = {left.gateway: left for left in await leftovers.find(engine)}
    assert set(found) == {ONE, OTHER, "33333333"}
    assert found[ONE].named() == [
        ("container", "c-1"),
        ("network", "n-1"),
        ("image", "built/1:latest"),
        ("firewall rules", "of bridge hth11111111e"),
    ]
    assert found["33333333"].named() == [("firewall rules", "of bridge hth33333333e")]
    assert found[ONE].is_of(ONE)
    assert not found[ONE].is_of(OTHER)


async def test_what_is_removed_is_of_one_gateway_only(engine: MemoryEngine) -> None:
    one = next(left for left in await leftovers.find(engine) if left.is_of(ONE))
    done = await leftovers.remove(engine, one)
    assert [fault for _, fault in done] == [None] * 4
    assert {left.gateway: left.count for left in await leftovers.find(engine)} == {OTHER: 4, "33333333": 1}
    assert {c.name for c in await engine.containers({})} == {"c-2", "nobody"}


async def test_what_cannot_be_removed_keeps_nothing_else(
    engine: MemoryEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(name: str) -> None:
        raise EngineError(f"{name} is in use")

    monkeypatch.setattr(engine, "remove_network", refuse)
    one = next(left for left in await leftovers.find(engine) if left.is_of(ONE))
    done = dict(await leftovers.remove(engine, one))
    assert done.pop("network n-1") == "n-1 is in use"
    assert set(done.values()) == {None}
