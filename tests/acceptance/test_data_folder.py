"""The data folder of a gateway is moved away, or its store is: no call gets a 202 that is not kept."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from harness import Gateway, command, eventually, handler

pytestmark = pytest.mark.engine

ASYNC = {"prefer": "respond-async"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "hello": handler("def handle(event, context):\n    return 'hello'\n"),
        "tool": command("echo", "hello"),
    }
    with Gateway(tmp_path_factory.mktemp("folder"), functions) as made:
        yield made


def accept(gateway: Gateway) -> tuple[int, str]:
    """Have a call accepted; its status, and its address or what was wrong."""
    answer = gateway.call("hello", {}, headers=ASYNC)
    return answer.status_code, answer.headers.get("location") or answer.json()["detail"]


def readiness(gateway: Gateway) -> tuple[int, str]:
    try:
        answer = gateway.http.get("/readyz")
    except httpx.TransportError:
        return 0, "it does not listen yet"
    return answer.status_code, answer.json().get("why") or ""


def is_done(gateway: Gateway, place: str) -> bool:
    return eventually(lambda: gateway.http.get(place).json()["status"] == "succeeded", 30)


def test_a_folder_that_is_moved_away_and_back(gateway: Gateway) -> None:
    assert gateway.call("hello", {}).status_code == 200
    _, place = accept(gateway)
    away = gateway.data.rename(gateway.data.with_name("away"))
    try:
        status, detail = accept(gateway)
        assert (status, "deleted or moved" in detail) == (503, True)
        assert readiness(gateway) == (503, detail)
        assert gateway.http.get(place).status_code == 503
        assert gateway.call("hello", {}).status_code == 200, "a warm call needs no store"
        cold = gateway.call("tool", {})
        assert (cold.status_code, "data folder was deleted or moved" in cold.text) == (503, True)
        assert not gateway.data.exists(), "else it could not be moved back"
    finally:
        away.rename(gateway.data)
    assert readiness(gateway) == (200, "")
    eventually(lambda: gateway.call("tool", {}).text == "hello\n", 30)
    status, again = accept(gateway)
    assert status == 202
    assert is_done(gateway, place)
    assert is_done(gateway, again)


def test_a_store_that_is_gone_at_the_start_is_not_begun_anew(gateway: Gateway) -> None:
    _, place = accept(gateway)
    assert is_done(gateway, place)
    store = gateway.data / "calls.db"
    assert gateway.stop() == 0
    away = store.rename(store.with_name("calls.away"))
    store.touch()
    gateway.launch()
    eventually(
        lambda: readiness(gateway)[1].startswith("calls.db in the data folder is missing or empty"), 60
    )
    eventually(lambda: "remove calls.made" in accept(gateway)[1], 60)
    assert accept(gateway)[0] == gateway.http.get("/invocations").status_code == 503
    assert store.stat().st_size == 0
    away.replace(store)
    gateway.wait_until_ready()
    assert is_done(gateway, place), "it is there again, without a restart"
    assert accept(gateway)[0] == 202
