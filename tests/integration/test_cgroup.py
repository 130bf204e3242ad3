"""Limits set by a container's cgroup, on the real engine, and found in cgroup v1, v2 and hybrid layouts."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from pool.engine.base import ContainerSpec
from pool.engine.docker import DockerEngine
from pool.host import cgroup

MIB = 2**20
ID = "ab" * 32


@pytest.fixture
async def pid(
    docker_engine: DockerEngine, busybox_image: str, test_label: dict[str, str]
) -> AsyncIterator[int]:
    name = f"hearth-cgroup-{uuid.uuid4().hex[:8]}"
    container = await docker_engine.create(ContainerSpec(name=name, image=busybox_image, labels=test_label))
    await docker_engine.start(container)
    yield (await docker_engine.inspect(container)).pid
    await docker_engine.remove(container)


def limits(pid: int) -> tuple[int, int, float]:
    """Memory, memory with swap, and CPUs, as the kernel holds them."""
    found = cgroup.find(pid)
    assert found is not None

    def read(folder: Path, name: str) -> str:
        return (folder / name).read_text().strip()

    if found.unified:
        memory = int(read(found.memory, "memory.max"))
        quota, period = read(found.cpu, "cpu.max").split()
        return memory, memory + int(read(found.memory, "memory.swap.max")), int(quota) / int(period)
    quota_v1 = int(read(found.cpu, "cpu.cfs_quota_us")) / int(read(found.cpu, "cpu.cfs_period_us"))
    with_swap = int(read(found.memory, "memory.memsw.limit_in_bytes"))
    return int(read(found.memory, "memory.limit_in_bytes")), with_swap, quota_v1


@pytest.mark.engine
async def test_memory_and_cpus_grow_and_shrink_with_swap_off(pid: int):
    assert cgroup.available(pid)
    assert limits(pid) == (128 * MIB, 128 * MIB, 1.0)
    for memory, cpus in ((512 * MIB, 2.0), (64 * MIB, 0.5), (64 * MIB, 0.001), (256 * MIB, 1.5)):
        assert cgroup.resize(pid, memory, cpus)
        assert limits(pid) == (memory, memory, max(cpus, 0.01))


@pytest.mark.engine
async def test_what_is_in_use_cannot_be_taken_away(docker_engine, busybox_image, test_label):
    """On v1 the kernel refuses, on v2 it would kill: only the first is run here."""
    script = "dd if=/dev/zero of=/tmp/used bs=1M count=40 2>/dev/null; echo ready; sleep 3600"
    spec = ContainerSpec(
        name=f"hearth-cgroup-{uuid.uuid4().hex[:8]}",
        image=busybox_image,
        labels=test_label,
        command=("sh", "-c", script),
    )
    container = await docker_engine.create(spec)
    attachment = await docker_engine.attach(container)
    await docker_engine.start(container)
    assert await attachment.read() == (1, b"ready\n")
    await attachment.close()
    state = await docker_engine.inspect(container)
    found = cgroup.find(state.pid)
    assert found is not None and not found.unified
    assert not cgroup.resize(state.pid, 8 * MIB, 1.0)
    assert limits(state.pid) == (128 * MIB, 128 * MIB, 1.0)
    assert (await docker_engine.inspect(container)).running


@pytest.mark.engine
async def test_a_dead_process_has_none(docker_engine, busybox_image, test_label):
    name = f"hearth-cgroup-{uuid.uuid4().hex[:8]}"
    container = await docker_engine.create(ContainerSpec(name=name, image=busybox_image, labels=test_label))
    await docker_engine.start(container)
    pid = (await docker_engine.inspect(container)).pid
    found = cgroup.find(pid)
    assert found is not None
    await docker_engine.remove(container)
    assert not cgroup.available(pid) and not cgroup.resize(pid, 64 * MIB, 1.0)
    with pytest.raises(OSError):
        found.resize(64 * MIB, 1.0)


@pytest.mark.engine
async def test_frozen_and_thawed_and_measured_by_the_container_of_a_process(
    docker_engine, busybox_image, test_label
):
    script = "dd if=/dev/zero of=/tmp/used bs=1M count=20 2>/dev/null; echo ready; while :; do :; done"
    spec = ContainerSpec(
        name=f"hearth-cgroup-{uuid.uuid4().hex[:8]}",
        image=busybox_image,
        labels=test_label,
        command=("sh", "-c", script),
    )
    container = await docker_engine.create(spec)
    attachment = await docker_engine.attach(container)
    await docker_engine.start(container)
    assert await attachment.read() == (1, b"ready\n")
    await attachment.close()
    state = await docker_engine.inspect(container)
    found = cgroup.of_container(state.pid, container)
    assert found is not None
    assert cgroup.of_container(state.pid, ID) is None, "the process is another container's by now"
    assert cgroup.of_container(0, container) is None
    assert 20 * MIB <= found.memory_in_use() < 30 * MIB

    def run_time() -> int:
        fields = Path(f"/proc/{state.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    async def runs(seconds: float) -> bool:
        before = run_time()
        await asyncio.sleep(seconds)
        return run_time() > before

    assert await runs(0.3)
    for _ in range(2):
        found.freeze()
        await asyncio.sleep(0.05)
        assert not await runs(0.3)
        found.thaw()
        found.thaw()
        assert await runs(0.3)
    found.freeze()
    await docker_engine.remove(container)
    with pytest.raises(OSError):
        found.thaw()


def test_what_is_not_in_a_container_is_left_alone():
    assert cgroup.find(os.getpid()) is None
    assert cgroup.find(1) is None


def layout(tmp_path: Path, theirs: str, ours: str, mounts: str) -> Path:
    """A /proc with process 7 (theirs) and ourselves."""
    for process, text in (("7", theirs), ("self", ours)):
        (tmp_path / process).mkdir()
        (tmp_path / process / "cgroup").write_text(text)
    (tmp_path / "self" / "mountinfo").write_text(mounts)
    return tmp_path


def test_version_1(tmp_path: Path):
    proc = layout(
        tmp_path,
        f"9:memory:/docker/{ID}\n4:cpu,cpuacct:/docker/{ID}\n1:name=systemd:/docker/{ID}\n",
        "9:memory:/user\n4:cpu,cpuacct:/\n",
        "32 31 0:29 / /cg/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
        "35 31 0:32 / /cg/memory rw shared:9 - cgroup cgroup rw,memory\n",
    )
    expected = cgroup.Cgroup(Path(f"/cg/memory/docker/{ID}"), Path(f"/cg/cpu,cpuacct/docker/{ID}"), False)
    assert cgroup.find(7, proc) == expected


def test_version_2_writes_memory_swap_and_cpu(tmp_path: Path):
    mount_point = tmp_path / "cg"
    folder = mount_point / "system.slice" / f"docker-{ID}.scope"
    folder.mkdir(parents=True)
    for name in ("memory.max", "memory.swap.max", "cpu.max", "cgroup.freeze"):
        (folder / name).write_text("")
    (folder / "memory.stat").write_text("anon 5000\nfile 70000\nshmem 300\nanon_thp 1\n")
    proc = layout(
        tmp_path,
        f"0::/system.slice/docker-{ID}.scope\n",
        "0::/init.scope\n",
        f"24 1 0:22 / {mount_point} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n",
    )
    found = cgroup.find(7, proc)
    assert found == cgroup.Cgroup(folder, folder, True, folder / "cgroup.freeze")
    assert found.memory_in_use() == 5300
    for listed, count in (("7\n", 1), ("7\n9\n7\n", 2)):
        (folder / "cgroup.procs").write_text(listed)
        assert found.processes() == count
    for listed in ("", "0\n0\n"):
        (folder / "cgroup.procs").write_text(listed)
        with pytest.raises(ProcessLookupError):
            found.processes()
    found.freeze()
    assert (folder / "cgroup.freeze").read_text() == "1"
    found.thaw()
    assert (folder / "cgroup.freeze").read_text() == "0"
    found.resize(64 * MIB, 0.5)
    written = [(folder / name).read_text() for name in ("memory.max", "memory.swap.max", "cpu.max")]
    assert written == [str(64 * MIB), "0", "50000 100000"]


def test_hybrid_uses_the_hierarchy_that_has_the_controllers(tmp_path: Path):
    proc = layout(
        tmp_path,
        f"9:memory:/docker/{ID}\n4:cpu:/docker/{ID}\n0::/docker/{ID}\n",
        "9:memory:/\n4:cpu:/\n0::/\n",
        "30 1 0:20 / /cg/unified rw - cgroup2 cgroup2 rw\n"
        "32 31 0:29 / /cg/cpu rw - cgroup cgroup rw,cpu\n"
        "35 31 0:32 / /cg/memory rw - cgroup cgroup rw,memory\n",
    )
    found = cgroup.find(7, proc)
    assert found is not None and not found.unified and found.memory == Path(f"/cg/memory/docker/{ID}")


@pytest.mark.parametrize("theirs", ["0::/", "0::/ours", f"0::/../{ID}", f"0::/elsewhere/{ID}"])
def test_what_lies_outside_of_our_view_is_not_touched(tmp_path: Path, theirs: str):
    mounts = "24 1 0:22 /docker /cg rw - cgroup2 cgroup2 rw\n"
    assert cgroup.find(7, layout(tmp_path, theirs + "\n", "0::/ours\n", mounts)) is None


def test_hybrid_has_the_freezer_of_version_1_and_old_kernels_of_version_2_have_none(tmp_path: Path):
    mounts = "".join(
        f"3{n} 31 0:2{n} / {tmp_path}/{name} rw - {kind} cgroup rw,{name}\n"
        for n, (name, kind) in enumerate(
            [("freezer", "cgroup"), ("memory", "cgroup"), ("cpu", "cgroup"), ("unified", "cgroup2")]
        )
    )
    theirs = f"7:freezer:/docker/{ID}\n9:memory:/docker/{ID}\n4:cpu:/docker/{ID}\n0::/docker/{ID}\n"
    for name, file in (("freezer", "freezer.state"), ("unified", "cgroup.freeze")):
        (tmp_path / name / "docker" / ID).mkdir(parents=True)
        (tmp_path / name / "docker" / ID / file).touch()
    (tmp_path / "proc").mkdir()
    proc = layout(tmp_path / "proc", theirs, "7:freezer:/\n9:memory:/\n4:cpu:/\n0::/\n", mounts)
    found = cgroup.find(7, proc)
    assert found is not None
    assert found.freezer == tmp_path / "freezer" / "docker" / ID / "freezer.state"
    found.freeze()
    assert found.freezer.read_text() == "FROZEN"
    (tmp_path / "freezer" / "docker" / ID / "freezer.state").unlink()
    unified = cgroup.find(7, proc)
    assert unified is not None
    assert unified.freezer == tmp_path / "unified" / "docker" / ID / "cgroup.freeze"
    (tmp_path / "unified" / "docker" / ID / "cgroup.freeze").unlink()
    none = cgroup.find(7, proc)
    assert none is not None and none.freezer is None
    with pytest.raises(OSError):
        none.freeze()
