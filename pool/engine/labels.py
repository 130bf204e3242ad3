"""Labels, names and folders of the containers that Hearth makes."""

from __future__ import annotations

from collections.abc import Mapping

from pool.engine.base import ContainerState

GATEWAY_LABEL = "org.hearth.gateway"
"""Label of every container: the id of the gateway that made it."""
INSTANCE_LABEL = "org.hearth.instance"
"""Label of an instance's container: the instance's id."""
INVOCATION_LABEL = "org.hearth.invocation"
"""Label of a container that was made for one call: the call's id."""
KEPT_LABEL = "org.hearth.kept-for"
"""Label of containers that may stay after their end: the name of their function."""
LOOK_LABEL = "org.hearth.look"
"""Label of containers that are created only to read files of their image. No instance has it."""

SOCKETS_FOLDER = "/run/hearth"
"""Folder in a handler's container in which its shim finds the gateway's sockets."""


def container_name(instance: str) -> str:
    """Return the name of an instance's container. Ids of instances are unique over all gateways."""
    return f"hearth-{instance}"


def is_instance(labels: Mapping[str, str]) -> bool:
    """Return whether a container was made as an instance.

    Containers of a build, and those that somebody makes by hand from a function's image, have this gateway's label
    too, from the image. So have containers that only look into an image. None of them is ours to remove.
    """
    return INSTANCE_LABEL in labels and LOOK_LABEL not in labels


def is_made_by_gateway(labels: Mapping[str, str]) -> bool:
    """Return whether a gateway made a container by itself: as an instance, or to look into an image."""
    return INSTANCE_LABEL in labels or LOOK_LABEL in labels


def instance_of(container: str, labels: Mapping[str, str]) -> str:
    """Return the id of the instance that has a container; without a label it is made from the container's id."""
    return labels.get(INSTANCE_LABEL) or container[:12]


def is_kept(container: ContainerState) -> bool:
    """Return whether a container was left on purpose after its end: neither an instance nor a leftover."""
    return KEPT_LABEL in container.labels and not container.running
