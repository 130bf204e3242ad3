"""Messages on a terminal are broken between words, but never within a command."""

from __future__ import annotations

import io

import pytest

from gateway.cli.terminal import fitted


class Screen(io.StringIO):
    """Output that takes itself for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")


def test_a_message_is_broken_between_words_and_keeps_its_indentation() -> None:
    text = "a message that is wider than the terminal\n  and one below it that is wider as others"
    assert fitted(Screen(), text).split("\n") == [
        "a message that is wider than the",
        "terminal",
        "  and one below it that is wider as",
        "  others",
    ]


def test_a_command_is_not_broken() -> None:
    command = "  Create a key:  hearth keys create NAME --scope admin"
    assert fitted(Screen(), f"no key\n{command}") == f"no key\n{command}"
    assert fitted(Screen(), "no gateway answers; start one with `hearth serve`").split("\n") == [
        "no gateway answers; start one with",
        "`hearth serve`",
    ]


def test_nothing_is_broken_for_a_file_or_a_pipe() -> None:
    text = "a message that is wider than the terminal, if that were one"
    assert fitted(io.StringIO(), text) == text
