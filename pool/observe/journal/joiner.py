"""Joins pieces of output to whole lines: a line may come in several pieces, and between those of others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pool.observe.journal.records import RECORD_BYTES, OutputPiece

MERGE_SECONDS = 0.02
"""Time within which pieces of one invocation become one record, with the time of the first."""
HELD_BATCHES = 5
"""Batches for which half a line waits for its end: about a second. A prompt without a line end is shown then."""
HELD_BYTES = 2**20
"""Most bytes of all half lines together. With more, all are passed on as they are."""


class _Held:
    """The beginning of a line, and for how many batches it has waited."""

    __slots__ = ("batches", "piece")

    def __init__(self, piece: OutputPiece, batches: int) -> None:
        self.piece = piece
        self.batches = batches


class LineJoiner:
    """Half lines of all instances. Give it each batch of pieces; it returns what is whole."""

    def __init__(self) -> None:
        self._held: dict[tuple[str, str], _Held] = {}
        """Beginnings of lines by instance and invocation."""

    @property
    def holding(self) -> bool:
        """Return whether half a line waits, so that `join` must be called again."""
        return bool(self._held)

    def join(self, pieces: Sequence[OutputPiece], last: bool = False) -> list[OutputPiece]:
        """Return the whole lines in these pieces and in those before, `RECORD_BYTES` at most in each.

        `last`: return half lines as well.
        """
        whole: list[OutputPiece] = []
        for held in self._held.values():
            held.batches += 1
        for piece in pieces:
            self._add(piece, whole)
        size = sum(len(held.piece.data) for held in self._held.values())
        for key, held in list(self._held.items()):
            if last or size > HELD_BYTES or held.batches >= HELD_BATCHES:
                whole.append(self._held.pop(key).piece)
        return [part for piece in whole for part in _in_parts(piece)]

    def _add(self, piece: OutputPiece, whole: list[OutputPiece]) -> None:
        key = piece.instance, piece.invocation
        held = self._held.pop(key, None)
        if held is not None:
            piece = held.piece._replace(data=held.piece.data + piece.data)
        data = piece.data
        end = data.rfind(b"\n") + 1
        if len(data) - end >= RECORD_BYTES:
            end = len(data)
        if end == len(data):
            _append(whole, piece)
            return
        batches = held.batches if held is not None and not end else 0
        self._held[key] = _Held(piece._replace(data=data[end:]), batches)
        if end:
            _append(whole, piece._replace(data=data[:end]))


def _append(whole: list[OutputPiece], piece: OutputPiece) -> None:
    """Add lines, to those before if they are of the same call and moment."""
    if whole:
        before = whole[-1]
        if (
            before.instance == piece.instance
            and before.invocation == piece.invocation
            and piece.moment - before.moment < MERGE_SECONDS
            and len(before.data) + len(piece.data) <= RECORD_BYTES
            and before.data.endswith(b"\n")
        ):
            whole[-1] = before._replace(data=before.data + piece.data)
            return
    whole.append(piece)


def _in_parts(piece: OutputPiece) -> Iterator[OutputPiece]:
    """Yield a piece in parts of at most `RECORD_BYTES`, cut behind a line end if there is one."""
    data, at = piece.data, 0
    if len(data) <= RECORD_BYTES:
        yield piece
        return
    while at < len(data):
        end = min(at + RECORD_BYTES, len(data))
        if end < len(data):
            line_end = data.rfind(b"\n", at, end) + 1
            end = line_end if line_end > at else _before_character(data, end)
        yield piece._replace(data=data[at:end])
        at = end


def _before_character(data: bytes, end: int) -> int:
    """Return `end`, or a place up to three bytes before it that is not within a character of UTF-8."""
    for place in range(end, end - 4, -1):
        if data[place] & 0xC0 != 0x80:
            return place
    return end
