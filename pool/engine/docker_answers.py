"""Translates the answers of the Docker Engine API into the words of the engine's contract: pure functions.

An answer of another shape raises `LookupError`, `TypeError`, `ValueError` or `AttributeError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pool.engine.base import ContainerEvent, ContainerState, EngineInfo, Image, Network

BRIDGE_NAME = "com.docker.network.bridge.name"
"""The option of a network that names its bridge."""

USER_NAMESPACE_OPTIONS = ("name=userns", "name=rootless")
"""Beginnings of the security options that an engine names when it maps uids."""


def info_of(info: Mapping[str, Any], version: Mapping[str, Any]) -> EngineInfo:
    """Return what an engine says of itself and of its version."""
    return EngineInfo(
        version=info["ServerVersion"],
        api_version=version["ApiVersion"],
        cgroup_version=int(info.get("CgroupVersion", 1)),
        live_restore=bool(info.get("LiveRestoreEnabled")),
        runtimes=tuple(sorted(info.get("Runtimes") or ())),
        cpus=info["NCPU"],
        memory=info["MemTotal"],
        architecture=info["Architecture"],
        data_root=info["DockerRootDir"],
        user_namespaces=any(
            option.startswith(USER_NAMESPACE_OPTIONS) for option in info.get("SecurityOptions") or ()
        ),
    )


def state_of(data: Mapping[str, Any]) -> ContainerState:
    """Return what an inspection says of a container."""
    state = data["State"]
    networks = data.get("NetworkSettings", {}).get("Networks") or {}
    return ContainerState(
        id=data["Id"],
        name=data["Name"].removeprefix("/"),
        image=data["Image"],
        labels=data["Config"].get("Labels") or {},
        running=state["Running"],
        pid=state["Pid"],
        paused=bool(state.get("Paused")),
        exit_code=state["ExitCode"] if state["Status"] in ("exited", "dead") else None,
        oom_killed=state["OOMKilled"],
        addresses={name: end["IPAddress"] for name, end in networks.items() if end.get("IPAddress")},
        volumes=tuple(
            mount["Destination"] for mount in data.get("Mounts") or () if mount["Type"] == "volume"
        ),
    )


def image_of(data: Mapping[str, Any]) -> Image:
    """Return an image, of an inspection or of an entry of the list, which says less."""
    config = data.get("Config") or {}
    labels = config.get("Labels") if "Config" in data else data.get("Labels")
    tags = tuple(tag for tag in data.get("RepoTags") or () if tag != "<none>:<none>")
    volumes = tuple(sorted(config.get("Volumes") or ()))
    variables = frozenset(entry.partition("=")[0] for entry in config.get("Env") or ())
    return Image(
        data["Id"],
        tags,
        labels or {},
        data["Size"],
        volumes,
        variables,
        user=config.get("User") or "",
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
    )


def network_of(data: Mapping[str, Any]) -> Network:
    """Return a network."""
    bridge = (data.get("Options") or {}).get(BRIDGE_NAME, "")
    return Network(id=data["Id"], name=data["Name"], bridge=bridge, labels=data.get("Labels") or {})


def event_of(data: Mapping[str, Any]) -> ContainerEvent:
    """Return an event of a container."""
    attributes = data["Actor"].get("Attributes") or {}
    exit_code = attributes.get("exitCode")
    return ContainerEvent(
        id=data["Actor"]["ID"],
        action=data["Action"],
        labels=attributes,
        exit_code=int(exit_code) if exit_code is not None else None,
    )
