"""One run of a program by init: what it is given goes there while its output comes, and its end tells its status.

The run is one `POST /run` over a connection that init has dialled (docs/init.md).
"""

from __future__ import annotations

import asyncio
import math
import signal
from collections.abc import Callable, Collection
from typing import NamedTuple, Protocol
from urllib.parse import quote_from_bytes

from pool.errors import AnswerTooLarge, CommandFailed, MalformedAnswer
from pool.transport.connection import HttpConnection
from pool.transport.held_output import HeldOutput
from pool.transport.message import Answer, Call, header_lines, read_report
from pool.transport.piecewise import send_request

STATUS, SIGNAL, EXEC = b"x-hearth-status", b"x-hearth-signal", b"x-hearth-exec"
"""Trailers of an answer: exit status, number of the signal that ended the program, seconds that it ran."""
ENVIRONMENT = b"x-hearth-env"
HOST = (b"host", b"hearth")
NOT_RUNNABLE = (b"x-hearth-outcome", b"not-runnable")
MAX_TRAILERS = 16
"""Bounds the trailers that are kept. init sends two."""
SIGNAL_BASE = 128
"""Exit status of a process that a signal ended, less the signal's number, as shells tell it."""
PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")
"""Characters of a variable that need no encoding in a field."""


class RunResult(NamedTuple):
    """The end of a run: the program's exit status, or the signal that ended it."""

    status: int | None
    signal: int | None

    @property
    def exit_status(self) -> int:
        """Return the exit status as a shell tells it, also if a signal ended the program."""
        return self.status if self.status is not None else SIGNAL_BASE + (self.signal or 0)


class Runs(Protocol):
    """The runs of one container, as its connections tell of them."""

    held_bytes: int
    """Output of a run that waits for its exit status. With more, it is passed on as it comes. 0 holds none back."""
    most_bytes: int
    """Longest output of a run."""
    own_variables: Collection[str]
    """Names of the function's own variables, which a call does not change."""

    def began(self, call: Call) -> None:
        """Note that a run begins."""

    def ended(self, end: RunResult | None) -> None:
        """Note that a run has ended, or with None that it is not known how."""

    def failure(self, end: RunResult) -> str:
        """Return in words how a run failed."""


class RunConnection(HttpConnection):
    """A connection over which init runs its program, one run after the other."""

    def __init__(
        self,
        on_open: Callable[[HttpConnection], None],
        on_lost: Callable[[HttpConnection], None],
        runs: Runs,
    ) -> None:
        super().__init__(on_open, on_lost)
        self._runs = runs
        self._running = False
        self._trailers: dict[bytes, bytes] = {}
        self._held = HeldOutput(0)

    async def ask(self, call: Call) -> Answer:
        """Send init a request of another kind than a run."""
        return await super().exchange(call)

    async def exchange(self, call: Call) -> Answer:
        """Run the program with a call's body and variables. Return when it has ended well, or says much.

        Raises `CommandFailed` if it ends with a status other than 0 or cannot be run, `AnswerTooLarge`, `NotSent`,
        `InstanceDied`, `MalformedAnswer`, OSError, and what the body raises.
        """
        await self._start(call)
        most = self._runs.held_bytes
        held = self._held = HeldOutput(most)
        while held.size <= most or self.complete or (most and self._feeds()):
            piece = await self.read()
            if not piece:
                self.check_end()
                return RunAnswer(self, held, ended=True)
            held.add(piece)
            if held.size > self._runs.most_bytes:
                raise AnswerTooLarge(
                    f"the command wrote more than {self._runs.most_bytes} bytes (max_response)"
                )
        return RunAnswer(self, held, ended=False)

    def _feeds(self) -> bool:
        """Return whether the body is still on its way. Many clients do not read before they have sent all of it."""
        return self.feeding is not None and not self.feeding.done()

    async def _start(self, call: Call) -> None:
        """Send the request, and return once the program runs. Its input may still be on its way then."""
        transport, waiter = self._begin_and_wait()
        self._trailers = {}
        self._held.close()
        self.feeding = None
        self._running = True
        self._runs.began(call)
        head = b"POST /run HTTP/1.1\r\n" + header_lines((HOST, *variables(call, self._runs.own_variables)))
        if call.more is None:
            transport.write(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(call.first), call.first))
        else:
            self.feeding = asyncio.ensure_future(self._feed(transport, head, call))
        await waiter
        if self.status != 200:
            refused = NOT_RUNNABLE in self.headers
            _, message = await read_report(self)
            if refused:
                raise CommandFailed(f"the command cannot be run: {message}")
            raise MalformedAnswer(f"init refused the run: {message}")

    async def _feed(self, transport: asyncio.Transport, head: bytes, call: Call) -> None:
        """Send a body in pieces, no faster than the program reads. If the body breaks off, so does the run."""
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            await send_request(self, transport, head, call, until=never)  # cancelled when the run is over
        except Exception as error:
            self.feeding = None  # so that it is not cancelled by its own fault
            self._fail(error)

    def check_end(self) -> None:
        """Raise `CommandFailed` unless the run that is over ended well, `MalformedAnswer` if it does not say so."""
        end = self.end()
        if end is None:
            raise MalformedAnswer("the answer does not say how the command ended")
        self._end_run(end)
        if end.status != 0:
            raise CommandFailed(self._runs.failure(end))

    def end(self) -> RunResult | None:
        """Return how the run has ended, or None if the answer does not say it."""
        status, ended_by = self._trailers.get(STATUS, b""), self._trailers.get(SIGNAL, b"")
        if status.isdigit():
            return RunResult(int(status), None)
        return RunResult(None, int(ended_by)) if ended_by.isdigit() else None

    def exec_seconds(self) -> float | None:
        """Return how long the program ran, or None if the answer does not say it."""
        try:
            seconds = float(self._trailers[EXEC])
        except (KeyError, ValueError):
            return None
        return seconds if 0 <= seconds < math.inf else None

    def _end_run(self, end: RunResult | None) -> None:
        if self._running:
            self._running = False
            self._runs.ended(end)

    def finish(self) -> bool:
        """End the exchange, if there was one; return whether the connection is kept."""
        kept = super().finish()
        self._stop_feeding()
        self._end_run(None)
        self._held.close()
        return kept

    def abort(self) -> None:
        """Close at once; init ends the run."""
        self._stop_feeding()
        super().abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the exchange, and what sends its body."""
        self._stop_feeding()
        super().connection_lost(exc)

    def on_message_complete(self) -> None:
        """Note the end of the answer. The program has ended, so nobody reads the rest of its input."""
        super().on_message_complete()
        if self.complete and self._feeds():
            self.spoil()
            self._stop_feeding()

    def _stop_feeding(self) -> None:
        if self.feeding is not None:
            self.feeding.cancel()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a field of the head, or a trailer."""
        if self._head_done and not self.complete and len(self._trailers) < MAX_TRAILERS:
            self._trailers[name.lower()] = value
        super().on_header(name, value)


class RunAnswer:
    """The output of a run: what was held, and then, unless the run has ended, what the program writes."""

    __slots__ = ("_connection", "_ended", "_held", "complete", "exec_seconds", "headers", "status")

    def __init__(self, connection: RunConnection, held: HeldOutput, ended: bool) -> None:
        held.rewind()
        self.status = 200
        self.complete = ended and not held.on_disk
        self.headers = [(b"content-length", b"%d" % held.size)] if ended else []
        self.exec_seconds = connection.exec_seconds() if ended else None
        """Seconds that the program ran, or None if that is not known yet."""
        self._ended = ended
        self._held = held
        self._connection = connection

    @property
    def feeding(self) -> asyncio.Future[None] | None:
        """Return what sends the rest of the body, or None if all of it was sent."""
        return self._connection.feeding

    def take(self) -> bytes:
        """Return output that is here, without waiting: all of it if it is complete."""
        return self._held.take() or self._connection.take()

    async def read(self) -> bytes:
        """Return the next piece of the output; empty at its end. Raises as `RunConnection.exchange` does."""
        piece = self.take()
        if not piece and not self._ended:
            piece = await self._connection.read()
            if not piece:
                self._connection.check_end()
                self._ended = True
        if not piece:
            self.complete = True
        return piece


def variables(call: Call, own: Collection[str]) -> list[tuple[bytes, bytes]]:
    """Return a call's variables as fields of a run, without those that the function has of its own."""
    given = (call.meta or {}).items()
    return [(ENVIRONMENT, encoded(f"{name}={value}")) for name, value in given if name not in own]


def encoded(text: str) -> bytes:
    """Return text as the value of a field: each byte that is not a visible character of ASCII is %XX, and so is %."""
    return quote_from_bytes(text.encode(errors="surrogateescape"), PLAIN).encode()


def signal_name(number: int) -> str:
    """Return the name of a signal in brackets, or an empty string if it has none."""
    try:
        return f" ({signal.Signals(number).name})"
    except ValueError:
        return ""
