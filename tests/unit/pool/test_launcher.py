"""What becomes of a start, a specialising, a take-over and a removal, whatever the engine and the instance do.

On the engine in memory; the instance's end of its sockets is a small program that answers as a shim does, or not.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from pool.clock import Clock, LoopClock, VirtualClock
from pool.contracts.base import Contract
from pool.contracts.command import COMMAND
from pool.contracts.handler import HANDLER
from pool.contracts.http import HTTP
from pool.contracts.init_place import INIT_FOLDER
from pool.contracts.obituary import END_WAIT_SECONDS, Obituary
from pool.contracts.reconnect import RECONNECT_SECONDS
from pool.contracts.starter import InstanceReports, LaunchSettings, user_of
from pool.engine.base import (
    ContainerSpec,
    EngineDown,
    EngineError,
    EngineUnreachable,
    Mount,
    NotRunnable,
)
from pool.engine.labels import SOCKETS_FOLDER, container_name
from pool.engine.memory import Latency, MemoryEngine
from pool.engine.memory_process import Process
from pool.errors import FunctionBroken, StartFailed
from pool.host.cgroup import Cgroup
from pool.host.egress import Egress
from pool.host.uids import OWN_GID, OWN_USER, UID_LABEL
from pool.instance import Instance
from pool.launcher import Launcher
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor
from pool.workload import Order, Workload
from tests.support.serving_init import serving

MIB = 2**20
GENERIC = ContainerSpec(name="", image="image", memory=128 * MIB, program=("serve",))


@dataclass
class Shim:
    """Dials one connection and gives these answers."""

    status: object = field(default_factory=lambda: {"specialised": False})
    specialise: tuple[int, bytes] | None = (200, b"done")
    """None: it ends instead of answering."""
    hangs: bool = False
    hangs_up: bool = False
    seen: list[str] = field(default_factory=list)

    async def __call__(self, process: Process) -> int:
        [source] = [mount.source for mount in process.spec.mounts if mount.target == SOCKETS_FOLDER]
        folder = os.open(source, os.O_RDONLY)
        try:
            reader, writer = await asyncio.open_unix_connection(f"/proc/self/fd/{folder}/calls.sock")
        finally:
            os.close(folder)
        try:
            return await self.serve(reader, writer)
        finally:
            writer.close()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        while not self.hangs_up:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = head.partition("content-length:")[2].split()[:1]
            await reader.readexactly(int(length[0]) if length else 0)
            self.seen.append(head.split()[1])
            if self.hangs:
                await asyncio.Event().wait()
            answer = (
                (200, json.dumps(self.status).encode())
                if self.seen[-1] == "/hearth/status"
                else self.specialise
            )
            if answer is None:
                return 7
            writer.write(
                b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n%b" % (answer[0], len(answer[1]), answer[1])
            )
        return 0


class Bench:
    """A launcher over an engine in memory; `shim` is what the image runs."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.clock = clock
        self.engine = MemoryEngine(clock, latency=Latency(0, 0, 0, 0))
        self.instances: list[Instance] = []
        self.shim = Shim()
        self.printed: list[bytes] = []
        self.image("image", self.shim)
        self.launcher = self.made()

    def image(self, name: str, program: object) -> None:
        self.engine.add_image(name, program=program)  # type: ignore[arg-type]

    def made(self, start_timeout: float = 20.0) -> Launcher:
        self.launcher = Launcher(
            self.engine,
            self.clock,
            LaunchSettings("g", self.folder, self.folder / "hosts", start_timeout),
            Egress(self.engine, "g", self.clock, Supervisor(self.clock, Metrics())),
            InstanceReports(
                on_slots=lambda _: None,
                on_output=lambda _, data: self.printed.append(data),
                printed=lambda _: b"".join(self.printed),
            ),
        )
        return self.launcher

    def workload(self, contract: Contract = HANDLER, **keys: object) -> Workload:
        code = self.folder / "code"
        code.write_bytes(b"{}")
        order = Order(b'{"function": "f"}', code)
        return Workload(function="f", version="1", contract=contract, container=GENERIC, order=order, **keys)  # type: ignore[arg-type]

    def instance(self, workload: Workload | None = None) -> Instance:
        made = Instance(f"i{len(self.instances)}", "image", 128 * MIB, workload, 0.0)
        self.instances.append(made)
        return made

    async def clean(self) -> None:
        self.engine.heal()
        for instance in self.instances:
            await self.launcher.destroy(instance)
        assert self.engine.alive() == 0
        await self.engine.close()

    async def launched(self, workload: Workload | None = None) -> Instance:
        instance = self.instance(workload)
        await self.launcher.launch(instance, GENERIC)
        return instance


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, LoopClock())
    yield made
    await made.clean()


@pytest.fixture
async def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def timed(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Bench]:
    """A bench on virtual time: a limit that were the event loop's own would not end."""
    made = Bench(tmp_path, clock)
    yield made
    await clock.run(made.clean())


async def silent(process: Process) -> int:
    """A program that never does anything."""
    await asyncio.Event().wait()
    return 0


async def until(clock: VirtualClock, done: Callable[[], bool]) -> None:
    """Let real sockets, and everything that is due now, go on until something is done."""
    async with asyncio.timeout(10):
        while not done():
            await clock.advance(0.0)
            await asyncio.sleep(0.001)


# -- starting ------------------------------------------------------------------------------------------------


async def test_a_handler_is_launched_when_its_shim_has_dialled(bench: Bench) -> None:
    instance = await bench.launched()
    assert instance.link is not None
    assert instance.link.alive
    assert instance.cgroup is None, "the process that dialled is ours, in no container"
    assert instance.container is not None
    assert (await bench.engine.inspect(instance.container)).name == container_name(instance.id)


async def test_a_program_that_ends_first_is_quoted(bench: Bench) -> None:
    async def ends(process: Process) -> int:
        await process.write(b"no such module\n", 2)
        return 3

    bench.image("image", ends)
    with pytest.raises(FunctionBroken, match="exit status 3 before it was ready; it printed: no such module"):
        await bench.launched()


async def test_a_program_that_does_not_become_ready_has_its_time(timed: Bench, clock: VirtualClock) -> None:
    timed.image("image", silent)
    with pytest.raises(FunctionBroken, match=r"^not ready within 20 s \(HEARTH_START_TIMEOUT\)"):
        await clock.run(timed.launched())
    assert clock.now() == 20.0


async def test_last_words_that_cannot_be_read_are_left_out(bench: Bench) -> None:
    async def ends(process: Process) -> int:
        await process.write(b"unread")
        return 3

    bench.image("image", ends)
    bench.engine.fail_next("logs", EngineError("no logs"))
    with pytest.raises(FunctionBroken, match=r"before it was ready$"):
        await bench.launched()


@pytest.mark.parametrize(
    ("verb", "error", "raised", "message", "down"),
    [
        ("start", NotRunnable("exec: not found"), FunctionBroken, "image does not start: exec", None),
        ("create", EngineError("no space left"), StartFailed, "could not start .*no space left", False),
        ("create", EngineDown("away", 2.0), StartFailed, "could not start the instance: away", True),
        (
            "wait",
            EngineUnreachable("cut"),
            StartFailed,
            "lost the instance while it was starting: cut",
            False,
        ),
    ],
)
async def test_what_the_engine_says_of_a_start(
    bench: Bench, verb: str, error: EngineError, raised: type[Exception], message: str, down: bool | None
) -> None:
    bench.image("image", silent)
    bench.engine.fail_next(verb, error)
    with pytest.raises(raised, match=message) as caught:
        await bench.launched()
    assert getattr(caught.value, "engine_down", None) is down


async def test_a_socket_folder_that_cannot_be_made_is_named(bench: Bench) -> None:
    instance = bench.instance()
    (bench.folder / instance.id).write_text("in the way")
    with pytest.raises(StartFailed, match=r"folders could not be made: .*File exists"):
        await bench.launcher.launch(instance, GENERIC)
    (bench.folder / instance.id).unlink()


async def test_an_http_image_that_ends_at_once_is_to_blame(bench: Bench) -> None:
    async def ends(process: Process) -> int:
        await process.write(b"bad flag")
        return 2

    bench.image("image", serving(ends))
    bench.launcher.starter.init = Mount(str(bench.folder), INIT_FOLDER)
    with pytest.raises(FunctionBroken, match=r"exit status 2 before it was ready.*; it printed: bad flag"):
        await bench.launched(bench.workload(HTTP, port=8000))


async def test_an_http_image_that_does_not_listen_in_time_is_to_blame(
    timed: Bench, clock: VirtualClock
) -> None:
    timed.image("image", serving(silent))
    timed.launcher.starter.init = Mount(str(timed.folder), INIT_FOLDER)
    with pytest.raises(FunctionBroken, match="not ready within 20 s"):
        await clock.run(timed.launched(timed.workload(HTTP, port=1)))


async def test_without_init_no_http_image_starts_and_the_message_says_what_to_do(bench: Bench) -> None:
    with pytest.raises(StartFailed, match="run `hearth setup`"):
        await bench.launched(bench.workload(HTTP, port=8000))


# -- specialising --------------------------------------------------------------------------------------------


async def test_a_generic_instance_gets_the_limits_of_its_function(bench: Bench) -> None:
    instance = await bench.launched()
    workload = bench.workload(concurrency=3)
    await bench.launcher.specialise(instance, workload)
    assert bench.shim.seen == ["/specialise"]
    assert bench.engine.calls["resize"] == 1, "no cgroup can be written: the engine is asked"
    assert instance.link is not None
    assert instance.link.slots == 3  # type: ignore[attr-defined]
    assert instance.link.free_slots(0) == 1


async def test_limits_are_written_to_the_cgroup_and_the_engine_is_not_asked(bench: Bench) -> None:
    instance = await bench.launched()
    place = bench.folder / "cgroup"
    place.mkdir()
    for name in ("memory.max", "cpu.max"):
        (place / name).touch()
    instance.cgroup = Cgroup(place, place, unified=True)
    await bench.launcher.specialise(instance, bench.workload())
    assert (place / "memory.max").read_text() == str(128 * MIB)
    assert bench.engine.calls["resize"] == 0


async def test_limits_that_cannot_be_set_fail_the_start(bench: Bench) -> None:
    instance = await bench.launched()
    bench.engine.fail_next("resize", EngineError("busy"))
    with pytest.raises(StartFailed, match="could not set the instance's limits: busy"):
        await bench.launcher.specialise(instance, bench.workload())
    assert bench.shim.seen == [], "no code was sent"


async def test_what_the_handler_s_import_raised_is_passed_on(bench: Bench) -> None:
    bench.shim.specialise = (500, b'{"type": "ImportError", "message": "no module named nowhere"}')
    instance = await bench.launched()
    with pytest.raises(FunctionBroken, match="no module named nowhere") as caught:
        await bench.launcher.specialise(instance, bench.workload())
    assert (caught.value.kind, caught.value.imported) == ("ImportError", False)


async def test_an_import_that_ends_the_process_is_the_function_s(bench: Bench) -> None:
    bench.shim.specialise = None
    instance = await bench.launched()
    with pytest.raises(FunctionBroken, match="the instance ended while it imported the handler"):
        await bench.launcher.specialise(instance, bench.workload())


async def test_an_import_has_its_time(timed: Bench, clock: VirtualClock) -> None:
    timed.shim.hangs = True
    instance = timed.instance()
    launching = asyncio.ensure_future(timed.launcher.launch(instance, GENERIC))
    await until(clock, launching.done)
    importing = asyncio.ensure_future(timed.launcher.specialise(instance, timed.workload()))
    await until(clock, lambda: timed.shim.seen == ["/specialise"])
    await clock.advance(19.9)
    assert not importing.done()
    await clock.advance(0.1)
    with pytest.raises(FunctionBroken, match=r"not imported within 20 s"):
        await importing


async def test_a_generic_instance_without_its_connection_is_the_platform_s(bench: Bench) -> None:
    instance = await bench.launched()
    assert instance.link is not None
    assert instance.link.take() is not None  # as if it were lost
    with pytest.raises(StartFailed, match="the prewarmed instance has lost its connection"):
        await bench.launcher.specialise(instance, bench.workload())


# -- taking over ---------------------------------------------------------------------------------------------

AS_RECORDED = {"specialised": True, "failed": False, "function": "f", "version": "1"}


def dials_again(bench: Bench, instance: Instance, shim: Shim) -> object:
    """A shim's program that dials until somebody listens."""

    async def program(process: Process) -> int:
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(
                    str(bench.folder / instance.id / "calls.sock")
                )
            except OSError:
                await asyncio.sleep(0.005)
                continue
            try:
                return await shim.serve(reader, writer)
            finally:
                writer.close()

    return program


@pytest.mark.parametrize(
    ("generic", "status", "why"),
    [
        (True, {"specialised": False}, None),
        (True, {"specialised": True}, "it says that it is"),
        (False, AS_RECORDED, None),
        (False, {"specialised": False}, "it says that it is"),
        (False, AS_RECORDED | {"failed": True}, "it says that it is"),
        (False, AS_RECORDED | {"function": "g"}, "it says that it is"),
        (False, AS_RECORDED | {"version": "2"}, "it says that it is"),
        (False, ["a list"], "it does not say what it is"),
    ],
)
@pytest.mark.parametrize("paused", [False, True])
async def test_who_is_taken_over_is_what_the_record_says(
    bench: Bench, generic: bool, status: object, why: str | None, paused: bool
) -> None:
    instance = bench.instance(None if generic else bench.workload())
    (bench.folder / instance.id).mkdir()
    bench.image("image", dials_again(bench, instance, Shim(status=status)))
    instance.container = await bench.engine.create(await bench.launcher.starter.spec_of(instance, GENERIC))
    await bench.engine.start(instance.container)
    if paused:
        await bench.engine.pause(instance.container)
    if why is None:
        await bench.launcher.adopt(instance)
        assert instance.link is not None
        assert instance.link.free_slots(0) == 1
    else:
        with pytest.raises(StartFailed, match=why):
            await bench.launcher.adopt(instance)
    assert not (await bench.engine.inspect(instance.container)).paused


async def test_who_does_not_dial_or_has_ended_is_not_taken_over(timed: Bench, clock: VirtualClock) -> None:
    timed.image("image", silent)
    instance = timed.instance()
    (timed.folder / instance.id).mkdir()
    instance.container = await clock.run(
        timed.engine.create(await timed.launcher.starter.spec_of(instance, GENERIC))
    )
    with pytest.raises(StartFailed, match="its container has ended"):
        await clock.run(timed.launcher.adopt(instance))
    await clock.run(timed.engine.start(instance.container))
    with pytest.raises(StartFailed, match=f"not idle and reachable within {RECONNECT_SECONDS:g} s"):
        await clock.run(timed.launcher.adopt(instance))
    assert clock.now() == RECONNECT_SECONDS
    timed.engine.fail_next("inspect", EngineError("no answer"))
    with pytest.raises(StartFailed, match="no answer"):
        await clock.run(timed.launcher.adopt(instance))


async def test_who_ends_when_it_is_asked_is_not_taken_over(bench: Bench) -> None:
    instance = bench.instance(bench.workload())
    (bench.folder / instance.id).mkdir()
    bench.image("image", dials_again(bench, instance, Shim(hangs_up=True)))
    instance.container = await bench.engine.create(await bench.launcher.starter.spec_of(instance, GENERIC))
    await bench.engine.start(instance.container)
    with pytest.raises(StartFailed):
        await bench.launcher.adopt(instance)


# -- ends ----------------------------------------------------------------------------------------------------


async def test_an_obituary_waits_a_moment_for_the_end(timed: Bench, clock: VirtualClock) -> None:
    timed.image("image", silent)
    instance = timed.instance()
    instance.container = await clock.run(
        timed.engine.create(await timed.launcher.starter.spec_of(instance, GENERIC))
    )
    await clock.run(timed.engine.start(instance.container))
    expected = Obituary("it closed its connection", ended=False)
    assert await clock.run(timed.launcher.obituary(instance)) == expected
    assert clock.now() == END_WAIT_SECONDS


@pytest.mark.parametrize(
    ("status", "words"),
    [(9, "exit status 9"), (139, "exit status 139 (SIGSEGV)"), (255, "exit status 255")],
)
async def test_an_obituary_says_how_the_process_ended(bench: Bench, status: int, words: str) -> None:
    instance = await bench.launched()
    assert instance.container is not None
    bench.engine.kill(instance.container, status)
    assert await bench.launcher.obituary(instance) == Obituary(f"its process ended with {words}", ended=True)


async def test_an_obituary_says_that_memory_was_the_reason(bench: Bench) -> None:
    instance = await bench.launched()
    assert instance.container is not None
    bench.engine.kill(instance.container, oom=True)
    words = "it was killed for want of memory (128 MiB; raise `memory`)"
    assert await bench.launcher.obituary(instance) == Obituary(words, ended=True)


async def test_an_instance_that_lives_on_is_not_waited_for(timed: Bench, clock: VirtualClock) -> None:
    """Its processes are there. The kernel may have killed one of them, such as the worker that served the call."""
    place = timed.folder / "cgroup"
    place.mkdir()
    instance = timed.instance()
    instance.cgroup = Cgroup(place, place, unified=True)
    (place / "cgroup.procs").write_text("17\n18\n")
    closed = "it closed its connection"
    assert await clock.run(timed.launcher.obituary(instance)) == Obituary(closed, ended=False)
    assert clock.now() < END_WAIT_SECONDS
    (place / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    death = await clock.run(timed.launcher.obituary(instance))
    assert death.words == (
        f"{closed}; so far the kernel has killed 2 of its processes for want of memory (128 MiB; raise `memory`)"
    )


async def test_a_container_goes_by_its_name_if_its_id_never_reached_us(bench: Bench) -> None:
    bench.engine.fail_next("create", EngineError("timed out"), carried_out=True)
    with pytest.raises(StartFailed):
        await bench.launched()
    [instance] = bench.instances
    assert instance.container is None
    assert await bench.launcher.logs(instance, 100) == b""
    assert bench.engine.alive() == 1
    await bench.launcher.destroy(instance)
    assert bench.engine.alive() == 0
    assert not (bench.folder / instance.id).exists()


async def test_who_is_left_goes_on_and_its_sockets_are_closed(bench: Bench) -> None:
    instance = await bench.launched()
    await bench.launcher.leave(instance)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_unix_connection(str(bench.folder / instance.id / "calls.sock"))
    assert bench.engine.alive() == 1
    assert bench.engine.calls["remove"] == 0


async def test_of_an_instance_without_a_container_or_a_link_there_is_nothing_to_do(bench: Bench) -> None:
    """It was left or asked for its log before anything of it was made."""
    instance = bench.instance()
    assert await bench.launcher.logs(instance, 1000) == b""
    await bench.launcher.leave(instance)
    await bench.launcher.destroy(instance)
    assert bench.engine.alive() == 0


async def test_freezing_over_the_engine(bench: Bench) -> None:
    instance = await bench.launched()
    await bench.launcher.pause(instance)
    assert (await bench.engine.inspect(instance.container or "")).paused
    await bench.launcher.unpause(instance)
    assert not (await bench.engine.inspect(instance.container or "")).paused


# -- who it runs as ------------------------------------------------------------------------------------------


class NotedEngine(MemoryEngine):
    """Notes what it was asked to create."""

    def __init__(self) -> None:
        super().__init__(LoopClock(), latency=Latency(0, 0, 0, 0))
        self.created: list[ContainerSpec] = []

    async def create(self, spec: ContainerSpec) -> str:
        self.created.append(spec)
        return await super().create(spec)


@pytest.mark.parametrize("contract", [HANDLER, COMMAND])
async def test_every_kind_of_container_runs_as_the_uid_of_its_instance(
    bench: Bench, contract: Contract
) -> None:
    bench.engine = noted = NotedEngine()
    bench.image("image", bench.shim)
    bench.made()
    own = replace(GENERIC, user=OWN_USER, usual_env={"HOME": "/tmp"}, program=("true",))
    workload = replace(bench.workload(contract), container=own)
    instance = bench.instance(workload if contract is COMMAND else None)
    instance.uid = os.getuid() or 70_001
    bench.launcher.starter.init = Mount(str(bench.folder), INIT_FOLDER)
    await bench.launcher.launch(instance, own)
    [spec] = noted.created
    assert spec.user == f"{instance.uid}:{OWN_GID}"
    assert spec.labels[UID_LABEL] == str(instance.uid)
    assert spec.env["HOME"] == "/tmp"


async def test_without_a_free_uid_a_start_fails_and_nothing_is_created(bench: Bench) -> None:
    bench.engine = noted = NotedEngine()
    bench.made()
    with pytest.raises(StartFailed, match="HEARTH_UIDS"):
        await bench.launcher.launch(bench.instance(), replace(GENERIC, user=OWN_USER))
    assert noted.created == []


@pytest.mark.parametrize(
    ("own", "declared", "expected"),
    [
        (70_001, None, 70_001),
        (70_001, OWN_USER, 70_001),
        (None, "70002:7", 70_002),
        (None, "image", None),
        (None, OWN_USER, None),
        (None, None, None),
    ],
)
def test_whose_a_socket_folder_is(
    bench: Bench, own: int | None, declared: str | None, expected: int | None
) -> None:
    """A container that was adopted from a gateway with one uid for all is `own` without a uid."""
    workload = None
    if declared is not None:
        user = None if declared == "image" else declared
        workload = replace(bench.workload(), container=replace(GENERIC, user=user))
    instance = Instance("i", "image", 128 * MIB, workload, 0.0)
    instance.uid = own
    assert user_of(instance) == expected
