"""init's verb `connect`, `--listen`, the main program, and the connections that init dials."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.init_builds import Program
from tests.support.init_process import Answer, InitProcess, Slot, until

SERVER = """
import os, socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection = server.accept()[0]
    if os.fork():
        connection.close()
        continue
    while data := connection.recv(65536):
        if data == b"print\\n":
            print("printed", "x" * 1000, flush=True)
        connection.sendall(data)
    connection.sendall(b"bye")
    connection.close()
    os._exit(0)
"""
"""Sends back what it gets, and a last word after the end. Prints its port, and a line when it is told to."""
PRINTED = len("printed \n") + 1000


@pytest.fixture
def init(program: Program) -> Iterator[InitProcess]:
    flags = ["--serve", "--calls", "1"]
    with InitProcess(program, flags, [sys.executable, "-c", SERVER], wrapper=InitProcess.ALONE) as running:
        yield running


@pytest.fixture
def port(init: InitProcess) -> int:
    return int(init.line())


def connect(slot: Slot, address: object) -> Answer:
    return slot.ask(f"CONNECT {address} HTTP/1.1\r\nhost: hearth\r\n\r\n".encode())


def test_bytes_go_both_ways_and_so_does_their_end(init: InitProcess, port: int) -> None:
    slot = init.slot()
    assert connect(slot, f"127.0.0.1:{port}").status == 200
    slot.send(b"there and back")
    assert slot.exactly(14) == b"there and back"
    slot.socket.shutdown(socket.SHUT_WR)
    assert slot.exactly(3) == b"bye" and slot.ended()


def test_a_connection_that_was_taken_is_replaced(init: InitProcess, port: int) -> None:
    first = init.slot()
    connect(first, f"127.0.0.1:{port}")
    second = init.slot()
    connect(second, f"127.0.0.1:{port}")
    init.slot()
    for slot in (first, second):
        slot.send(b"both work")
        assert slot.exactly(9) == b"both work"


def test_many_bytes_pass_whole(init: InitProcess, port: int) -> None:
    slot = init.slot()
    connect(slot, f"127.0.0.1:{port}")
    data = os.urandom(3_000_000)
    pid = os.fork()
    if pid == 0:
        slot.socket.sendall(data)
        os._exit(0)
    assert slot.exactly(len(data)) == data
    os.waitpid(pid, 0)


def test_what_was_printed_before_an_answer_is_in_the_log_before_it(init: InitProcess, port: int) -> None:
    slot = init.slot()
    connect(slot, f"127.0.0.1:{port}")
    for _ in range(200):
        slot.send(b"print\n")
        slot.exactly(6)
        assert len(init.printed_so_far()) == PRINTED


def test_a_gateway_that_reads_no_output_gets_its_answer_after_a_second(init: InitProcess, port: int) -> None:
    slot = init.slot()
    connect(slot, f"127.0.0.1:{port}")
    began = time.monotonic()
    for _ in range(2000):  # more than the log's socket, the queue and the pipe hold
        slot.send(b"print\n")
        assert slot.exactly(6) == b"print\n"
    assert time.monotonic() - began > 0.5
    init.printed_so_far()
    slot.send(b"print\n")
    slot.exactly(6)
    until(lambda: b"printed" in init.printed_so_far(), "it tells nothing any more")


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("127.0.0.1:1", b"cannot connect to 127.0.0.1:1: connection refused"),
        ("unix:/nowhere.sock", b"cannot connect to unix:/nowhere.sock: no such file"),
    ],
)
def test_where_nothing_listens_the_connection_stays(init: InitProcess, address: str, message: bytes) -> None:
    slot = init.slot()
    for _ in range(3):
        answer = connect(slot, address)
        assert (answer.status, answer.fields["x-hearth-outcome"]) == (502, "not-connected")
        assert message in answer.body


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "10.0.0.1:80",
        "localhost:80",
        "unix:relative",
        "unix:",
        "/x",
    ],
)
def test_other_addresses_are_refused(init: InitProcess, address: str) -> None:
    answer = connect(init.slot(), address)
    assert (answer.status, answer.fields["x-hearth-outcome"]) == (400, "bad-request")


def test_a_unix_socket_is_reached(program: Program, tmp_path: Path) -> None:
    with (
        InitProcess(program, ["--wait", "--calls", "1"]) as init,
        socket.socket(socket.AF_UNIX) as server,
    ):
        path = init.folder / "inside.sock"
        server.bind(str(path))
        server.listen()
        slot = init.slot()
        assert connect(slot, f"unix:{path}").status == 200
        inside, _ = server.accept()
        with inside:
            inside.sendall(b"hello")
            assert slot.exactly(5) == b"hello"
            slot.close()
            inside.settimeout(10)
            assert inside.recv(1) == b""


def test_a_listener_hands_its_connections_to_the_gateway(program: Program) -> None:
    with InitProcess(program, ["--wait", "--listen", "runtime=127.0.0.1:0"]) as refused:
        assert refused.status() == 125
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    client = f"""
import socket
connection = socket.create_connection(("127.0.0.1", {port}))
connection.sendall(b"to you")
print(connection.recv(9))
"""
    argv = [sys.executable, "-c", client]
    with InitProcess(program, ["--serve", "--listen", f"runtime=127.0.0.1:{port}"], argv) as init:
        init.log.fileno()
        time.sleep(0.1)  # the gateway comes late: init tries again
        init.listen("runtime")
        handed = init.slot("runtime")
        assert handed.exactly(6) == b"to you"
        handed.send(b"to me")
        assert init.printed_to_the_end() == b"b'to me'\n"
        assert init.status() == 0


@pytest.mark.parametrize(("code", "status"), [("exit 7", 7), ("kill -9 $$", 137), ("kill -TERM $$", 143)])
def test_init_ends_with_the_main_program_and_tells_its_last_words(
    program: Program, code: str, status: int
) -> None:
    argv = ["sh", "-c", f"(sleep 1000 &); seq 1 30000; {code}"]
    with InitProcess(program, ["--serve"], argv, wrapper=InitProcess.ALONE) as init:
        assert init.printed_to_the_end() == b"".join(b"%d\n" % number for number in range(1, 30001))
        assert init.status() == status


@pytest.mark.parametrize(
    ("argv", "status", "message"),
    [
        (["no-such-program"], 127, b"hearth init: cannot run no-such-program: no such file\n"),
        ([__file__], 126, f"hearth init: cannot run {__file__}: permission denied\n".encode()),
    ],
)
def test_a_main_program_that_cannot_be_run_is_named(
    program: Program, argv: list[str], status: int, message: bytes
) -> None:
    with InitProcess(program, ["--serve"], argv) as init:
        assert (init.printed_to_the_end(), init.status()) == (message, status)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
)
def test_signals_go_to_the_main_program(program: Program, number: signal.Signals) -> None:
    code = f"trap 'echo told; exit 3' {number}; echo ready; while :; do sleep 0.01; done"
    with InitProcess(program, ["--serve"], ["sh", "-c", code]) as init:
        assert init.line() == b"ready"
        init.process.send_signal(number)
        assert init.printed_to_the_end().endswith(b"told\n"), "its sleep gets the signal as well"
        assert init.status() == 3


def test_output_can_be_opened_by_name(program: Program) -> None:
    argv = ["sh", "-c", "echo one >/dev/stdout; echo two >/dev/stderr; echo three >/proc/self/fd/1"]
    with InitProcess(program, ["--serve"], argv) as init:
        assert init.printed_to_the_end() == b"one\ntwo\nthree\n"


def test_the_main_program_has_no_input_and_no_other_descriptors(program: Program) -> None:
    argv = ["sh", "-c", "cat; ls /proc/self/fd"]
    with InitProcess(program, ["--serve", "--calls", "3"], argv) as init:
        assert init.printed_to_the_end() == b"0\n1\n2\n3\n", "ls has the folder itself as 3"


def test_zombies_are_reaped(init: InitProcess, port: int) -> None:
    slot = init.slot()
    connect(slot, f"127.0.0.1:{port}")
    slot.close()
    # The server does not reap its children. Those of a dead parent are init's.
    (inner,) = init.children(init.process.pid)
    code = "import os\nfor _ in range(50):\n    if os.fork() == 0:\n        os.fork(); os._exit(0)"
    init.slot().run(sys.executable, "-c", code)
    until(lambda: not [pid for pid in init.children(inner) if init.is_zombie(pid)])


def test_nobody_in_the_container_can_look_into_init(native_program: Program) -> None:
    if os.geteuid() == 0:
        wrapper = ["setpriv", "--reuid=12345", "--clear-groups", *InitProcess.ALONE, "--mount-proc"]
    else:
        wrapper = list(InitProcess.ALONE)
    code = "ls /proc/1/fd 2>&1; cat /proc/1/environ 2>&1; echo end"
    with InitProcess(native_program, ["--serve"], ["sh", "-c", code], wrapper=wrapper) as init:
        assert init.printed_to_the_end().count(b"ermission denied") == 2


def test_init_dials_until_a_gateway_listens(program: Program) -> None:
    with InitProcess(program, ["--wait", "--calls", "1"], listening=False) as init:
        time.sleep(0.1)
        init.listen("log")
        init.listen("calls")
        assert init.slot().run("echo", "late").body == b"late\n"


def test_a_gateway_that_starts_anew_gets_log_and_slots_again(program: Program) -> None:
    with InitProcess(program, ["--wait", "--calls", "2"]) as init:
        old = [init.slot(), init.slot()]
        old[0].run("sh", "-c", "echo before >&2")
        assert init.line() == b"before"
        init.stop_listening("log")
        init.stop_listening("calls")
        for slot in old:
            slot.close()
        init.close_log()
        init.listen("log")
        init.listen("calls")
        slot = init.slot()
        init.slot()
        slot.run("sh", "-c", "echo after >&2")
        assert init.line() == b"after"


@pytest.mark.parametrize(
    "request_text",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /hearth/status HTTP/1.0\r\n\r\n",
        b"GET  HTTP/1.1\r\n\r\n",
        b"GET /hearth/status HTTP/1.1\nhost: x\n\r\n\r\n",
        b"GET /hearth/status HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /hearth/status HTTP/1.1\r\nbad name: x\r\n\r\n",
        b"GET /hearth/status HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET /hearth/status HTTP/1.1\r\nx: a\0b\r\n\r\n",
        b"POST /run HTTP/1.1\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\n",
        b"POST /run HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /run HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n",
        b"POST /run HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"POST /run HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n",
    ],
)
def test_malformed_requests_are_refused_and_the_connection_ends(
    init: InitProcess, request_text: bytes
) -> None:
    slot = init.slot()
    answer = slot.ask(request_text)
    assert (answer.status, answer.fields["x-hearth-outcome"]) == (400, "bad-request")
    assert slot.ended()
    slot.close()
    assert init.slot().ask(b"GET /hearth/status HTTP/1.1\r\n\r\n").status == 200


@pytest.mark.parametrize(
    "field",
    [b"x-hearth-env: NAME", b"x-hearth-env: =x", b"x-hearth-arg: %00", b"x-hearth-arg: %4", b"x-hearth-cwd:"],
)
def test_malformed_orders_are_refused_and_the_connection_stays(init: InitProcess, field: bytes) -> None:
    slot = init.slot()
    for _ in range(2):
        answer = slot.ask(b"POST /run HTTP/1.1\r\n" + field + b"\r\ncontent-length: 0\r\n\r\n")
        assert (answer.status, answer.fields["x-hearth-outcome"]) == (400, "bad-request")


def test_a_head_that_is_too_long_is_refused(init: InitProcess) -> None:
    slot = init.slot()
    slot.send(b"GET /hearth/status HTTP/1.1\r\nx: " + b"x" * 500_000 + b"\r\n\r\n")
    assert slot.answer().status == 200
    slot.send(b"GET /hearth/status HTTP/1.1\r\nx: " + b"x" * 600_000)
    assert slot.answer().status == 431 and slot.ended()


def test_unknown_verbs_get_404(init: InitProcess) -> None:
    slot = init.slot()
    for target in (b"/", b"/runs", b"/hearth/stats"):
        assert slot.ask(b"GET " + target + b" HTTP/1.1\r\n\r\n").status == 404


@pytest.mark.parametrize(
    "flags", [[], ["--serve", "--wait"], ["--unknown"], ["--wait", "--calls", "many"], ["--serve"]]
)
def test_wrong_flags_are_named(program: Program, flags: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with InitProcess(program, flags) as init:
        assert init.status() == 125
    assert "hearth init: " in capfd.readouterr().err
