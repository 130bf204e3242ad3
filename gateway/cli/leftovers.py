"""What gateways have left on the engine and in the host's firewall, by the gateway that it belongs to."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from dataclasses import dataclass, field, replace

from pool.engine.base import Engine, EngineError
from pool.engine.labels import GATEWAY_LABEL
from pool.host import firewall

BRIDGE_PREFIX = "hth"
"""What the names of our bridges start with; the first eight characters of the gateway's id follow."""
ID_SHOWN = 8


@dataclass
class Leftovers:
    """Everything that one gateway has made and that is still there."""

    gateway: str
    """Its id; only the beginning of it where nothing but firewall rules are left."""
    containers: dict[str, str] = field(default_factory=dict)
    """Id to name."""
    networks: list[str] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    """Reference to remove it by, to the name that is shown."""
    bridges: list[str] = field(default_factory=list)
    """Bridges with firewall rules."""

    @property
    def count(self) -> int:
        """How many things."""
        return len(self.containers) + len(self.networks) + len(self.images) + len(self.bridges)

    def is_of(self, gateway: str) -> bool:
        """Whether they are of the gateway with this id."""
        return self.gateway[:ID_SHOWN] == gateway[:ID_SHOWN]

    def without(self, containers: Collection[str]) -> Leftovers:
        """The same without these containers (by name); if one of them is there, without what it may stand on, too."""
        rest = {id: name for id, name in self.containers.items() if name not in containers}
        if len(rest) == len(self.containers):
            return self
        return replace(self, containers=rest, networks=[], images={}, bridges=[])

    def named(self) -> list[tuple[str, str]]:
        """All of it as (kind, name)."""
        return [
            *(("container", name) for name in self.containers.values()),
            *(("network", name) for name in self.networks),
            *(("image", name) for name in self.images.values()),
            *(("firewall rules", f"of bridge {bridge}") for bridge in self.bridges),
        ]


async def find(engine: Engine) -> list[Leftovers]:
    """What there is of all gateways, dead or alive. Raises `EngineError`."""
    found: dict[str, Leftovers] = {}

    def of(gateway: str) -> Leftovers:
        known = next((left for left in found.values() if left.is_of(gateway)), None)
        return known or found.setdefault(gateway, Leftovers(gateway))

    labels = {GATEWAY_LABEL: ""}
    for container in await engine.containers(labels):
        of(container.labels[GATEWAY_LABEL]).containers[container.id] = container.name
    for network in await engine.networks(labels):
        of(network.labels[GATEWAY_LABEL]).networks.append(network.name)
    for image in await engine.images(labels):
        for reference in image.tags or (image.id,):
            name = reference.removeprefix("sha256:")
            of(image.labels[GATEWAY_LABEL]).images[reference] = name if image.tags else name[:12]
    if await firewall.why_unavailable() is None:
        for bridge in await firewall.protected_bridges(BRIDGE_PREFIX):
            start = len(BRIDGE_PREFIX)
            of(bridge[start : start + ID_SHOWN]).bridges.append(bridge)
    return list(found.values())


async def remove(engine: Engine, left: Leftovers) -> list[tuple[str, str | None]]:
    """Remove all of it; each thing as words, and why it could not be removed (None: it is gone)."""
    done: list[tuple[str, str | None]] = []

    async def attempt(deed: str, removal: Awaitable[None]) -> None:
        try:
            await removal
        except (EngineError, firewall.FirewallError) as error:
            done.append((deed, str(error)))
        else:
            done.append((deed, None))

    # In this order: a network goes when no container is on it, and its rules when it is gone.
    for id, name in left.containers.items():
        await attempt(f"container {name}", engine.remove(id))
    for name in left.networks:
        await attempt(f"network {name}", engine.remove_network(name))
    for bridge in left.bridges:
        await attempt(f"firewall rules of bridge {bridge}", firewall.unprotect(bridge))
    for reference, name in left.images.items():
        await attempt(f"image {name}", engine.remove_image(reference))
    return done
