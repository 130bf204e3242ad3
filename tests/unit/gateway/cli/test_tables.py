"""Tables on a terminal: no line is too wide, no id is cut, and no word is lost."""

from __future__ import annotations

import io
import sys

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.tables import ID_HEADINGS, NOTE_HEADINGS, cells, glued, print_table, short_ids, table_lines

RUNS = ("ID", "WORKFLOW", "STATUS", "STARTED", "TOOK", "DETAIL")
AT = "2026-11-29 00:15:37 CET"
ID, OTHER = "7dc2e2cefabd9d88f769dfaffa242844", "7dc2e2cefa0d9d88f769dfaffa242844"
FAULT = "step pay failed: handler-raised: ValueError: the card was refused by the bank for want of funds"

words = st.text("abcdefgh漢-/", min_size=1, max_size=20)
texts = st.lists(words, max_size=6).map(" ".join)


class Terminal(io.StringIO):
    """Output that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


def lines_of(headings: tuple[str, ...], rows: list[tuple[str, ...]], width: int) -> list[str]:
    return [click.unstyle(line) for line in table_lines(headings, rows, width)]


def test_an_id_is_whole_where_there_is_room_and_else_its_shortest_unique_prefix() -> None:
    rows = [(id, "greet", "succeeded", AT, "0.1s", "") for id in (ID, OTHER)]
    assert [line.split()[0] for line in lines_of(RUNS, rows, 100)[1:]] == [ID, OTHER]
    assert [line.split()[0] for line in lines_of(RUNS, rows, 80)[1:]] == [ID[:11], OTHER[:11]]


def test_a_note_gives_way_before_an_id_does() -> None:
    headings, row = ("ID", "STATUS", "FAULT"), (ID, "failed", FAULT)
    assert lines_of(headings, [row], 160) == [f"{'ID':<32}  STATUS  FAULT", f"{ID}  failed  {FAULT}"]
    assert (
        lines_of(headings, [row], 90)[1] == f"{ID}  failed  step pay failed: handler-raised: ValueError: the"
    )
    assert lines_of(headings, [row], 80)[:2] == [f"{'ID':<32}  STATUS", f"{ID}  failed"]
    assert lines_of(headings, [row], 41)[0].split() == ["ID", "STATUS"]


def test_a_note_goes_below_its_row_where_its_column_would_be_narrow() -> None:
    rows = [(ID, "greet", "succeeded", AT, "0.1s", "-"), (OTHER, "shop", "failed", AT, "2m", FAULT)]
    assert lines_of(RUNS, rows, 80) == [
        "ID           WORKFLOW  STATUS     STARTED                  TOOK",
        f"{ID[:11]}  greet     succeeded  {AT}  0.1s",
        f"{OTHER[:11]}  shop      failed     {AT}  2m",
        "    step pay failed: handler-raised: ValueError: the card was refused by the",
        "    bank for want of funds",
    ]


def test_no_line_ends_within_a_time() -> None:
    headings = ("NAME", "CAUSE", "STARTS", "NEXT", "LAST")
    row = ("nightly", "0 3 * * *", "function clean-up-the-old-shop", AT, f"{AT} succeeded")
    shown = lines_of(headings, [row], 80)
    assert sum(line.count(AT) for line in shown) == 2
    assert max(map(len, shown)) <= 80


def test_a_column_of_notes_without_a_note_is_not_shown_on_a_terminal() -> None:
    assert lines_of(("NAME", "FAULT"), [("a", ""), ("b", "-")], 80) == ["NAME", "a", "b"]


@given(st.data(), st.integers(64, 200))
def test_no_line_is_wider_than_the_terminal_and_no_letter_is_lost(data: st.DataObject, width: int) -> None:
    headings = ("ID", "NAME", "STATE", "DETAIL")
    rows = data.draw(st.lists(st.tuples(st.uuids().map(lambda id: id.hex), words, texts, texts), max_size=4))
    shown = lines_of(headings, rows, width)
    assert all(cells(line) <= width for line in shown)
    for row in rows:
        for text in row[1:]:
            for letter in set(text) - {" "}:
                assert sum(line.count(letter) for line in shown[1:]) >= text.count(letter)


@given(st.sets(st.text("01", min_size=12, max_size=12), min_size=1))
def test_short_ids_are_unique_beginnings(ids: set[str]) -> None:
    listed = sorted(ids)
    short = short_ids([*listed, listed[0]])
    assert len(set(short)) == len(listed) and all(len(one) >= 8 for one in short)
    assert all(id.startswith(one) for id, one in zip([*listed, listed[0]], short, strict=True))


def test_a_pipe_gets_everything_whole_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(RUNS, [(ID, "漢字", "failed", AT, "2m", FAULT)])
    head, line = capsys.readouterr().out.splitlines()
    assert line == f"{ID}  漢字      failed  {AT}  2m    {FAULT}"
    assert head.split() == list(RUNS)


def test_colours_are_only_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, coloured in (("TERM", True), ("NO_COLOR", False)):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv(variable, "xterm")
        print_table(("NAME", "STATE"), [("hello", "ready")])
        assert ("\x1b[32mready" in terminal.getvalue()) == coloured


def test_no_heading_is_of_two_kinds() -> None:
    assert not ID_HEADINGS & NOTE_HEADINGS


def test_a_glued_text_stays_on_one_line_and_has_plain_spaces(capsys: pytest.CaptureFixture[str]) -> None:
    headings, row = ("CAUSE", "STARTS"), (glued("0 3 * * *"), "function " * 20)
    assert lines_of(headings, [row], 64)[1].startswith("0 3 * * *  function")
    print_table(headings, [row])
    assert "0 3 * * *  function" in capsys.readouterr().out


def test_a_name_is_broken_after_everything_else() -> None:
    headings, row = ("NAME", "WHAT"), ("order-confirmation", "hearth-example/busybox:latest and more words")
    assert lines_of(headings, [row], 64)[1].startswith("order-confirmation  hearth-example/busybox:latest")
    assert [line.split()[0] for line in lines_of(headings, [row], 24)[1:3]] == ["order-", "confirmation"]
