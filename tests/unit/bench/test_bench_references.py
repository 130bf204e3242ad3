"""The benchmark's references: what runs in their containers, nginx's configuration, and what wrk has seen."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.client import Address
from bench.footprint import MIB
from bench.gateways import free_port
from bench.processes import cpu_seconds, forget_peak, peak_resident, resident
from bench.references import PAYLOAD, ROOT, config, listens, payload
from bench.streamer import BLOCK, is_pattern, pattern
from bench.streams import download, timed, upload
from bench.worker import WorkerFailed
from bench.wrk import outcome_of

TWICE = pattern()


async def until_it_listens(path: Path) -> None:
    async with asyncio.timeout(30):
        while not await listens(path):
            await asyncio.sleep(0.02)


def test_pieces_are_checked_by_their_place() -> None:
    assert len(TWICE) == 2 * BLOCK
    assert is_pattern(TWICE[5:100], 3 * BLOCK + 5, TWICE)
    assert is_pattern(TWICE[BLOCK - 7 : BLOCK + 9], BLOCK - 7, TWICE)
    assert not is_pattern(TWICE[5:100], 6, TWICE)
    assert not is_pattern(b"\0" * 10, 0, TWICE)


async def test_the_payload_serves_calls_as_the_shim_does(tmp_path: Path) -> None:
    code, path = payload(tmp_path / "code"), tmp_path / "calls.sock"
    assert {str(file.relative_to(code)) for file in code.rglob("*") if file.is_file()} == set(PAYLOAD)
    command = [sys.executable, "-I", "-S", "-E", str(code / "bench/responder.py"), f"unix:{path}"]
    process = subprocess.Popen(command)
    try:
        await until_it_listens(path)
        pairs = [await asyncio.open_unix_connection(str(path)) for _ in range(3)]
        for _ in range(2):
            for number, (reader, writer) in enumerate(pairs):
                body = b'{"name":"Ada %d"}' % number
                head = b"POST /invoke/hello HTTP/1.1\r\nContent-Type: application/json\r\n"
                writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
                answer = (await reader.readuntil(b"\r\n\r\n")).decode()
                assert answer.startswith("HTTP/1.1 200 ")
                length = int(answer.partition("Content-Length: ")[2].split("\r\n")[0])
                assert json.loads(await reader.readexactly(length)) == {"message": f"Hello, Ada {number}!"}
        pairs[0][1].write(b"nonsense\r\n\r\n")
        assert await pairs[0][0].read() == b""  # closed, and the others are still served
        assert await listens(path)
        for _, writer in pairs:
            writer.close()
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def streamer() -> Iterator[Address]:
    """The streamer, started as in a container that the gateway dials."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-I", str(ROOT / "bench/streamer.py"), "tcp"],
        env={**os.environ, "PORT": str(port)},
    )
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            break
        except OSError:
            time.sleep(0.02)
    yield Address("127.0.0.1", port)
    process.kill()
    process.wait()


async def test_long_bodies_are_checked_both_ways(streamer: Address) -> None:
    for transfer in (download, upload):
        outcome = await timed(transfer, streamer, "/x", 3 * BLOCK + 17)
        assert outcome.faults == {}
        assert outcome.rate > 0


def test_a_body_that_is_not_the_pattern_is_refused(streamer: Address) -> None:
    connection = http.client.HTTPConnection(streamer.host, streamer.port)
    wrong = b"x" + TWICE[1:]
    assert upload(connection, "/x", BLOCK, wrong) == "status 400"
    assert download(connection, "/x", BLOCK, wrong) == "wrong body"
    connection.close()


async def test_a_body_that_ends_early_is_a_fault() -> None:
    async def half(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (BLOCK, TWICE[: BLOCK // 2]))
        writer.close()

    server = await asyncio.start_server(half, "127.0.0.1", 0)
    async with server:
        outcome = await timed(download, Address("127.0.0.1", server.sockets[0].getsockname()[1]), "/x", BLOCK)
    assert sum(outcome.faults.values()) == 1
    assert outcome.rate == 0


def test_nginx_has_one_worker_and_keeps_to_its_folder(tmp_path: Path) -> None:
    text = config(tmp_path, 4711, [tmp_path.parent / "a/1.sock", tmp_path.parent / "a/2.sock"])
    assert "worker_processes 1;" in text
    assert "access_log off;" in text
    assert "listen 127.0.0.1:4711" in text
    assert text.count("server unix:../a/") == 2
    folders = [
        line.split()[1].rstrip(";") for line in text.splitlines() if "_path " in line or "pid " in line
    ]
    assert folders and all(folder.startswith(str(tmp_path)) for folder in folders)


def test_what_wrk_prints_becomes_an_outcome() -> None:
    line = {
        "seconds": 2.0,
        "requests": 10,
        "faults": {"wrong answer": 4, "no answer in time": 0},
        "latencies": [[1000, 7], [2000, 3]],
    }
    outcome = outcome_of("Running 2s test\n" + json.dumps(line) + "\n")
    assert (outcome.rate, outcome.requests, dict(outcome.faults)) == (3.0, 10, {"wrong answer": 4})
    assert len(outcome.latencies) == 10
    assert outcome.latencies.percentile(50) == pytest.approx(1.0, rel=0.01)
    with pytest.raises(WorkerFailed, match="unable to connect"):
        outcome_of("", "unable to connect to 127.0.0.1:9")


def test_memory_and_time_of_a_process() -> None:
    pid = os.getpid()
    before = resident(pid)
    forget_peak(pid)
    taken = bytearray(os.urandom(32 * MIB))
    assert resident(pid) - before > 24 * MIB
    del taken
    assert peak_resident(pid) - before > 24 * MIB
    forget_peak(pid)
    assert peak_resident(pid) - before < 24 * MIB
    spent, ends = cpu_seconds(pid), time.thread_time() + 0.1
    while time.thread_time() < ends:
        pass
    assert cpu_seconds(pid) - spent >= 0.08


def test_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        resident(2**22 + 1)


def test_the_programs_that_the_container_runs_are_stdlib_only() -> None:
    for program in ("responder", "streamer"):
        text = (ROOT / f"bench/{program}.py").read_text()
        imported = [
            line.split()[1] for line in text.splitlines() if line.lstrip().startswith(("import ", "from "))
        ]
        known = {"__future__", "runtimes.python", "bench.responder"}
        assert all(name in known or name.partition(".")[0] in sys.stdlib_module_names for name in imported)
