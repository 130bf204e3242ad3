"""The network that a gateway creates for functions with `network: egress`.

Containers on it reach neither each other, nor the host, nor link-local addresses. It is created when it is first
needed, and removed when the gateway stops. A reload of the host's firewall removes the rules, so they are
checked again and again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging

from pool.clock import Clock
from pool.engine.base import Engine
from pool.errors import StartFailed
from pool.host import firewall
from pool.supervise import Supervisor

log = logging.getLogger("hearth.network")

NETWORK_LABEL = "org.hearth.gateway"
RULES_CHECK_SECONDS = 5.0
"""Time between two checks of the rules. It bounds how long a reload of the host's firewall leaves it unprotected.

A check takes five commands of some milliseconds each.
"""


class Egress:
    """Networks of one gateway: creates them, protects the host from them, and removes them."""

    def __init__(self, engine: Engine, gateway_id: str, clock: Clock, supervisor: Supervisor) -> None:
        self._engine = engine
        self._id = gateway_id
        self._clock = clock
        self._supervisor = supervisor
        self._watch: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._bridges: dict[str, str] = {}
        """Bridge of each network that was protected once: containers may be on it, so its rules are kept in place."""
        self._ready: set[str] = set()
        """Networks whose rules are in place, as far as we know: containers may start on them."""
        self._inherited = True
        """True while an earlier process may have left networks or rules."""

    async def ensure(self) -> str:
        """Create the network with a way out unless it exists, and return its name.

        Once it exists, this runs no command. Raises `StartFailed` if the host cannot be protected from it, and
        `EngineError`.
        """
        name = self._name
        if name in self._ready:
            return name
        if (reason := await firewall.why_unavailable()) is not None:
            raise StartFailed(f"network: egress is not available: {reason}")
        async with self._lock:
            if name not in self._ready:
                bridge = f"hth{self._id[:8]}e"
                labels = {NETWORK_LABEL: self._id}
                present = {network.name for network in await self._engine.networks(labels)}
                if name not in present:
                    await self._engine.create_network(name, bridge, False, labels)
                # Containers may be on a network that was there: of its rules none is taken back.
                set_rules = firewall.restore if name in present else firewall.protect
                try:
                    await set_rules(bridge)
                except (firewall.FirewallError, OSError) as error:
                    raise StartFailed(f"cannot protect the host from network {name}: {error}") from error
                self._bridges[name] = bridge
                self._ready.add(name)
                if self._watch is None:
                    self._watch = self._supervisor.supervise("firewall-rules", self._keep_rules)
        return name

    @property
    def _name(self) -> str:
        return f"hearth-{self._id[:8]}-egress"

    async def close(self) -> None:
        """Stop checking the rules. Networks and rules stay as they are."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None

    async def _keep_rules(self) -> None:
        while True:
            await self._clock.sleep(RULES_CHECK_SECONDS)
            await self.restore_rules()

    async def restore_rules(self) -> None:
        """Set the rules again that somebody has removed.

        If that fails, no container starts on the network until a later call succeeds.
        """
        async with self._lock:
            for name, bridge in self._bridges.items():
                try:
                    missing = await firewall.restore(bridge)
                except (firewall.FirewallError, OSError) as error:
                    if name in self._ready:  # else it has been logged
                        log.error(
                            "Cannot restore the firewall rules of network %s; starting no container on it until "
                            "that works: %s",
                            name,
                            error,
                        )
                    self._ready.discard(name)
                else:
                    self._ready.add(name)
                    if missing:
                        log.warning(
                            "Restored firewall rules of network %s: %d were missing. "
                            "Find out which program removes them.",
                            name,
                            missing,
                        )

    async def remove(self) -> None:
        """Remove this gateway's networks and their rules, also those of an earlier process. Raises `EngineError`."""
        async with self._lock:
            self._ready.clear()
            self._inherited = True  # if a removal below fails, the next call tries it again
            for network in await self._engine.networks({NETWORK_LABEL: self._id}):
                await self._engine.remove_network(network.name)
                self._bridges.pop(network.name, None)  # not earlier: containers may still hold it
            if await firewall.why_unavailable() is None:
                with contextlib.suppress(firewall.FirewallError):  # a rule for a removed bridge is harmless
                    for bridge in await firewall.protected_bridges(f"hth{self._id[:8]}"):
                        await firewall.unprotect(bridge)
            self._inherited = False

    def removable(self, wanted: bool) -> bool:
        """Return whether networks may exist although none is `wanted` by a workload in service."""
        return bool(self._bridges or self._inherited) and not wanted
