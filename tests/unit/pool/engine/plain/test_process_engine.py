"""The engine of plain processes: they have the gateway's sockets and nothing of its Python, and end with it."""

from __future__ import annotations

import asyncio
import io
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool.engine.base import ContainerSpec, EngineError, Image, Mount, NotFound
from pool.engine.labels import SOCKETS_FOLDER
from pool.engine.plain.process_engine import ProcessEngine, ProcessSettings, descendants

SHIM = """
import os, sys
print(*sys.path, sep="\\n", flush=True)
print("started", os.listdir(os.environ["HEARTH_SOCKET_DIR"]), sorted(os.environ), flush=True)
while not os.path.exists("end"):
    pass
sys.exit(3)
"""
LABELS = {"org.hearth.gateway": "g", "org.hearth.instance": "i"}


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ProcessEngine]:
    monkeypatch.setenv("HEARTH_API_KEY", "secret")
    (tmp_path / "shim.py").write_text(SHIM)
    (tmp_path / "sockets").mkdir()
    (tmp_path / "sockets" / "calls.sock").touch()
    image = Image("sha256:" + "0" * 64, ("runtime:latest",), {"python": "3"}, 0)
    made = ProcessEngine(ProcessSettings(tmp_path / "processes", tmp_path / "shim.py", image))
    yield made
    await made.close()
    assert not (tmp_path / "processes").exists()


def spec(folder: Path, image: str = "runtime:latest", name: str = "hearth-i") -> ContainerSpec:
    mount = Mount(str(folder / "sockets"), SOCKETS_FOLDER)
    return ContainerSpec(name=name, image=image, labels=LABELS, mounts=(mount,), env={"OWN": "1"})


async def printed(engine: ProcessEngine, container: str) -> str:
    while b"started" not in (text := await engine.logs(container, 10_000)):
        await asyncio.sleep(0.01)
    return text.decode()


async def test_a_process_has_its_sockets_and_nothing_of_the_gateway(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    container = await engine.create(spec(tmp_path))
    assert not (await engine.inspect(container)).running
    await engine.start(container)
    text = await printed(engine, container)
    assert "['calls.sock']" in text and "'OWN'" in text
    assert "HEARTH_API_KEY" not in text and "site-packages" not in text
    state = await engine.inspect(container)
    assert (
        state.running
        and state.pid
        and [one.id for one in await engine.containers({"org.hearth.gateway": ""})]
    )
    assert await engine.containers({"org.hearth.gateway": "other"}) == []
    (tmp_path / "processes" / "code" / container[-12:] / "end").touch()
    assert await engine.wait(container) == 3
    assert (await engine.inspect(container)).exit_code == 3
    await engine.remove("hearth-i")
    with pytest.raises(NotFound):
        await engine.inspect(container)


async def test_a_removed_process_is_gone_also_when_it_is_paused(
    engine: ProcessEngine, tmp_path: Path
) -> None:
    events = engine.events({"org.hearth.instance": "i"})
    first = asyncio.ensure_future(anext(events))
    await asyncio.sleep(0)
    container = await engine.create(spec(tmp_path))
    await engine.start(container)
    pid = (await engine.inspect(container)).pid
    await engine.pause(container)
    assert (await engine.inspect(container)).paused
    await engine.remove(container)
    assert not Path(f"/proc/{pid}").exists()
    actions = [(await first).action] + [(await anext(events)).action for _ in range(3)]
    assert actions == ["create", "start", "die", "destroy"]
    await engine.remove(container)


async def test_packages_of_a_build_are_found_by_its_processes(engine: ProcessEngine, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("Dockerfile", "packages/house.py", "packages/deep/x.py"):
            tar.addfile(tarfile.TarInfo(name))
    image = await engine.build(buffer.getvalue(), "built:0123abcd", {"made": "yes"})
    assert [one.id for one in await engine.images({"made": ""})] == [image.id] != ["sha256:" + "0" * 64]
    container = await engine.create(spec(tmp_path, image.id))
    await engine.start(container)
    [folder] = [
        Path(line) for line in (await printed(engine, container)).splitlines() if line.endswith("/packages")
    ]
    assert sorted(str(file.relative_to(folder)) for file in folder.rglob("*.py")) == ["deep/x.py", "house.py"]
    with pytest.raises(EngineError, match="a running process uses it"):
        await engine.remove_image(image.id)
    await engine.remove(container)
    await engine.remove_image(image.id)
    assert not folder.exists()


async def test_what_needs_a_container_is_refused(engine: ProcessEngine, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="only Python handlers run without a container"):
        await engine.create(spec(tmp_path, "busybox"))
    container = await engine.create(ContainerSpec(name="hearth-c", image="runtime:latest"))
    with pytest.raises(EngineError, match="only handlers run without a container"):
        await engine.start(container)
    with pytest.raises(EngineError):
        await engine.create_network("n", "b", True, {})
    with pytest.raises(NotFound):
        await engine.archive(container, "/etc/passwd", 10)


def test_a_process_without_children_has_no_descendants() -> None:
    assert list(descendants(2**22 + 1)) == []
