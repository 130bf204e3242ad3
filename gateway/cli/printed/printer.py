"""Shows what functions print in the terminal or log of `hearth serve`.

The journal's thread offers lines and never waits. Another thread writes them: a terminal that stands still holds up
neither calls nor the journal.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from gateway.cli.printed.lines import NOBODY, origin, separator
from gateway.cli.terminal import write_log
from gateway.http.visible import shortened, visible_json, visible_line
from pool.observe.journal.records import OutputPiece, time_text

FUNCTION_LINES = 200
"""Most lines of one function that are shown in a second: a long traceback is whole."""
ALL_LINES = 1000
"""Most lines of all functions in a second: more than anybody reads."""
LONGEST_LINE = 1000
"""Characters of a line that are shown, from its begin and its end: a thousand lines a second are 1 MB."""
MOST_BATCHES = 16
"""Batches of lines that wait for the terminal. Further ones are left out."""
NOTE_SECONDS = 1.0
"""Time after which it is said how many lines were left out."""
CLOSE_SECONDS = 1.0
"""Longest wait for a terminal when the gateway ends."""


class OutputPrinter:
    """Writes lines of functions on stderr, as text or as JSON, until `close`."""

    def __init__(self, form: Literal["text", "json"]) -> None:
        self._form = form
        self._batches: queue.Queue[list[OutputPiece] | None] = queue.Queue(MOST_BATCHES)
        self._second = 0
        self._moment = self._noted = 0.0
        """Times of the line that was written last, and of the last note about lines that were left out."""
        self._shown: Counter[str] = Counter()
        """Lines of each function in this second."""
        self._left_out: Counter[str] = Counter()
        """Lines of each function that were left out since this was said."""
        self._lock = threading.Lock()
        """Guards `_left_out`, which both threads use."""
        self._colour = sys.stderr.isatty()
        self._separator = separator(sys.stderr)
        self._thread = threading.Thread(target=self._run, name="hearth-printer", daemon=True)
        self._thread.start()

    # -- in the journal's thread ----------------------------------------------------------------------------

    def offer(self, pieces: Sequence[OutputPiece]) -> None:
        """Show as many of these lines as may be shown, and count the others."""
        batch: list[OutputPiece] = []
        for piece in pieces:
            lines = piece.data.count(b"\n") + (not piece.data.endswith(b"\n"))
            may = self._may_show(piece, lines)
            if may < lines:
                self._leave_out(piece.function, lines - may)
                kept = piece.data.split(b"\n", may)[:may]
                piece = piece._replace(data=b"\n".join(kept))
            if may:
                batch.append(piece)
        if not batch:
            return
        try:
            self._batches.put_nowait(batch)
        except queue.Full:
            for piece in batch:
                self._leave_out(piece.function, piece.data.count(b"\n") or 1)

    def _may_show(self, piece: OutputPiece, lines: int) -> int:
        """Return how many of these lines may be shown in the second in which they were printed."""
        second = int(piece.moment)
        if second != self._second:
            self._second = second
            self._shown.clear()
        left = min(FUNCTION_LINES - self._shown[piece.function], ALL_LINES - self._shown.total())
        may = max(0, min(lines, left))
        self._shown[piece.function] += may
        return may

    def _leave_out(self, function: str, lines: int) -> None:
        with self._lock:
            self._left_out[function] += lines

    # -- in its own -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                batch = self._batches.get(timeout=NOTE_SECONDS if self._left_out else None)
            except queue.Empty:
                self._say_left_out()
                continue
            if batch is None:
                break
            self._moment = batch[-1].moment
            self._write([line for piece in batch for line in self._lines(piece)])
            if self._left_out and self._moment - self._noted >= NOTE_SECONDS:
                self._say_left_out()
        self._say_left_out()

    def _lines(self, piece: OutputPiece) -> list[str]:
        """Return the lines of a piece as they are shown."""
        texts = piece.data.decode("utf-8", "backslashreplace").removesuffix("\n").split("\n")
        return [self._line(piece, text.removesuffix("\r")) for text in texts]

    def _line(self, piece: OutputPiece, text: str) -> str:
        text = shortened(text, LONGEST_LINE)
        if self._form == "json":
            shown = {
                "time": time_text(piece.moment),
                "level": "info",
                "logger": "hearth.output",
                "message": text,
                "function": piece.function or None,
                "revision": piece.revision or None,
                "invocation": piece.invocation or None,
                "instance": piece.instance or None,
            }
            return visible_json(json.dumps(shown, ensure_ascii=False))
        where = origin(piece.function, piece.invocation or piece.instance, self._colour)
        return f"{where} {self._separator} {visible_line(text)}"

    def _say_left_out(self) -> None:
        self._noted = self._moment
        with self._lock:
            left_out, self._left_out = self._left_out, Counter()
        notes = []
        for function, lines in left_out.items():
            name = function or NOBODY
            note = f"[{lines} lines left out here; hearth logs {name} shows them]"
            notes.append(self._line(OutputPiece(self._moment, function, "", "", "", b""), note))
        self._write(notes)

    def _write(self, lines: list[str]) -> None:
        if lines:
            write_log("".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        """Write what waits, and end the thread; a terminal that stands still is not waited for."""
        try:
            self._batches.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)
