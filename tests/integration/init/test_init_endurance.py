"""init after many requests: it has not grown, and requests that make no sense have not hurt it."""

from __future__ import annotations

import random
import select
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from pool.contracts.init_place import INIT_FOLDER, with_init
from pool.engine.base import ContainerSpec, Mount
from pool.engine.docker import DockerEngine
from tests.harness import BASE_IMAGE
from tests.support.init_builds import Program, sanitized
from tests.support.init_process import GatewaySide, InitProcess, Slot, run_request

RUNS = 1000
DESCRIPTORS = 24
"""Descriptors that init may have: a leak of one a run shows at once."""
REQUESTS = 1000
ANSWER_SECONDS = 0.003
"""Time for an answer to a request that may be incomplete."""
REQUEST_KINDS = [
    run_request("true"),
    run_request("cat", env={"NAME": "value", "OTHER": "ü%"}, cwd="/tmp", body=b"some input"),
    run_request("sh", body=None) + b"5\r\necho \r\n2\r\nhi\r\n0\r\ntrailer: x\r\n\r\n",
    b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n",
    b"CONNECT unix:/tmp/none.sock HTTP/1.1\r\nhost: hearth\r\n\r\n",
    b"GET /hearth/status HTTP/1.1\r\n\r\n",
    b"GET /files/etc HTTP/1.1\r\n\r\n",
    b"GET /files/etc/%70asswd HTTP/1.1\r\nconnection: close\r\n\r\n",
    b"PUT /files/tmp/a/b HTTP/1.1\r\nx-hearth-mode: 600\r\ncontent-length: 4\r\n\r\ntext",
    b"DELETE /files/tmp/a/b HTTP/1.1\r\n\r\n",
]


def mutated(chance: random.Random) -> bytes:
    """Return one or two requests with some of their bytes changed, dropped, doubled, or taken from another."""
    data = bytearray(b"".join(chance.choices(REQUEST_KINDS, k=chance.choice([1, 1, 2]))))
    for _ in range(chance.choice([0, 1, 1, 2, 5])):
        at, size = chance.randrange(len(data)), chance.choice([1, 1, 2, 20])
        other = chance.choice(REQUEST_KINDS)
        start = chance.randrange(len(other))
        match chance.randrange(5):
            case 0:
                data[at] = chance.randrange(256)
            case 1:
                del data[at : at + size]
            case 2:
                data[at:at] = data[at : at + size] * chance.choice([1, 3, 2000])
            case 3:
                data[at : at + size] = other[start : start + size]
            case 4:
                data[at:at] = bytes([chance.choice(b"\0\r\n %:\xff")])
        data = data or bytearray(b"x")
    return bytes(data)


def bother(slot: Slot, chance: random.Random) -> None:
    """Send a mutated request in up to three parts, and wait a moment for an answer."""
    data = mutated(chance)
    cuts = sorted(chance.randrange(len(data)) for _ in range(chance.choice([0, 0, 1, 2])))
    try:
        for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
            slot.send(data[start:end])
            select.select([slot.socket], [], [], ANSWER_SECONDS)
        if chance.random() < 0.8:
            slot.socket.setblocking(False)
            while slot.socket.recv(65536):
                pass
    except OSError:
        pass  # It may close the connection at any time.
    slot.close()


@pytest.fixture
def side() -> Iterator[GatewaySide]:
    made = GatewaySide()
    yield made
    made.close()


@pytest.mark.engine
async def test_it_survives_requests_that_make_no_sense(
    docker_engine: DockerEngine, test_label: dict[str, str], side: GatewaySide, tmp_path: Path
) -> None:
    """In a container, as a mutated request may run or remove anything; with sanitizers, which notice each fault."""
    shutil.copy(*sanitized(), tmp_path / "init")
    tmp_path.chmod(0o755)
    spec = ContainerSpec(
        name=f"hearth-test-{side.folder.name}",
        image=BASE_IMAGE,
        labels=test_label,
        program=("cat",),
        memory=256 * 2**20,
        mounts=(Mount(str(side.folder), "/run/hearth"),),
    )
    container = await docker_engine.create(
        with_init(spec, Mount(str(tmp_path), INIT_FOLDER), ("--wait", "--calls", "8"))
    )
    await docker_engine.start(container)
    chance = random.Random(1)
    for number in range(REQUESTS):
        try:
            bother(side.slot(), chance)
        except TimeoutError:
            pytest.fail(f"request {number}: {(await docker_engine.logs(container, 4000)).decode()}")
    assert side.slot().run("echo", "well").body == b"well\n"
    assert (await docker_engine.inspect(container)).running


def test_it_does_not_grow_with_its_runs(native_program: Program) -> None:
    wrapper = ("prlimit", f"--nofile={DESCRIPTORS}", *InitProcess.ALONE)
    with InitProcess(native_program, ["--wait", "--calls", "2"], wrapper=wrapper) as init:
        slot, other = init.slot(), init.slot()
        (pid,) = init.children(init.process.pid)
        sizes = []
        for _ in range(2):
            for number in range(RUNS // 2):
                assert slot.run("echo", str(number)).body == b"%d\n" % number
                if number % 10 == 0:
                    other.run("sh", "-c", "echo err >&2; cat", body=b"x" * 100_000)
                    assert other.run("no-such-program").status == 500
                    assert other.ask(b"CONNECT 127.0.0.1:1 HTTP/1.1\r\n\r\n").status == 502
                    other.ask(b"GET /files/etc HTTP/1.1\r\n\r\n")
                init.printed_so_far()
            # Its last run's memory is given back just after the answer.
            slot.ask(b"GET /hearth/status HTTP/1.1\r\n\r\n")
            sizes.append(Path(f"/proc/{pid}/statm").read_text().split()[:2])
        assert sizes[0] == sizes[1], (
            "pages of address space and of memory, after half of the runs and after all"
        )
