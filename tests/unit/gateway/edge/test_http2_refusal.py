"""Clients that speak HTTP/2 are told in HTTP/2 what is served, over a real socket."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.edge.client_limits import ClientLimits
from gateway.edge.client_protocol import ClientProtocol
from gateway.edge.http2_refusal import (
    GOAWAY,
    HEADERS,
    MOST_FRAME_BYTES,
    PREFACE,
    SETTINGS,
    WHAT_IS_SERVED,
    behind_preface,
    frame,
)

WINDOW_UPDATE = 8
REQUEST = (
    frame(SETTINGS, 0, 0, bytes(6))
    + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1000))
    + frame(HEADERS, 4, 1, b"\x82")
)


class Served(NamedTuple):
    """A server of one test: its port, and uvicorn's account of its connections."""

    port: int
    state: ServerState


async def never(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("no request may reach the application")


@asynccontextmanager
async def served(seconds: float = 60.0) -> AsyncIterator[Served]:
    config, state = (
        uvicorn.Config(never, interface="asgi3", lifespan="off", ws="none", log_config=None),
        ServerState(),
    )
    limits = ClientLimits(seconds, 10)
    server = await asyncio.get_running_loop().create_server(
        lambda: ClientProtocol(limits, config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        yield Served(server.sockets[0].getsockname()[1], state)


@asynccontextmanager
async def client(server: Served) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def frames(reader: asyncio.StreamReader) -> list[tuple[int, int, bytes]]:
    """Kind, stream and payload of all frames until the end of the connection."""
    found = []
    while head := await reader.read(9):
        length = int.from_bytes(head[:3], "big")
        payload = await reader.readexactly(length)
        found.append((head[3], int.from_bytes(head[5:], "big"), payload))
    return found


@pytest.mark.parametrize("pieces", [1, 3, 23, 24, 40, 1000])
async def test_a_client_of_http2_is_told_what_is_served(pieces: int) -> None:
    """In whatever pieces its bytes come."""
    async with served() as server, client(server) as (reader, writer):
        said = PREFACE + REQUEST
        for at in range(0, len(said), pieces):
            writer.write(said[at : at + pieces])
            await writer.drain()
            await asyncio.sleep(0)
        answered = await frames(reader)
    assert [(kind, stream) for kind, stream, _ in answered] == [(SETTINGS, 0), (HEADERS, 1), (GOAWAY, 0)]
    fields = answered[1][2]
    for text in (b":status\x03505", b"grpc-status\x0212", WHAT_IS_SERVED):
        assert text in fields


async def test_the_server_forgets_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    lost = asyncio.Event()
    before = ClientProtocol.connection_lost

    def note(self: ClientProtocol, exc: Exception | None) -> None:
        before(self, exc)
        lost.set()

    monkeypatch.setattr(ClientProtocol, "connection_lost", note)
    async with served() as server:
        async with client(server) as (_, writer):
            writer.write(PREFACE + REQUEST)
            await writer.drain()
        await asyncio.wait_for(lost.wait(), 10)
        assert not server.state.connections


async def test_a_client_that_asks_for_nothing_is_not_waited_for() -> None:
    async with served(seconds=0.05) as server, client(server) as (reader, writer):
        writer.write(PREFACE)
        assert await asyncio.wait_for(frames(reader), 10) == [(SETTINGS, 0, b"")]


async def test_a_client_that_only_talks_is_cut_off() -> None:
    async with served() as server, client(server) as (_, writer):
        writer.write(PREFACE)
        with pytest.raises(ConnectionError):
            while True:
                writer.write(frame(SETTINGS, 0, 0, bytes(MOST_FRAME_BYTES)))
                await writer.drain()


async def test_what_is_no_preface_is_told_in_http1() -> None:
    async with served() as server, client(server) as (reader, writer):
        writer.write(b"PRI /other HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")


def test_the_end_of_a_preface_is_found() -> None:
    assert behind_preface(PREFACE + b"abc") == b"abc"
    assert behind_preface(PREFACE[-3:] + b"\0abc") == b"\0abc"
    assert behind_preface(b"GET / HTTP/1.1") is None
