"""What `hearth doctor` finds on machines of all kinds, without an engine."""

from __future__ import annotations

import errno
import functools
import os
import platform
from pathlib import Path

import pytest

from gateway.assembly.settings import Settings
from gateway.cli.machine import checks, probe
from pool.clock import LoopClock
from pool.engine.base import EngineError, EngineInfo, EngineUnreachable
from pool.engine.memory import MemoryEngine
from pool.engine.memory_process import Process, sleep_forever
from pool.host.init_program import file_name
from pool.host.uids import DEFAULT_UIDS, MAPPED_UIDS, UID_LABEL, UidRange
from scheduler.deploy.images.runtimes import REQUIRED_IMAGES

INFO = EngineInfo("24.0", "1.43", 2, False, ("runc",), 2, 2**33, "x86_64", "/")


async def test_doctor_says_what_to_do_without_an_engine(tmp_path: Path) -> None:
    engine = MemoryEngine(LoopClock())

    async def away() -> None:
        raise EngineUnreachable("nobody there")

    engine.ping = away  # type: ignore[method-assign]
    results = await checks.examine(Settings(data_dir=tmp_path), engine)
    found = {check.name: check for check in results}
    assert (found["engine"].state, found["engine"].found) == ("missing", "nobody there")
    assert found["engine"].next_step
    assert not checks.can_run_functions(results)
    await engine.close()


async def test_doctor_names_the_images_that_are_missing() -> None:
    engine = MemoryEngine(LoopClock())
    (check,) = await checks.images(engine)
    assert (check.state, check.vital, check.next_step) == ("missing", True, "build them: hearth setup")
    for reference in REQUIRED_IMAGES[:2]:
        engine.add_image(reference, {}, None)
    (check,) = await checks.images(engine)
    assert (check.state, check.vital) == ("warning", False)
    assert all(reference in check.found for reference in REQUIRED_IMAGES[2:])
    await engine.close()


def test_doctor_finds_the_init_program(tmp_path: Path) -> None:
    program = tmp_path / file_name(platform.machine())
    missing = checks.init(tmp_path)
    assert (missing.state, missing.vital, missing.next_step) == ("warning", False, "build it: hearth setup")
    program.write_bytes(bytes(30_000))
    assert checks.init(tmp_path).found == f"30 kB for {platform.machine()}"


def test_doctor_judges_version_memory_disk_and_freezer(tmp_path: Path) -> None:
    assert checks.version(INFO).state == "ok"
    assert checks.live_restore(INFO).state == "warning"
    assert checks.memory(2**32, 2**33).state == "ok"
    assert checks.memory(2**33, 2**33).state == "warning"
    assert checks.memory(2**20, 2**33).vital
    assert checks.disk("disk", tmp_path / "not" / "yet").name == "disk"
    process = tmp_path / "proc" / "7"
    process.mkdir(parents=True)
    (process / "cgroup").write_text("3:freezer:/docker/x\n1:name=systemd:/\n0::/docker/y\n")
    freezer = functools.partial(checks.freezer, 7, tmp_path / "proc", tmp_path / "cgroup")
    assert freezer().state == "warning"
    unified = tmp_path / "cgroup" / "docker" / "y"
    unified.mkdir(parents=True)
    (unified / "cgroup.freeze").touch()
    assert freezer().state == "ok"


def test_doctor_says_what_counts_for_all_containers_of_an_engine_with_user_namespaces() -> None:
    assert checks.uids_of_containers(DEFAULT_UIDS, user_namespaces=False).state == "ok"
    mapped = checks.uids_of_containers(MAPPED_UIDS, user_namespaces=True)
    assert (mapped.state, mapped.vital) == ("warning", False)
    assert "containers share the limits" in mapped.found
    assert mapped.next_step


def test_doctor_says_whom_socket_folders_are_open_to(monkeypatch: pytest.MonkeyPatch) -> None:
    assert checks.socket_folders(os.getuid(), user_namespaces=False).state == "ok"
    mapped = checks.socket_folders(os.getuid(), user_namespaces=True)
    assert (mapped.state, "maps uids" in mapped.found) == ("warning", True)

    def refused(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "chown", refused)
    without_right = checks.socket_folders(70_000, user_namespaces=False)
    assert (without_right.state, without_right.vital) == ("warning", False)
    assert "every user of this machine" in without_right.found
    assert "root" in without_right.next_step


# -- the short-lived container ------------------------------------------------------------------------------------

UIDS = UidRange(70_000, 80_000)


async def prober(process: Process) -> int:
    """Print the marker of the folder that is mounted, as the container's program does."""
    marker = next((Path(mount.source) / probe.MARKER for mount in process.spec.mounts), None)
    await process.write(((marker.read_text() if marker else "none") + "\n").encode())
    return await sleep_forever(process)


async def stranger(process: Process) -> int:
    """See another folder at the same path."""
    await process.write(b"none\n")
    return await sleep_forever(process)


def engine_with(program: object) -> MemoryEngine:
    engine = MemoryEngine(LoopClock())
    engine.add_image(probe.BASE_IMAGE, program=program)  # type: ignore[arg-type]
    return engine


async def probed(engine: MemoryEngine, folder: Path) -> dict[str, checks.Check]:
    settings = Settings(data_dir=folder, uids=UIDS)
    return {check.name: check for check in await checks.probe(engine, settings, user_namespaces=False)}


async def test_doctor_starts_its_container_with_a_uid_of_the_setting(tmp_path: Path) -> None:
    engine = engine_with(prober)
    found = await probed(engine, tmp_path)
    assert (found["uids"].state, str(UIDS) in found["uids"].found) == ("ok", True)
    assert engine.peak(UID_LABEL, "80000") == 1
    engine.always_fail("start", EngineError("unable to start"))
    found = await probed(engine, tmp_path)
    assert "data folder" not in found, "it is not at fault if a container without it cannot start either"
    tried = found["containers"]
    assert (tried.state, "70000-80000 (HEARTH_UIDS)" in tried.next_step) == ("missing", True)
    assert engine.alive() == 0
    await engine.close()


async def test_doctor_finds_a_data_folder_that_the_engine_shares(tmp_path: Path) -> None:
    engine = engine_with(prober)
    for folder in (tmp_path, tmp_path / "not" / "yet"):
        found = await probed(engine, folder)
        assert (found["data folder"].state, found["containers"].state) == ("ok", "ok")
    assert list(tmp_path.iterdir()) == []
    await engine.close()


async def test_doctor_says_how_to_mend_a_data_folder_that_is_another_one_for_the_engine(
    tmp_path: Path,
) -> None:
    engine = engine_with(stranger)
    found = await probed(engine, tmp_path)
    fault = found["data folder"]
    assert (fault.state, fault.vital) == ("missing", True)
    assert "another folder" in fault.found
    assert f"-v {tmp_path}:{tmp_path}" in fault.next_step
    assert found["containers"].state == "ok"
    await engine.close()


async def test_doctor_says_how_to_mend_a_data_folder_that_the_engine_does_not_have(tmp_path: Path) -> None:
    engine = engine_with(prober)
    engine.fail_next("create", EngineError("bind source path does not exist"))
    found = await probed(engine, tmp_path)
    assert (found["data folder"].state, found["containers"].state) == ("missing", "ok")
    assert found["data folder"].found == f"the engine's machine has no folder {tmp_path}"
    assert engine.alive() == 0
    await engine.close()


async def test_doctor_says_that_it_cannot_write_to_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(probe.tempfile, "mkdtemp", refused)
    engine = engine_with(prober)
    found = await probed(engine, tmp_path)
    assert (found["data folder"].state, "--data-dir" in found["data folder"].next_step) == ("missing", True)
    assert found["containers"].state == "ok"
    await engine.close()


async def test_only_a_gateway_in_a_container_of_its_engine_looks_at_the_folder_when_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, settings = engine_with(stranger), Settings(data_dir=tmp_path, uids=UIDS)
    monkeypatch.setattr(checks, "own_container", lambda: None)
    assert await checks.why_not_shared(engine, settings) is None
    monkeypatch.setattr(checks, "own_container", lambda: "c" * 64)
    assert await checks.why_not_shared(engine, settings) is None, "the container is one of another engine"
    assert engine.calls["create"] == 0
    async with probe.probe_container(engine, 80_000, None):
        (own,) = await engine.containers({probe.PROBE_LABEL: ""})
        monkeypatch.setattr(checks, "own_container", lambda: own.id)
        fault = await checks.why_not_shared(engine, settings)
    assert fault is not None and "bind the folder at the same path" in fault
    await engine.close()


def test_a_process_reads_from_its_mounts_which_container_it_is_in(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    assert probe.own_container(mounts) is None
    mounts.write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    assert probe.own_container(mounts) is None
    line = f"30 22 8:1 /var/lib/docker/containers/{'a1' * 32}/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n"
    mounts.write_text(mounts.read_text() + line)
    assert probe.own_container(mounts) == "a1" * 32
