"""What every container engine must do: the same tests on Docker and in memory."""

from __future__ import annotations

import asyncio
import io
import posixpath
import tarfile
import uuid
from pathlib import Path

import pytest

from pool.engine.base import BadPath, ContainerEvent, EngineError, EngineUnreachable, NotFound
from pool.engine.docker import DockerEngine
from pool.observe.metrics import Metrics

NOBODY = "0" * 64


async def test_a_container_is_created_started_seen_and_removed(bench):
    spec = bench.spec("sleep", "3600")
    container = await bench.engine.create(spec)
    created = await bench.engine.inspect(container)
    assert (created.running, created.pid, created.exit_code, created.name) == (False, 0, None, spec.name)
    assert created.image == bench.image
    assert dict(created.labels).items() >= bench.labels.items()

    await bench.engine.start(container)
    started = await bench.engine.inspect(container)
    assert started.running and started.pid > 1 and started.exit_code is None
    assert started.addresses == {}

    await bench.engine.remove(container)
    with pytest.raises(NotFound):
        await bench.engine.inspect(container)


async def test_what_is_not_there_is_not_found_and_removing_it_is_fine(bench):
    for verb in (bench.engine.start, bench.engine.inspect, bench.engine.wait, bench.engine.attach):
        with pytest.raises(NotFound):
            await verb(NOBODY)
    with pytest.raises(NotFound):
        await bench.engine.image("hearth-test/no-such-image")
    with pytest.raises(NotFound):
        await bench.engine.logs(NOBODY, 100)
    with pytest.raises(NotFound):
        await bench.engine.resize(NOBODY, 64 * 2**20, 1.0)
    await bench.engine.remove(NOBODY)
    await bench.engine.remove_image("hearth-test/no-such-image")
    await bench.engine.remove_network("hearth-no-such-network")


async def test_create_needs_an_image_and_a_free_name(bench):
    spec = bench.spec("sleep", "3600")
    await bench.engine.create(spec)
    with pytest.raises(EngineError) as taken:
        await bench.engine.create(spec)
    assert spec.name in str(taken.value)
    missing = type(spec)(name=f"{spec.name}-2", image="hearth-test/no-such-image", labels=bench.labels)
    with pytest.raises(NotFound):
        await bench.engine.create(missing)


async def test_starting_twice_changes_nothing(bench):
    container = await bench.running("sleep", "3600")
    pid = (await bench.engine.inspect(container)).pid
    await bench.engine.start(container)
    assert (await bench.engine.inspect(container)).pid == pid


async def test_removing_at_the_same_time_is_fine_for_everybody(bench):
    container = await bench.running("sleep", "3600")
    await asyncio.gather(*(bench.engine.remove(container) for _ in range(5)))
    with pytest.raises(NotFound):
        await bench.engine.inspect(container)
    assert bench.failures("remove") == 0


@pytest.mark.parametrize("status", [0, 1, 42, 255])
async def test_wait_returns_the_exit_status(bench, status):
    container = await bench.running("exit", str(status))
    assert await bench.engine.wait(container) == status
    state = await bench.engine.inspect(container)
    assert (state.running, state.exit_code, state.pid, state.oom_killed) == (False, status, 0, False)


async def test_wait_ends_when_the_container_is_removed(bench):
    container = await bench.running("sleep", "3600")
    waiting = asyncio.create_task(bench.engine.wait(container))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    await bench.engine.remove(container)
    assert await asyncio.wait_for(waiting, 5) == 137


async def test_containers_are_listed_by_all_labels_running_or_not(bench):
    idle = await bench.engine.create(bench.spec("sleep", "3600"))
    running = await bench.running("sleep", "3600")
    found = {state.id: state for state in await bench.engine.containers(bench.labels)}
    assert {idle, running} <= found.keys()
    assert found[running].pid > 1 and not found[idle].running
    key = next(iter(bench.labels))
    assert {idle, running} <= {state.id for state in await bench.engine.containers({key: ""})}
    assert await bench.engine.containers({key: "another"}) == []
    assert await bench.engine.containers(bench.labels | {"org.hearth.no-such-label": ""}) == []


async def read_all(attachment) -> tuple[bytes, bytes]:
    output = {1: bytearray(), 2: bytearray()}
    while (piece := await attachment.read()) is not None:
        output[piece[0]] += piece[1]
    return bytes(output[1]), bytes(output[2])


async def test_five_megabytes_go_through_an_attached_cat(bench):
    sent = bytes(range(256)) * (5 * 2**20 // 256)
    container = await bench.engine.create(bench.spec("cat", stdin=True, keep_output=False))
    attachment = await bench.engine.attach(container)
    await bench.engine.start(container)

    async def send() -> None:
        for start in range(0, len(sent), 60_000):
            await attachment.write(sent[start : start + 60_000])
        await attachment.close_stdin()

    sending = asyncio.create_task(send())
    stdout, stderr = await asyncio.wait_for(read_all(attachment), 30)
    await sending
    assert stdout == sent and stderr == b""
    assert await bench.engine.wait(container) == 0
    await attachment.close()
    await attachment.close()
    assert await bench.engine.logs(container, 1000) == b""


async def test_the_first_output_is_not_lost_and_stderr_is_told_apart(bench):
    for command, stdout, stderr in ((("echo", "hello"), b"hello\n", b""), (("complain", "no"), b"", b"no\n")):
        container = await bench.engine.create(bench.spec(*command))
        attachment = await bench.engine.attach(container)
        await bench.engine.start(container)
        assert await asyncio.wait_for(read_all(attachment), 10) == (stdout, stderr)
        await attachment.close()


async def test_writing_to_a_container_that_has_ended_is_swallowed(bench):
    container = await bench.engine.create(bench.spec("exit", "0", stdin=True))
    attachment = await bench.engine.attach(container)
    await bench.engine.start(container)
    await bench.engine.wait(container)
    for _ in range(100):
        await asyncio.wait_for(attachment.write(b"x" * 100_000), 5)
    await attachment.close_stdin()
    await attachment.close()


async def test_who_does_not_read_holds_the_container_back(bench):
    """`yes` would fill the memory of an engine or a gateway that reads ahead."""
    container = await bench.engine.create(bench.spec("yes", keep_output=False))
    attachment = await bench.engine.attach(container)
    await bench.engine.start(container)
    assert await attachment.read() is not None
    await asyncio.sleep(0.5)
    assert 0 < attachment.unread <= 2**20
    assert (await bench.engine.inspect(container)).running
    await attachment.close()
    await bench.engine.remove(container)


async def test_logs_are_the_end_of_the_output(bench):
    container = await bench.running("echo", "0123456789")
    await bench.engine.wait(container)
    assert await bench.engine.logs(container, 1000) == b"0123456789\n"
    assert await bench.engine.logs(container, 4) == b"789\n"
    assert await bench.engine.logs(container, 0) == b""


async def test_a_running_container_is_resized_and_a_dead_one_is_not_found_or_refused(bench):
    container = await bench.running("sleep", "3600")
    await bench.engine.resize(container, 64 * 2**20, 0.5)
    await bench.engine.resize(container, 256 * 2**20, 2.0)
    await bench.engine.remove(container)
    with pytest.raises(EngineError):
        await bench.engine.resize(container, 64 * 2**20, 0.5)


async def test_a_paused_container_runs_nothing_until_it_is_unpaused(bench):
    container = await bench.engine.create(bench.spec("yes", keep_output=False))
    attachment = await bench.engine.attach(container)
    await bench.engine.start(container)
    assert await attachment.read() is not None
    assert not (await bench.engine.inspect(container)).paused
    for _ in range(2):  # a second time changes nothing
        await bench.engine.pause(container)
        state = await bench.engine.inspect(container)
        assert state.paused and state.running and state.exit_code is None
    with pytest.raises(TimeoutError):  # what it had written can be read, and then nothing comes
        while True:
            await asyncio.wait_for(attachment.read(), 0.5)
    for _ in range(2):
        await bench.engine.unpause(container)
        assert not (await bench.engine.inspect(container)).paused
    assert await asyncio.wait_for(attachment.read(), 5) is not None
    await attachment.close()
    assert (bench.failures("pause"), bench.failures("unpause")) == (0, 0)


async def test_a_paused_container_can_be_removed_and_one_that_does_not_run_cannot_be_paused(bench):
    container = await bench.running("sleep", "3600")
    await bench.engine.pause(container)
    await bench.engine.remove(container)
    for verb in (bench.engine.inspect, bench.engine.pause, bench.engine.unpause):
        with pytest.raises(NotFound):
            await verb(container)
    ended = await bench.running("exit", "0")
    await bench.engine.wait(ended)
    with pytest.raises(EngineError):
        await bench.engine.pause(ended)


async def next_events(stream, count: int) -> list[ContainerEvent]:
    found: list[ContainerEvent] = []
    async for event in stream:
        found.append(event)
        if len(found) == count:
            break
    await stream.aclose()
    return found


async def test_events_tell_a_containers_life_from_the_moment_of_the_call(bench):
    only = bench.labels | {"org.hearth.only": uuid.uuid4().hex}
    stream = bench.engine.events(only)
    await bench.running("exit", "0")  # without the label: not told of
    spec = bench.spec("exit", "7")
    spec = type(spec)(name=spec.name, image=spec.image, labels=only, command=spec.command)
    container = await bench.engine.create(spec)
    await bench.engine.start(container)
    await bench.engine.wait(container)
    await bench.engine.remove(container)
    events = await asyncio.wait_for(next_events(stream, 4), 10)
    assert [(event.action, event.exit_code) for event in events] == [
        ("create", None),
        ("start", None),
        ("die", 7),
        ("destroy", None),
    ]
    assert all(event.id == container and event.labels.items() >= only.items() for event in events)


async def test_what_an_image_has_at_a_path_can_be_read_from_a_container_that_never_ran(bench):
    container = await bench.engine.create(bench.spec("sleep", "3600"))

    def names(tar: bytes) -> list[str]:
        with tarfile.open(fileobj=io.BytesIO(tar), mode="r:") as archive:
            return [posixpath.normpath(entry.name) for entry in archive]

    assert "cat" in names(await bench.engine.archive(container, "/bin", 64 * 2**20))
    assert names(await bench.engine.archive(container, "/bin/busybox", 64 * 2**20)) == ["busybox"]
    assert len(await bench.engine.archive(container, "/bin", 100)) == 100
    with pytest.raises(NotFound):
        await bench.engine.archive(container, "/nowhere", 100)
    with pytest.raises(NotFound):
        await bench.engine.archive(NOBODY, "/bin", 100)
    if bench.real:
        for path in ("/bin/busybox/x", "/a\0b", "/" + "x" * 300):
            with pytest.raises(BadPath):
                await bench.engine.archive(container, path, 100)
    await bench.engine.remove(container)


async def test_an_image_is_built_found_and_removed(bench, tar_of):
    labels = bench.labels | {"org.hearth.built": "yes"}
    tag = f"hearth-test/built:{uuid.uuid4().hex}"
    context = tar_of({"Dockerfile": b"FROM scratch\nCOPY file /file\n", "file": tag.encode()})
    built = await bench.engine.build(context, tag, labels)
    assert tag in built.tags and dict(built.labels).items() >= labels.items() and built.size > 0
    assert await bench.engine.image(tag) == await bench.engine.image(built.id) == built
    assert [image.id for image in await bench.engine.images(labels)] == [built.id]
    await bench.engine.remove_image(tag)
    assert await bench.engine.images(labels) == []


async def test_a_build_that_fails_says_why(bench, tar_of):
    with pytest.raises(EngineError, match="Cannot build image hearth-test/bad"):
        await bench.engine.build(tar_of({"README": b"no Dockerfile"}), "hearth-test/bad", bench.labels)


async def test_networks_are_made_listed_and_removed(bench):
    name = f"hearth-test-{uuid.uuid4().hex[:8]}"
    made = await bench.engine.create_network(name, f"ht{name[-8:]}", True, bench.labels)
    assert (made.name, made.bridge) == (name, f"ht{name[-8:]}")
    assert made in await bench.engine.networks(bench.labels)
    with pytest.raises(EngineError):
        await bench.engine.create_network(name, "htother", True, bench.labels)
    await bench.engine.remove_network(name)
    await bench.engine.remove_network(name)
    assert made not in await bench.engine.networks(bench.labels)


async def test_info_says_what_the_engine_is(bench):
    info = await bench.engine.info()
    assert info.version and info.cpus > 0 and info.memory > 2**20 and info.cgroup_version in (1, 2)
    await bench.engine.ping()


async def test_every_call_is_timed_and_every_failure_counted(bench):
    before = bench.timed("inspect"), bench.failures("inspect")
    container = await bench.engine.create(bench.spec("sleep", "3600"))
    await bench.engine.inspect(container)
    with pytest.raises(NotFound):
        await bench.engine.inspect(NOBODY)
    assert (bench.timed("inspect"), bench.failures("inspect")) == (before[0] + 2, before[1] + 1)
    assert bench.timed("create") >= 1 and bench.failures("create") == 0


async def test_a_create_whose_caller_went_away_is_found_by_its_name(bench):
    spec = bench.spec("sleep", "3600")
    await bench.engine.ping()
    creating = asyncio.create_task(bench.engine.create(spec))
    await asyncio.sleep(0.0015 if bench.real else 0.0005)  # sent, and not yet answered
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    async with asyncio.timeout(5):
        while spec.name not in {state.name for state in await bench.engine.containers(bench.labels)}:
            await asyncio.sleep(0.01)
    await bench.engine.remove(spec.name)
    with pytest.raises(NotFound):
        await bench.engine.inspect(spec.name)


async def test_an_engine_that_is_not_there_is_unreachable(tmp_path: Path):
    engine = DockerEngine(f"unix://{tmp_path}/no.sock", metrics := Metrics())
    try:
        for call in (
            engine.ping(),
            engine.info(),
            engine.inspect("x"),
            engine.containers({}),
            engine.remove("x"),
        ):
            with pytest.raises(EngineUnreachable):
                await call
        with pytest.raises(EngineUnreachable):
            await anext(engine.events({}))
    finally:
        await engine.close()
    value = metrics.registry.get_sample_value
    assert value("hearth_engine_errors_total", {"verb": "events"}) == 1
    assert value("hearth_engine_errors_total", {"verb": "remove"}) == 1


async def test_an_engine_that_hangs_up_or_answers_nonsense_is_an_engine_error(tmp_path: Path):
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{")
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(hang_up, f"{tmp_path}/engine.sock")
    engine = DockerEngine(f"unix://{tmp_path}/engine.sock", Metrics())
    try:
        with pytest.raises(EngineUnreachable):
            await engine.inspect("x")
        with pytest.raises(EngineUnreachable):
            await engine.ping()
    finally:
        await engine.close()
        server.close()
        await server.wait_closed()
