"""What a container on Docker cannot do, asked from the inside."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from pool.clock import LoopClock
from pool.engine.base import Mount
from pool.host.uids import DEFAULT_UIDS, OWN_GID, OWN_USER, with_uid
from pool.transport.socket_folder import SocketFolder
from pool.transport.way import WayEnds
from scheduler.definitions.container_keys import ContainerKeys
from scheduler.deploy.container_user import container_user
from tests.support.containers import containers

pytestmark = pytest.mark.engine

NAMES = {"HOME": "/tmp", "USER": "function"}


@pytest.fixture
def run(docker_bench):
    """Run a shell script in a container and return its exit status, output and last state."""

    async def run(script: str, **keys: object) -> tuple[int, str, object]:
        spec = replace(docker_bench.spec("sh", "-c", script), **keys)
        container = await docker_bench.engine.create(spec)
        await docker_bench.engine.start(container)
        status = await asyncio.wait_for(docker_bench.engine.wait(container), 30)
        output = (await docker_bench.engine.logs(container, 100_000)).decode()
        state = await docker_bench.engine.inspect(container)
        await docker_bench.engine.remove(container)
        return status, output, state

    return run


async def test_it_runs_as_nobody_without_any_right_to_gain(run):
    status, output, _ = await run("id -u; id -g; cat /proc/self/status")
    lines = output.splitlines()
    facts = dict(line.split(":\t", 1) for line in lines[2:] if ":\t" in line)
    assert status == 0 and lines[:2] == ["65532", "65532"]
    assert {facts[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
    assert facts["NoNewPrivs"] == "1"
    assert facts["Seccomp"] == "2"


async def test_root_in_an_image_has_no_capabilities_either(run):
    status, output, _ = await run("id -u; grep CapEff /proc/self/status; chown 5 /tmp 2>&1", user="0:0")
    assert status != 0
    assert output.splitlines()[:2] == ["0", "CapEff:\t" + "0" * 16]


async def test_root_keeps_the_capabilities_that_it_is_given_and_no_other(run):
    script = """
        grep -E 'Cap(Eff|Bnd)' /proc/self/status
        touch /tmp/file && chown 5:6 /tmp/file && stat -c %u:%g /tmp/file
        mount -t tmpfs none /tmp 2>&1
    """
    _, output, _ = await run(script, user="0:0", capabilities=("chown", "setuid"))
    lines = output.splitlines()
    bits = 1 << 0 | 1 << 7  # CAP_CHOWN, CAP_SETUID
    assert lines[:3] == [f"CapEff:\t{bits:016x}", f"CapBnd:\t{bits:016x}", "5:6"]
    assert "denied" in lines[3] or "permitted" in lines[3]


async def test_without_root_a_capability_gives_nothing(run):
    _, output, _ = await run(
        "grep CapEff /proc/self/status; touch /tmp/f; chown 5 /tmp/f 2>&1", capabilities=("chown",)
    )
    assert output.splitlines()[0] == "CapEff:\t" + "0" * 16 and "not permitted" in output


async def test_shared_memory_has_the_size_that_is_given(run):
    script = "dd if=/dev/zero of=/dev/shm/big bs=1M count=20 2>/dev/null; stat -c %s /dev/shm/big"
    _, output, _ = await run(script, shm_size=3 * 2**20)
    assert output == f"{3 * 2**20}\n"


@pytest.mark.parametrize("user", ["65532:65532", "0:0"])
async def test_the_root_is_read_only_and_only_the_given_folders_can_be_written(run, user):
    script = """
        for folder in / /etc /bin /proc /proc/sys/kernel /sys /sys/fs/cgroup; do
            touch $folder/x 2>/dev/null && echo "wrote $folder"
        done
        echo kept > /tmp/file && cat /tmp/file
        echo kept > /var/data/file && cat /var/data/file
        grep -E ' /(tmp|var/data) ' /proc/mounts
    """
    status, output, _ = await run(script, writable=(("/var/data", 2**20),), user=user)
    lines = output.splitlines()
    assert status == 0 and lines[:2] == ["kept", "kept"] and len(lines) == 4
    for line in lines[2:]:
        assert {"rw", "nosuid", "nodev"} <= set(line.split()[3].split(","))


async def test_a_folder_that_the_image_has_can_be_written_by_the_user(run):
    """/srv of the image is root's, mode 755: the tmpfs over it is not."""
    script = "echo kept > /srv/file; cat /srv/file"
    status, output, _ = await run(script, writable=(("/srv", 2**20),))
    assert (status, output) == (0, "kept\n")


async def test_the_folders_are_open_to_any_user_and_limited_in_size(run):
    script = """
        stat -c %a /tmp /var/data
        dd if=/dev/zero of=/tmp/big bs=1M count=20 2>/dev/null; stat -c %s /tmp/big
        dd if=/dev/zero of=/var/data/big bs=1M count=20 2>/dev/null; stat -c %s /var/data/big
    """
    _, output, _ = await run(script, tmp_size=3 * 2**20, writable=(("/var/data", 2 * 2**20),))
    assert output.split() == ["1777", "1777", str(3 * 2**20), str(2 * 2**20)]


async def test_there_is_no_network_but_loopback(run):
    status, output, _ = await run(
        "ls /sys/class/net; cat /proc/net/route | wc -l; ping -c 1 -W 1 192.0.2.1 2>&1"
    )
    assert status != 0
    assert output.split()[:2] == ["lo", "1"]  # the table of routes has only its heading


async def test_processes_are_limited(run):
    _, output, _ = await run("for n in $(seq 40); do sleep 5 & done; echo never", pids=10)
    assert "can't fork" in output


async def test_open_files_are_limited(run):
    _, output, _ = await run("ulimit -n; ulimit -Hn", nofile=77)
    assert output.split() == ["77", "77"]


async def test_too_much_memory_is_seen_as_oom(run):
    """The kernel's kill and the container's end reach the engine as two events.

    If the end comes first, which is rare, the engine never tells of the kill.
    """
    hungry = "dd if=/dev/zero of=/dev/null bs=200M count=1"
    told = []
    while not any(told) and len(told) < 5:
        status, _, state = await run(f"exec {hungry}", memory=32 * 2**20)
        assert status == 137 and state.exit_code == 137
        told.append(state.oom_killed)
    assert any(told)
    status, _, state = await run(f"exec {hungry}", memory=512 * 2**20)
    assert status == 0 and not state.oom_killed


async def test_a_mount_is_read_only_unless_said_otherwise(run, tmp_path: Path):
    (tmp_path / "file").write_text("from the host")
    tmp_path.chmod(0o777)
    script = "cat /mnt/file; touch /mnt/new && echo wrote"
    _, output, _ = await run(script, mounts=(Mount(str(tmp_path), "/mnt"),))
    assert "from the host" in output and "Read-only" in output and "wrote" not in output
    _, output, _ = await run(script, mounts=(Mount(str(tmp_path), "/mnt", read_only=False),))
    assert "wrote" in output


async def test_environment_command_and_the_images_own_user(run, docker_bench):
    _, output, _ = await run('echo "$GREETING"; id -u', env={"GREETING": "a=b c"}, user=None)
    assert output == "a=b c\n0\n"


async def test_a_stop_does_not_wait_for_a_process_that_ignores_it(docker_bench):
    container = await docker_bench.running("sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    began = asyncio.get_running_loop().time()
    async with containers() as docker:
        await docker.stop(container)
    assert asyncio.get_running_loop().time() - began < 5


@pytest.mark.parametrize(("given", "shares"), [(None, 0), (10, 10)])
async def test_its_weight_for_the_processor_is_as_given(docker_bench, given: int | None, shares: int):
    spec = replace(docker_bench.spec("true"), cpu_shares=given)
    container = await docker_bench.engine.create(spec)
    async with containers() as docker:
        shown = await docker.show(container)
    assert shown["HostConfig"]["CpuShares"] == shares
    await docker_bench.engine.remove(container)


async def test_a_resize_changes_the_limits_that_the_process_feels(docker_bench):
    container = await docker_bench.running("sleep", "3600")
    await docker_bench.engine.resize(container, 48 * 2**20, 0.25)
    async with containers() as docker:
        host = (await docker.show(container))["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (48 * 2**20, 48 * 2**20, 250_000_000)


async def test_a_failed_build_shows_the_end_of_its_output_and_leaves_no_container(
    docker_bench, busybox_image, tar_of
):
    before = {container.id for container in await docker_bench.engine.containers({})}
    dockerfile = f"FROM {busybox_image}\nRUN echo the-reason >&2; ip link; exit 9\n"
    with pytest.raises(Exception, match="the-reason") as failed:
        await docker_bench.engine.build(
            tar_of({"Dockerfile": dockerfile.encode()}), "hearth-test/bad", docker_bench.labels
        )
    assert "returned a non-zero code: 9" in str(failed.value)
    assert "eth0" not in str(failed.value) and "LOOPBACK" in str(failed.value)  # a build has no network
    left = [state for state in await docker_bench.engine.containers({}) if state.id not in before]
    assert not [state.id for state in left if state.image == busybox_image and not state.labels]


async def test_many_wait_at_once(docker_bench):
    """More than the connections that an HTTP client keeps by itself."""
    container = await docker_bench.running("sleep", "3600")
    waiting = [asyncio.create_task(docker_bench.engine.wait(container)) for _ in range(120)]
    await asyncio.sleep(0.3)
    await asyncio.wait_for(docker_bench.engine.inspect(container), 5)
    await docker_bench.engine.remove(container)
    assert set(await asyncio.wait_for(asyncio.gather(*waiting), 10)) == {137}


async def test_a_container_with_a_uid_of_its_own_can_write_its_folders_and_has_one_group(run, docker_bench):
    spec = with_uid(replace(docker_bench.spec(), user=OWN_USER, usual_env=NAMES), DEFAULT_UIDS.last)
    script = (
        "id -u; id -G; echo $HOME $USER; for f in /tmp /var/data /srv; do echo kept > $f/x && cat $f/x; done"
    )
    status, output, _ = await run(
        script, user=spec.user, env=spec.env, writable=(("/var/data", 2**20), ("/srv", 2**20))
    )
    expected = [str(DEFAULT_UIDS.last), str(OWN_GID), "/tmp", "function", "kept", "kept", "kept"]
    assert (status, output.split()) == (0, expected)


async def test_an_image_says_its_program_its_variables_and_its_user(docker_bench, busybox_image, tar_of):
    """So that ours do not take the place of its own."""
    dockerfile = f"FROM {busybox_image}\nENV HOME=/srv EMPTY= \nUSER 1234:5\n"
    dockerfile += 'ENTRYPOINT ["/serve", "-x"]\nCMD ["a b"]\n'
    tag = f"hearth-test/names:{next(iter(docker_bench.labels.values()))}"
    built = await docker_bench.engine.build(
        tar_of({"Dockerfile": dockerfile.encode()}), tag, docker_bench.labels
    )
    assert built.user == "1234:5"
    assert (built.entrypoint, built.command) == (("/serve", "-x"), ("a b",))
    assert {"HOME", "EMPTY"} <= built.variables
    variables = container_user(ContainerKeys(), built, b"").variables
    assert {"USER", "LOGNAME"} <= set(variables) and "HOME" not in variables
    assert "HOME" not in (await docker_bench.engine.image(busybox_image)).variables


@pytest.fixture
def seen_in(run, tmp_path: Path):
    """What containers with these uids see of one socket folder, which is given to `owner`; None: to nobody."""

    async def seen_in(owner: int | None, *uids: int) -> list[list[str]]:
        way = SocketFolder(tmp_path / "run" / "0123", LoopClock(), owner)
        await way.open(WayEnds(asyncio.Protocol, lambda data: None))
        mounts = (Mount(str(way.folder), "/run/hearth"),)
        script = "ls /run/hearth 2>/dev/null; test -w /run/hearth/calls.sock && echo dials; true"
        seen = [(await run(script, user=f"{uid}:{OWN_GID}", mounts=mounts))[1].split() for uid in uids]
        await way.close()
        return seen

    return seen_in


async def test_a_socket_folder_is_read_and_dialled_by_its_own_container_alone(seen_in):
    own, other = await seen_in(DEFAULT_UIDS.first, DEFAULT_UIDS.first, DEFAULT_UIDS.first + 1)
    assert (own, other) == (["calls.sock", "log.sock", "dials"], [])


async def test_without_the_right_to_give_it_away_a_container_can_dial_all_the_same(seen_in):
    assert await seen_in(None, DEFAULT_UIDS.first) == [["calls.sock", "log.sock", "dials"]]
