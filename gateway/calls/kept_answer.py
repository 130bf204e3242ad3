"""Large answers of accepted calls, sent on in pieces as they are read from the store."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from fastapi.responses import StreamingResponse
from starlette.types import Send

from gateway.http.forwarding import HeaderList
from scheduler.calls.store import StoreError

log = logging.getLogger("hearth.durable")


@contextmanager
def cut_off_at_fault(invocation: str) -> Iterator[None]:
    """Leave the answer that the block sends without its end if the store fails.

    The server then closes the connection, so that nobody takes half for whole.
    """
    try:
        yield
    except StoreError as fault:
        log.warning("invocation %s: its stored result broke off while it was sent: %s", invocation, fault)


class KeptAnswer(StreamingResponse):
    """The result of one accepted call, in pieces."""

    def __init__(
        self, invocation: str, status: int, headers: HeaderList, pieces: AsyncIterator[bytes]
    ) -> None:
        super().__init__(pieces, status)
        self.raw_headers = headers
        self._invocation = invocation

    async def stream_response(self, send: Send) -> None:
        """Send head and pieces; called by Starlette."""
        with cut_off_at_fault(self._invocation):
            await super().stream_response(send)
