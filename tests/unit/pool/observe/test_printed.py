"""What instances print goes to the call that it belongs to, as far as that can be known."""

from __future__ import annotations

from unittest.mock import Mock

import pytest

from pool.clock import VirtualClock
from pool.contracts.base import Contract
from pool.contracts.handler import HANDLER
from pool.contracts.http import HTTP
from pool.engine.base import ContainerSpec
from pool.instance import Instance, Link
from pool.lease import Lease
from pool.observe.logs import LogStore
from pool.observe.printed import LATE_OUTPUT_SECONDS, PrintedOutput
from pool.workload import Workload


class Bench:
    """The output of one instance, whose calls are made by hand."""

    def __init__(self, contract: Contract) -> None:
        self.clock = VirtualClock()
        self.printed = PrintedOutput(LogStore(), self.clock)
        container = ContainerSpec(name="", image="i")
        self.workload = Workload(function="f", version="1", contract=contract, container=container)
        self.instance = Instance("0123", "i", 1, self.workload, 0.0)

    def call(self, invocation: str) -> Lease:
        lease = Lease(self.instance, self.workload, invocation, 0.0, self.clock.now())
        self.printed.latest[self.instance.id] = lease
        return lease

    def prints(self, data: bytes) -> None:
        self.printed.take(self.instance, data)

    def logs(self) -> tuple[bytes | None, bytes | None, bytes]:
        """The logs of the calls `a` and `b`, and of the instance."""
        calls = self.printed.logs
        return calls.read("a"), calls.read("b"), self.printed.of_instance(self.instance)


async def test_what_a_server_prints_shortly_after_its_answer_is_the_calls() -> None:
    bench = Bench(HTTP)
    bench.prints(b"start ")
    first = bench.call("a")
    bench.prints(b"during ")
    await bench.clock.advance(5.0)
    first.end(bench.clock.now())
    await bench.clock.advance(LATE_OUTPUT_SECONDS)
    bench.prints(b"after ")
    await bench.clock.advance(0.01)
    bench.prints(b"much later")
    assert bench.logs() == (b"during after ", None, b"start much later")


async def test_what_comes_in_the_next_call_is_the_next_calls() -> None:
    bench = Bench(HTTP)
    bench.call("a").end(bench.clock.now())
    bench.call("b")
    bench.prints(b"whose?")
    assert bench.logs() == (None, b"whose?", b"")


async def test_what_a_handler_prints_after_its_answer_is_the_instances() -> None:
    """A shim sends all output of a call before the end of its answer."""
    bench = Bench(HANDLER)
    bench.call("a").end(bench.clock.now())
    bench.prints(b"a thread")
    assert bench.logs() == (None, None, b"a thread")


@pytest.mark.parametrize("contract", [HTTP, HANDLER], ids=repr)
async def test_what_waits_to_be_read_when_a_call_ends_is_the_calls(contract: Contract) -> None:
    bench = Bench(contract)
    bench.instance.link = Mock(Link, drain_log=lambda: bench.prints(b"waited"))
    bench.call("a").end(bench.clock.now())
    assert bench.logs() == (b"waited", None, b"")


@pytest.mark.parametrize("contract", [HTTP, HANDLER], ids=repr)
async def test_an_instance_that_is_gone_is_forgotten(contract: Contract) -> None:
    bench = Bench(contract)
    bench.prints(b"start")
    bench.call("a").end(bench.clock.now())
    assert bench.printed.remembers(bench.instance)
    bench.printed.forget(bench.instance)
    assert not bench.printed.remembers(bench.instance)
    assert bench.logs() == (None, None, b"")
