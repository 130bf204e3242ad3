"""Objects of earlier gateways on the engine and in the host's firewall, by gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Collection
from dataclasses import dataclass, field, replace

from pool.engine.base import Engine, EngineError
from pool.engine.labels import GATEWAY_LABEL
from pool.host import firewall

BRIDGE_PREFIX = "hth"
"""Prefix of the names of our bridges. The first eight characters of the gateway's id follow."""
ID_SHOWN = 8
"""Characters of a gateway's id in the name of its bridge, and in tables."""


@dataclass
class Leftovers:
    """All objects of one gateway that still exist."""

    gateway: str
    """Its id, or only the first characters if just firewall rules are left."""
    containers: dict[str, str] = field(default_factory=dict)
    """Name by id."""
    networks: list[str] = field(default_factory=list)
    images: dict[str, str] = field(default_factory=dict)
    """Name to show, by the reference that removes the image."""
    bridges: list[str] = field(default_factory=list)
    """Bridges with firewall rules."""

    @property
    def count(self) -> int:
        """Return the number of objects."""
        return len(self.containers) + len(self.networks) + len(self.images) + len(self.bridges)

    def is_of(self, gateway: str) -> bool:
        """Return whether they belong to the gateway with this id."""
        return self.gateway[:ID_SHOWN] == gateway[:ID_SHOWN]

    def without(self, containers: Collection[str]) -> Leftovers:
        """Return the leftovers without these containers, given by name.

        If one of them exists, networks, images and rules are left out too, because it may need them.
        """
        rest = {id: name for id, name in self.containers.items() if name not in containers}
        if len(rest) == len(self.containers):
            return self
        return replace(self, containers=rest, networks=[], images={}, bridges=[])

    def named(self) -> list[tuple[str, str]]:
        """Return kind and name of each object."""
        return [
            *(("container", name) for name in self.containers.values()),
            *(("network", name) for name in self.networks),
            *(("image", name) for name in self.images.values()),
            *(("firewall rules", f"of bridge {bridge}") for bridge in self.bridges),
        ]


async def find(engine: Engine) -> list[Leftovers]:
    """Return the objects of all gateways, dead or alive. Raises `EngineError`."""
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
    """Remove all objects. Return the name of each, and why it could not be removed, or None if it is gone."""
    done: list[tuple[str, str | None]] = []

    async def attempt(name: str, removal: Awaitable[None]) -> None:
        try:
            await removal
        except (EngineError, firewall.FirewallError) as error:
            done.append((name, str(error)))
        else:
            done.append((name, None))

    # A network can go only without containers, and its rules must protect the host until then.
    for id, name in left.containers.items():
        await attempt(f"container {name}", engine.remove(id))
    for name in left.networks:
        await attempt(f"network {name}", engine.remove_network(name))
    for bridge in left.bridges:
        await attempt(f"firewall rules of bridge {bridge}", firewall.unprotect(bridge))
    for reference, name in left.images.items():
        await attempt(f"image {name}", engine.remove_image(reference))
    return done
