"""init's verb `run`, over its real sockets, as the first process of a PID namespace."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from threading import Thread

import pytest

from tests.support.init_builds import Program
from tests.support.init_process import InitProcess, Slot, run_request, until

BIG = 5_000_000
"""Bytes: more than pipes, sockets and init hold together."""


@pytest.fixture
def init(program: Program) -> Iterator[InitProcess]:
    with InitProcess(program, ["--wait", "--calls", "2"], ["cat"], wrapper=InitProcess.ALONE) as running:
        yield running


@pytest.fixture
def slot(init: InitProcess) -> Slot:
    return init.slot()


def test_stdout_is_the_body_and_the_status_a_trailer(slot: Slot) -> None:
    answer = slot.run("sh", "-c", "echo out; exit 3")
    assert (answer.status, answer.body, answer.fields["x-hearth-status"]) == (200, b"out\n", "3")
    assert float(answer.fields["x-hearth-exec"]) > 0 and "x-hearth-signal" not in answer.fields


def test_without_arguments_the_program_of_the_command_line_runs(slot: Slot) -> None:
    assert slot.run(body=b"to cat").body == b"to cat"


def test_variables_arguments_and_the_folder_arrive_byte_by_byte(slot: Slot, tmp_path: Path) -> None:
    odd = "".join(map(chr, range(1, 128))) + "ü\udcff"
    script = 'printf "%s|%s|%s|" "$1" "$ODD" "$PATH"; pwd'
    answer = slot.run(
        "sh", "-c", script, "sh", odd, env={"ODD": odd, "PATH": "/usr/bin:/bin"}, cwd=str(tmp_path)
    )
    raw = os.fsencode(odd)
    assert answer.body == b"%b|%b|/usr/bin:/bin|%b\n" % (raw, raw, os.fsencode(tmp_path))


def test_what_is_for_init_is_not_in_the_environment(slot: Slot) -> None:
    assert b"HEARTH_SOCKET_DIR" not in slot.run("env").body


def test_stderr_is_in_the_log_before_the_answer_ends(init: InitProcess, slot: Slot) -> None:
    slot.run("sh", "-c", "seq 1 5000 >&2")
    assert init.printed_so_far() == b"".join(b"%d\n" % number for number in range(1, 5001))


def test_a_run_prints_no_more_than_the_limit(program: Program) -> None:
    with InitProcess(program, ["--wait", "--calls", "1", "--log-limit", "10"]) as init:
        slot = init.slot()
        slot.run("sh", "-c", "echo 0123456789abcdef >&2; echo more >&2")
        slot.run("sh", "-c", "echo next >&2")
        assert init.printed_so_far() == b"0123456789\n[output truncated]\nnext\n"


def test_a_death_by_a_signal_is_said(slot: Slot) -> None:
    answer = slot.run("sh", "-c", "kill -SEGV $$")
    assert answer.fields["x-hearth-signal"] == str(signal.SIGSEGV) and "x-hearth-status" not in answer.fields


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_any_size_goes_in(slot: Slot, chunked: bool) -> None:
    data = os.urandom(BIG)
    request = run_request("sha256sum", body=None if chunked else data)
    slot.send(request)
    for start in range(0, BIG if chunked else 0, 99_999):
        piece = data[start : start + 99_999]
        slot.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    slot.send(b"0\r\n\r\n" if chunked else b"")
    assert slot.answer().body.split()[0].decode() == sha256(data).hexdigest()


def test_a_body_comes_out_as_it_went_in(slot: Slot) -> None:
    data = os.urandom(BIG)
    sender = Thread(target=slot.send, args=(run_request("cat", body=data),))
    sender.start()
    assert slot.answer().body == data
    sender.join()


def test_stdout_comes_as_it_is_written(slot: Slot) -> None:
    slot.send(run_request("sh", "-c", "echo first; read line; echo got $line", body=None))
    assert slot.head()[0] == 200
    assert slot.chunk() == b"first\n"
    slot.send(b"5\r\nline\n\r\n0\r\n\r\n")
    assert slot.answer_rest() == b"got line\n"


def test_a_slow_reader_holds_up_the_program_and_nobody_else(init: InitProcess, slot: Slot) -> None:
    other = init.slot()
    slot.send(run_request("sh", "-c", f"head -c {BIG} /dev/zero; echo done"))
    assert other.run("echo", "quick").body == b"quick\n"
    assert len(slot.answer().body) == BIG + 5


def test_a_command_that_does_not_read_its_body_ends_its_call(init: InitProcess, slot: Slot) -> None:
    slot.send(run_request("sh", "-c", "echo done", body=None) + b"10\r\n0123456789abcdef\r\n")
    answer = slot.answer()
    assert (answer.body, answer.fields["x-hearth-status"]) == (b"done\n", "0")
    assert slot.ended()
    init.slot()
    assert init.slot().run("echo", "again").body == b"again\n"


def test_a_connection_serves_many_runs(slot: Slot) -> None:
    for number in range(50):
        assert slot.run("echo", str(number)).body == b"%d\n" % number


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["nothing-like-this"], "cannot run nothing-like-this: no such file"),
        ([str(Path(__file__))], f"cannot run {__file__}: permission denied"),
        (["/proc"], "cannot run /proc: permission denied"),
    ],
)
def test_a_program_that_cannot_be_run_is_named(slot: Slot, argv: list[str], message: str) -> None:
    answer = slot.run(*argv)
    assert (answer.status, answer.fields["x-hearth-outcome"]) == (500, "not-runnable")
    assert message.encode() in answer.body
    assert slot.run("echo", "still here").body == b"still here\n"


def test_a_missing_folder_is_named(slot: Slot) -> None:
    answer = slot.run("true", cwd="/nowhere")
    assert answer.status == 500 and b"in the folder /nowhere: no such file" in answer.body


def test_what_a_run_leaves_is_dead_before_its_answer_ends(slot: Slot) -> None:
    mark = f"1000.{os.getpid()}"
    slot.run("sh", "-c", f"setsid sleep {mark} & sleep {mark} & exec >/dev/null; exit 0")
    assert not processes(mark)


def test_a_run_beside_another_leaves_that_alone(init: InitProcess, slot: Slot) -> None:
    mark = f"1001.{os.getpid()}"
    other = init.slot()
    other.send(run_request("sh", "-c", f"echo; sleep {mark}"))
    other.head(), other.chunk()
    until(lambda: processes(mark))
    slot.run("true")
    assert processes(mark)
    other.close()
    until(lambda: not processes(mark))


def test_a_gateway_that_goes_away_has_the_run_killed(init: InitProcess, slot: Slot) -> None:
    mark = f"1002.{os.getpid()}"
    slot.send(
        run_request("sh", "-c", f"setsid sleep {mark} & trap '' TERM; echo; sleep {mark}; sleep {mark}")
    )
    slot.head(), slot.chunk()
    until(lambda: len(processes(mark)) == 2)
    init.slot()
    slot.close()
    again = init.slot()
    assert not processes(mark), "it dials anew when all is dead"
    assert again.run("echo", "again").body == b"again\n"


def test_once_ends_with_the_run_s_status(program: Program) -> None:
    with InitProcess(program, ["--wait", "--once", "--calls", "1"], wrapper=InitProcess.ALONE) as init:
        answer = init.slot().run("sh", "-c", "echo out; echo err >&2; exit 7")
        assert answer.body == b"out\n" and init.status() == 7
        assert init.printed_to_the_end() == b"err\n"


def test_once_after_a_signal_ends_as_shells_do(program: Program) -> None:
    with InitProcess(program, ["--wait", "--once", "--calls", "1"]) as init:
        init.slot().run("sh", "-c", "kill -9 $$")
        assert init.status() == 128 + 9


def test_sigterm_without_a_run_ends_init(program: Program) -> None:
    with InitProcess(program, ["--wait", "--calls", "1"]) as init:
        init.slot()
        init.process.send_signal(signal.SIGTERM)
        assert init.status() == 0


def test_sigterm_goes_to_the_run(program: Program) -> None:
    with InitProcess(program, ["--wait", "--calls", "1"]) as init:
        slot = init.slot()
        slot.send(
            run_request("sh", "-c", "trap 'echo told; exit 5' TERM; echo ready; while :; do sleep 0.01; done")
        )
        slot.head(), slot.chunk()
        init.process.send_signal(signal.SIGTERM)
        assert slot.answer_rest() == b"told\n"


def test_the_status_is_told(slot: Slot) -> None:
    slot.run("true")
    assert (
        slot.ask(b"GET /hearth/status HTTP/1.1\r\n\r\n").body == b'{"init": 1, "runs": 1, "running": false}'
    )


def processes(mark: str) -> list[int]:
    """Return the processes of this machine that have `mark` among their arguments."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words and words[0] == b"sleep":
            found.append(int(folder.name))
    return found
