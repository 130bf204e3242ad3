"""The runs of one command's container: how they ended, in words, and what a kept container is told of."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from pool.engine.base import ContainerSpec
from pool.transport.command import LAST_LINE_BYTES, STDERR_TAIL_BYTES, CommandFacts, CommandLink, last_line
from pool.transport.message import Call
from pool.transport.run import RunResult
from pool.transport.way import WayEnds

CALL = Call(b"POST", b"/", [], meta={"HEARTH_INVOCATION_ID": "call-1"})
FAILED = RunResult(3, None)
KILLED = RunResult(None, 9)


@dataclass
class FakeWay:
    """A way whose container prints what a test says, when it is looked at."""

    ends: WayEnds | None = None
    waiting: list[bytes] = field(default_factory=list)

    async def open(self, ends: WayEnds) -> None:
        self.ends = ends

    async def reopen(self, ends: WayEnds, container: str) -> None:
        self.ends = ends

    def container(self, spec: ContainerSpec) -> ContainerSpec:
        return spec

    async def started(self, container: str) -> None: ...

    def drain_log(self) -> None:
        assert self.ends is not None
        for data in self.waiting:
            self.ends.log(data)
        self.waiting.clear()

    async def close(self) -> None: ...


class Bench:
    """A link, and what its container has printed and called."""

    def __init__(self, kills: int | None = 0) -> None:
        self.kills = kills
        self.way = FakeWay()
        self.printed = b""
        self.noted: list[str] = []
        facts = CommandFacts(1000, 10**6, (), 64 * 2**20, lambda: self.kills, self.noted.append)
        self.link = CommandLink(self.way, lambda: None, self._print, facts)

    def _print(self, data: bytes) -> None:
        self.printed += data

    def run(self, end: RunResult, *stderr: bytes) -> str:
        """A run that prints this, and how it failed in words."""
        self.link.began(CALL)
        self.way.waiting += stderr
        self.link.ended(end)
        return self.link.failure(end)


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.link.open()
    return made


async def test_a_failure_has_the_last_line_of_its_standard_error(bench: Bench) -> None:
    assert bench.run(FAILED) == "the command ended with exit status 3"
    assert bench.run(FAILED, b"one\ntwo\n", b"la", b"st\n\n") == "the command ended with exit status 3: last"
    assert bench.run(FAILED) == "the command ended with exit status 3", "not that of the run before"
    assert bench.printed == b"one\ntwo\nlast\n\n"
    assert bench.noted == ["call-1"] * 3


async def test_nobody_knows_whose_line_it_is_when_runs_go_on_at_once(bench: Bench) -> None:
    bench.link.began(CALL)
    assert bench.run(FAILED, b"whose?\n") == "the command ended with exit status 3"
    bench.link.ended(RunResult(0, None))
    assert bench.run(FAILED, b"mine\n") == "the command ended with exit status 3: mine"


async def test_a_signal_has_its_name(bench: Bench) -> None:
    assert bench.run(RunResult(None, 11)) == "the command was ended by signal 11 (SIGSEGV)"
    assert bench.run(RunResult(None, 99)) == "the command was ended by signal 99"
    assert bench.run(KILLED) == "the command was ended by signal 9 (SIGKILL)"


async def test_a_death_for_want_of_memory_is_told_once(bench: Bench) -> None:
    bench.kills = 1
    assert bench.run(KILLED, b"growing\n") == "the command was killed for want of memory (64 MiB): growing"
    assert bench.run(KILLED) == "the command was ended by signal 9 (SIGKILL)", "another one killed it"
    bench.kills = 2
    assert bench.run(RunResult(137, None)) == (
        "the command ended with exit status 137, after a process of it was killed for want of memory (64 MiB)"
    )


async def test_where_nobody_can_tell_a_kill_may_be_for_want_of_memory(bench: Bench) -> None:
    bench.kills = None
    assert (
        bench.run(KILLED) == "the command was ended by signal 9 (SIGKILL), maybe for want of memory (64 MiB)"
    )
    assert bench.run(FAILED) == "the command ended with exit status 3"


async def test_the_exit_status_that_a_kept_container_has(bench: Bench) -> None:
    assert bench.link.exit_status is None
    bench.link.began(CALL)
    bench.link.ended(KILLED)
    assert bench.link.exit_status == 137
    bench.link.began(CALL)
    assert bench.link.exit_status is None
    bench.link.ended(None)
    assert bench.link.exit_status is None, "it had to be ended"


async def test_output_is_bounded(bench: Bench) -> None:
    assert bench.run(FAILED, b"x" * 10 * STDERR_TAIL_BYTES).endswith(f": {'x' * LAST_LINE_BYTES}")
    assert last_line(b"progress 1%\rprogress 100%\r\n") == "progress 100%"
    assert last_line(b" \n\n") == last_line(b"") == ""
    assert last_line(b"\xff\xfe") == "\N{REPLACEMENT CHARACTER}" * 2
