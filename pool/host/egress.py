"""The networks that a gateway makes: one for functions with `network: egress`, one for the fallback.

Containers on them reach neither each other, nor the host, nor link-local addresses. Both are made when first
needed and removed when the gateway stops.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable

from pool.engine.base import Engine
from pool.errors import StartFailed
from pool.host import firewall, netns
from pool.workload import Kind, Workload

NETWORK_LABEL = "org.hearth.gateway"


class Egress:
    """Makes and removes the networks of one gateway."""

    def __init__(self, engine: Engine, gateway_id: str) -> None:
        self._engine = engine
        self._id = gateway_id
        self._lock = asyncio.Lock()
        self._ready: dict[str, str] = {}
        self._inherited = True
        """Whether there may be something that an earlier process has left."""

    async def ensure(self) -> str:
        """Name of the network with a way out. Raises `StartFailed` if the host cannot be protected from it."""
        if (why := firewall.available()) is not None:
            raise StartFailed(f"network: egress is not available: {why}")
        return await self._network("egress", internal=False)

    async def fallback(self, allowed: bool) -> str | None:
        """Name of a network without a way out, for hosts where namespaces cannot be entered; None: not needed."""
        return (
            await self._network("inside", internal=True)
            if allowed and not can_dial_into_namespaces()
            else None
        )

    async def _network(self, purpose: str, internal: bool) -> str:
        name = f"hearth-{self._id[:8]}-{purpose}"
        async with self._lock:
            if name not in self._ready:
                bridge = f"hth{self._id[:8]}{purpose[0]}"
                labels = {NETWORK_LABEL: self._id}
                present = {network.name for network in await self._engine.networks(labels)}
                if name not in present:
                    await self._engine.create_network(name, bridge, internal, labels)
                if firewall.available() is None:
                    try:
                        await firewall.protect(bridge)
                    except firewall.FirewallError as error:
                        raise StartFailed(
                            f"the host cannot be protected from the network: {error}"
                        ) from error
                self._ready[name] = bridge
        return name

    async def remove(self) -> None:
        """Remove this gateway's networks and their rules, those of an earlier process too. Raises `EngineError`."""
        async with self._lock:
            self._ready.clear()
            self._inherited = True  # until all of it is done
            for network in await self._engine.networks({NETWORK_LABEL: self._id}):
                await self._engine.remove_network(network.name)
            if firewall.available() is None:
                with contextlib.suppress(firewall.FirewallError):  # a rule about no bridge does nothing
                    for bridge in await firewall.protected_bridges(f"hth{self._id[:8]}"):
                        await firewall.unprotect(bridge)
            self._inherited = False

    def removable(self, workloads: Iterable[Workload]) -> bool:
        """Whether there may be networks, although none of these workloads is on one."""
        return bool(self._ready or self._inherited) and not any(
            w.egress or (w.kind is Kind.HTTP and not can_dial_into_namespaces()) for w in workloads
        )


def can_dial_into_namespaces() -> bool:
    """Whether this process may open sockets inside another network namespace."""
    return netns.permitted()
