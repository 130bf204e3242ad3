"""The open loop: it sends at its rate, and a stall is seen by everybody who came in that time."""

from __future__ import annotations

import asyncio
import os
import re
import select
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bench.client import Address, CallFailed, Greeting, Reply, connect
from bench.closed_loop import Bounds, ClosedLoop
from bench.open_loop import OpenLoop, ticker
from bench.worker import Job, Workers


class Stall:
    """A server that answers at once, but for a stall of all its connections."""

    def __init__(self, begins: float = 0.0, seconds: float = 0.0, hang_up_after: int = 0) -> None:
        self.begins, self.seconds, self.hang_up_after = begins, seconds, hang_up_after
        self.began: float | None = None
        self.served = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                assert length
                body = await reader.readexactly(int(length[1]))
                now = time.monotonic()
                self.began = self.began or now
                ends = self.began + self.begins + self.seconds
                if self.began + self.begins <= now < ends:
                    await asyncio.sleep(ends - now)
                self.served += 1
                if self.hang_up_after and self.served > self.hang_up_after:
                    return
                text = b"Hello, %b!" % body.split(b'"')[3]
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def running(stall: Stall) -> AsyncIterator[Address]:
    server = await asyncio.start_server(stall.serve, "127.0.0.1", 0)
    async with server:
        yield Address("127.0.0.1", server.sockets[0].getsockname()[1])


def greetings(address: Address, count: int) -> list[Greeting]:
    return [Greeting("/invoke/hello", address.authority, prefix=f"{number:x}-") for number in range(count)]


async def test_it_sends_at_its_rate_whatever_the_answers_take() -> None:
    stall = Stall()
    async with running(stall) as address:
        loop = OpenLoop(lambda: connect(address), greetings(address, 4), Bounds(0.1, 0.5), 200)
        measured = await loop.run()
    assert measured.faults == {}
    assert measured.requests == stall.served == 120
    assert len(measured.latencies) == 100
    assert measured.rate == pytest.approx(200, rel=0.2)


async def test_a_stall_is_not_omitted() -> None:
    async with running(Stall(0.3, 0.4)) as address:
        loop = OpenLoop(lambda: connect(address), greetings(address, 4), Bounds(0, 1), 200)
        opened = await loop.run()
    async with running(Stall(0.3, 0.4)) as address:
        closed = await ClosedLoop(lambda: connect(address), greetings(address, 4), Bounds(0, 1)).run()

    def slow(latencies: list[int]) -> int:
        return sum(latency > 50e6 for latency in latencies)

    assert opened.requests == 200
    # 80 requests were due in the stall, and those of its last 50 ms waited less. The closed loop sent 4.
    assert slow(list(opened.latencies)) >= 60
    assert slow(list(closed.latencies)) <= 8
    assert max(opened.latencies) > 300e6


async def test_lost_connections_are_faults_and_end_the_loop() -> None:
    async with running(Stall(hang_up_after=10)) as address:
        loop = OpenLoop(lambda: connect(address), greetings(address, 2), Bounds(0, 0.3), 100)
        measured = await loop.run()
    assert measured.faults["connection lost"] >= 2
    assert measured.faults["no connection left"] > 0
    assert len(measured.latencies) == 10


async def test_a_load_process_runs_it() -> None:
    workers = Workers()
    async with running(Stall()) as address:
        await workers.start(1, None)
        try:
            outcome = await workers.run(Job(4, Bounds(0, 0.5), address, "/invoke/hello", rate=100))
        finally:
            await workers.stop()
    assert outcome.faults == {}
    assert outcome.requests == len(outcome.latencies) == 50


async def test_nobody_there_is_said() -> None:
    address = Address("127.0.0.1", 9)
    with pytest.raises(CallFailed, match="cannot connect"):
        await OpenLoop(lambda: connect(address), greetings(address, 1), Bounds(0, 0.1), 10).run()


def test_the_ticker_counts_what_nobody_has_read() -> None:
    descriptor = ticker(time.perf_counter_ns(), 10**6)
    try:
        time.sleep(0.02)
        assert select.select([descriptor], [], [], 1)[0]
        assert int.from_bytes(os.read(descriptor, 8), "little") >= 20
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("timing", "part", "took"),
    [
        (b"queue;dur=0.1, start;dur=3.25, exec;dur=0.4", "start", 3.25),
        (b"queue;dur=0.1, start;dur=3.25, exec;dur=0.4", "exec", 0.4),
        (b"restart;dur=9", "start", None),
        (b"", "start", None),
    ],
)
def test_an_answer_says_what_its_parts_took(timing: bytes, part: str, took: float | None) -> None:
    assert Reply(200, b"", "warm", timing).took(part) == took
