"""What is written within one turn of the loop goes out as one, but never so much that a slow reader goes unseen."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.edge.one_write import MOST_JOINED_BYTES, OneWriteTransport
from tests.support.warm_call_loop import Transport


def joined() -> tuple[OneWriteTransport, Transport]:
    behind: Any = Transport()
    return OneWriteTransport(behind, asyncio.get_running_loop()), behind


async def test_what_is_written_in_one_turn_is_written_once() -> None:
    transport, behind = joined()
    transport.write(b"head")
    transport.write(b"body")
    assert behind.written == []
    await asyncio.sleep(0)
    assert behind.written == [b"headbody"]
    transport.write(b"next")
    await asyncio.sleep(0)
    assert behind.written == [b"headbody", b"next"]


async def test_much_is_written_at_once() -> None:
    transport, behind = joined()
    for _ in range(10):
        transport.write(b"x" * MOST_JOINED_BYTES)
    waiting = 10 * MOST_JOINED_BYTES - sum(len(data) for data in behind.written)
    assert waiting <= MOST_JOINED_BYTES, "the transport behind cannot tell that its reader is slow"
    await asyncio.sleep(0)
    assert sum(len(data) for data in behind.written) == 10 * MOST_JOINED_BYTES


async def test_closing_writes_first() -> None:
    transport, behind = joined()
    transport.write(b"last words")
    transport.close()
    assert (behind.written, behind.closed) == ([b"last words"], True)
    await asyncio.sleep(0)
    assert behind.written == [b"last words"]
    assert transport.is_closing(), "what it does not know goes to the transport behind"


async def test_what_was_to_be_written_to_a_lost_connection_is_dropped() -> None:
    transport, behind = joined()
    transport.write(b"late")
    behind.close()  # uvloop's transports raise at a write when they are lost
    await asyncio.sleep(0)
    assert behind.written == []
