"""One attempt to deliver a callback.

The name is looked up once, and the connection goes to the address that was checked. We follow no redirect, use no
proxy, and read only the status of the answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.callbacks.signing import signed_headers
from pool.clock import Clock
from scheduler.calls.callbacks import Delivery
from scheduler.definitions.language.callback_allow import Allowed, as_ip, parse_callback

if TYPE_CHECKING:
    from gateway.callbacks.client import CallbackClient

ATTEMPT_TIMEOUT_SECONDS = 15.0
"""Longest attempt, including the look-up of the name. Receivers that need more should answer first and work then."""
GONE = 410
"""Status with which a receiver says that it wants no more attempts (Standard Webhooks)."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class SendResult:
    """Result of an attempt. `fault` is None if it was delivered. `final` means that another attempt is useless."""

    fault: str | None = None
    final: bool = False


class Sender:
    """Sends callbacks. It keeps no connections, so that none is used for another name than it was opened for."""

    def __init__(self, allowed: Allowed, secret: bytes, clock: Clock, resolve: Resolve | None = None) -> None:
        self._allowed = allowed
        self._secret = secret
        self._clock = clock
        self._resolve = resolve or look_up
        self._client: CallbackClient | None = None

    async def __call__(self, delivery: Delivery) -> SendResult:
        """Try once to deliver a callback."""
        if (fault := self._allowed.fault_of(delivery.url)) is not None:
            return SendResult(fault, final=True)
        try:
            async with self._clock.timeout(ATTEMPT_TIMEOUT_SECONDS):
                return await self._send(delivery)
        except TimeoutError:
            return SendResult(f"no answer within {ATTEMPT_TIMEOUT_SECONDS:g} s")
        except OSError as error:
            return SendResult(f"cannot look up the name: {error.strerror or error}")
        except ValueError as error:
            return SendResult(f"{type(error).__name__}: {error}")

    async def _send(self, delivery: Delivery) -> SendResult:
        target = parse_callback(delivery.url)
        literal = as_ip(target.host)
        found = await self._resolve(target.host, target.port) if literal is None else [str(literal)]
        address = self._allowed.usable(target, found)
        if address is None:
            # The owner of the callback must not learn about our network, not even its addresses.
            return SendResult(f"{target.host} has no address that callbacks may go to")
        headers = {
            "content-type": "application/json",
            "user-agent": "Hearth",
            **signed_headers(self._secret, delivery.message, int(self._clock.wall()), delivery.body),
        }
        client = await self._opened()
        name = target.host if target.tls and literal is None else None
        status = await client.post(delivery.url, address, headers, delivery.body, name)
        if isinstance(status, str):
            return SendResult(status)
        if 200 <= status < 300:
            return SendResult()
        return SendResult(f"answered with status {status}", final=status == GONE)

    async def _opened(self) -> CallbackClient:
        if self._client is None:
            client = await asyncio.to_thread(make_client)
            self._client = self._client or client
        return self._client

    async def close(self) -> None:
        """Close the client."""
        if self._client is not None:
            await self._client.close()


def make_client() -> CallbackClient:
    """Return a client. The first callback imports it, in a thread: most gateways never need its hundred modules."""
    from gateway.callbacks.client import CallbackClient

    return CallbackClient(ATTEMPT_TIMEOUT_SECONDS)


async def look_up(host: str, port: int) -> list[str]:
    """Return the addresses of a name. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
