"""Text of functions and callers, with every character written out that could control a terminal."""

from __future__ import annotations

import re
import unicodedata

_RARE = re.compile(r"[^\n\t -~]")
_GAP_CHARACTERS = 40
"""Room for the words that say how much was left out."""
_JOINERS = "\u200c\u200d"
"""Invisible characters that emoji and some scripts need between others."""


def visible(text: str) -> str:
    """Return a text in which every character that could control a terminal is written out, as `\\x1b`.

    These are control characters except line end and tab, characters that change the direction of writing, and all
    others without a visible shape.
    """
    if text.isprintable():  # most are, and whole alphabets are rare to the expression
        return text
    return _RARE.sub(lambda found: _written_out(found[0]), text)


def visible_line(text: str) -> str:
    """Return `visible` text on one line: line ends and tabs are written out too."""
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


def shortened(text: str, most: int) -> str:
    """Return a text of at most `most` characters. A longer one loses its middle: its end says what went wrong.

    `most` is 100 at least.
    """
    if len(text) <= most:
        return text
    kept = most - _GAP_CHARACTERS
    head = kept // 3
    return f"{text[:head]} … ({len(text) - kept} characters left out) … {text[head - kept :]}"


def visible_json(text: str) -> str:
    """Return the same JSON, in which every character that could control a terminal is a JSON escape."""
    if text.isprintable():
        return text
    return _RARE.sub(lambda found: found[0] if _is_harmless(found[0]) else _json_escape(found[0]), text)


def _is_harmless(character: str) -> bool:
    return character.isprintable() or character in _JOINERS or unicodedata.category(character) == "Zs"


def _written_out(character: str) -> str:
    return character if _is_harmless(character) else ascii(character)[1:-1]


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
