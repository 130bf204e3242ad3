"""What functions print is shown while they are served: safe, bounded, and at nobody's cost."""

from __future__ import annotations

import io
import json
import sys
import threading
import unicodedata
from contextlib import redirect_stderr
from typing import Literal

import pytest

from gateway.cli.printed import printer as module
from gateway.cli.printed.lines import LineWriter, colour_of, local_time
from gateway.cli.printed.printer import ALL_LINES, FUNCTION_LINES, LONGEST_LINE, OutputPrinter
from pool.observe.journal.records import OutputPiece

ID = "2e16dc3290329f5f74ccb6021d486ad7"


class Terminal(io.StringIO):
    """A terminal that keeps what is written, and can stand still."""

    encoding = "utf-8"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.goes_on = threading.Event()
        self.goes_on.set()
        self.is_written_to = threading.Event()

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.is_written_to.set()
        self.goes_on.wait()
        return super().write(text)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("NO_COLOR", "1")
    return Terminal()


def piece(data: bytes, function: str = "hello", moment: float = 1_764_384_000.5) -> OutputPiece:
    return OutputPiece(moment, function, "r1", ID, "be5e", data)


def shown(
    terminal: Terminal, *batches: list[OutputPiece], form: Literal["text", "json"] = "text"
) -> list[str]:
    with redirect_stderr(terminal):
        printer = OutputPrinter(form)
        for batch in batches:
            printer.offer(batch)
        printer.close()
    return terminal.getvalue().splitlines()


def test_a_line_has_its_function_a_short_id_and_its_text(terminal: Terminal) -> None:
    assert shown(terminal, [piece(b"one\r\ntwo\n"), piece(b"half")]) == [
        "hello 2e16dc32 │ one",
        "hello 2e16dc32 │ two",
        "hello 2e16dc32 │ half",
    ]


def test_each_function_has_its_colour(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR")
    (line,) = shown(terminal, [piece(b"one\n")])
    assert line.startswith("\x1b[") and line.endswith("\x1b[0m │ one")
    assert len({colour_of(f"function-{number}") for number in range(50)}) > 4


def test_output_without_a_function_is_nobodys(terminal: Terminal) -> None:
    assert shown(terminal, [OutputPiece(0.0, "", "", "", "be5e875eabc7", b"start\n")]) == [
        "- be5e875e │ start"
    ]


@pytest.mark.parametrize("form", ["text", "json"])
def test_hostile_output_steers_nothing(terminal: Terminal, form: Literal["text", "json"]) -> None:
    hostile = b"\x1b[2J\x9b31m \xe2\x80\xaeright \x00\xff\x7f\n" + "\u2028\x85".encode()
    text = "\n".join(shown(terminal, [piece(hostile)], form=form))
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Cs") and c != "\n"], ascii(
        text
    )
    assert len(text.splitlines()) == 2, "it forges no line"


def test_a_long_line_loses_its_middle_and_says_so(terminal: Terminal) -> None:
    long = piece(b"begin " + b"x" * 5000 + b" end\n")
    (line,) = shown(terminal, [long])
    assert "begin xxx" in line and "(4050 characters left out)" in line and line.endswith("xxx end")
    assert len(line) < LONGEST_LINE + 60
    (line,) = shown(Terminal(), [long], form="json")
    assert json.loads(line)["message"].endswith("xxx end")


def test_json_lines_are_those_of_the_log(terminal: Terminal) -> None:
    (line,) = shown(terminal, [piece("é\n".encode())], form="json")
    assert json.loads(line) == {
        "time": "2025-11-29T02:40:00.500Z",
        "level": "info",
        "logger": "hearth.output",
        "message": "é",
        "function": "hello",
        "revision": "r1",
        "invocation": ID,
        "instance": "be5e",
    }


def test_a_flood_is_cut_off_and_counted_and_others_are_shown(terminal: Terminal) -> None:
    flood = [piece(b"f\n" * 1000, "flood") for _ in range(20)]
    lines = shown(terminal, [*flood, piece(b"quiet\n", "quiet")])
    assert sum(line.startswith("flood 2e16") for line in lines) == FUNCTION_LINES
    assert "quiet 2e16dc32 │ quiet" in lines
    assert (
        lines[-1]
        == f"flood - │ [{20_000 - FUNCTION_LINES} lines left out here; hearth logs flood shows them]"
    )


def test_many_functions_together_are_bounded_and_the_next_second_is_another(terminal: Terminal) -> None:
    def second(moment: float) -> list[OutputPiece]:
        return [piece(b"f\n" * FUNCTION_LINES, f"f{number}", moment) for number in range(10)]

    lines = shown(terminal, second(100.0), second(101.0))
    assert sum(line.endswith("│ f") for line in lines) == 2 * ALL_LINES
    assert sum("left out" in line for line in lines) >= 5


def test_a_terminal_that_stands_still_holds_nobody_up(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.01)
    terminal.goes_on.clear()
    with redirect_stderr(terminal):
        printer = OutputPrinter("text")
        printer.offer([piece(b"first\n")])
        terminal.is_written_to.wait()
        for number in range(100):
            printer.offer([piece(b"%d\n" % number, moment=float(number))])  # would wait if it could
        printer.close()
        terminal.goes_on.set()
        printer.close()
    lines = terminal.getvalue().splitlines()
    assert lines[0] == "hello 2e16dc32 │ first"
    assert any("lines left out here" in line for line in lines)


def test_a_closed_stream_stops_nothing(terminal: Terminal) -> None:
    with redirect_stderr(terminal):
        printer = OutputPrinter("text")
        terminal.close()
        printer.offer([piece(b"lost\n")])
        printer.close()


# -- lines of `hearth logs` -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("encoding", "mark"), [("utf-8", "│"), ("ascii", "|")])
def test_a_stream_without_the_bar_gets_another(
    monkeypatch: pytest.MonkeyPatch, encoding: str, mark: str
) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding))
    LineWriter().write({"time": "T", "function": "f", "invocation": None, "instance": "i", "text": "x"})
    sys.stdout.flush()
    assert written.getvalue().decode() == f"T f i {mark} x\n"


def test_a_time_is_local_and_has_its_day_unless_it_is_today(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local_time("2020-01-02T03:04:05.678Z").startswith("2020-01-0")
    assert local_time("\x1b[2J") == "\\x1b[2J"
