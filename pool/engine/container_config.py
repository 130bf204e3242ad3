"""Translates a `ContainerSpec` for the Docker Engine API: a pure function, where all the hardening is."""

from __future__ import annotations

from typing import Any

from pool.engine.base import ContainerSpec, Mount

TMP = "/tmp"  # noqa: S108  a path inside the container; every container has a tmpfs there

ENGINE_SHM_BYTES = 64 * 2**20
"""Size that the engine gives /dev/shm by itself. It is not said, so containers look as those of earlier releases."""


def container_config(spec: ContainerSpec) -> dict[str, Any]:
    """Return the body of the API's create call for a container, hardening included."""
    host: dict[str, Any] = {
        "Memory": spec.memory,
        "MemorySwap": spec.memory,  # memory and swap together: no swap
        "NanoCpus": nano_cpus(spec.cpus),
        "PidsLimit": spec.pids,
        "Ulimits": [{"Name": "nofile", "Soft": spec.nofile, "Hard": spec.nofile}],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": True,
        "Tmpfs": _tmpfs_mounts(spec),
        "Mounts": [_mount(mount) for mount in spec.mounts],
        # Two files: the engine drops a full one, so one file alone would be empty at times.
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "512k", "max-file": "2"}}
        if spec.keep_output
        else {"Type": "none"},
    }
    if spec.capabilities:
        host["CapAdd"] = [name.upper() for name in spec.capabilities]
    if spec.shm_size != ENGINE_SHM_BYTES:
        host["ShmSize"] = spec.shm_size
    if spec.cpu_shares is not None:
        host["CpuShares"] = spec.cpu_shares
    if spec.network is not None:
        host["NetworkMode"] = spec.network
    if spec.sandbox is not None:
        host["Runtime"] = spec.sandbox
    config: dict[str, Any] = {
        "Image": spec.image,
        "Labels": dict(spec.labels),
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        # Without a NetworkMode the engine makes an empty namespace itself, twice as fast as with `none`.
        "NetworkDisabled": spec.network is None,
        # PID 1 ignores SIGTERM unless it handles it; then every stop would take its whole ten seconds.
        "StopSignal": "SIGKILL",
        # The image's own check would run programs in the container without our knowledge, even in a frozen one.
        "Healthcheck": {"Test": ["NONE"]},
        "OpenStdin": spec.stdin,
        "StdinOnce": spec.stdin and not spec.stdin_stays,
        "AttachStdin": spec.stdin,
        "HostConfig": host,
    }
    if spec.hostname is not None:
        config["Hostname"] = spec.hostname
    if spec.tty:
        config["Tty"] = True
    if spec.entrypoint is not None:
        config["Entrypoint"] = list(spec.entrypoint)
    if spec.command is not None:
        config["Cmd"] = list(spec.command)
    if spec.user is not None:
        config["User"] = spec.user
    return config


def _mount(mount: Mount) -> dict[str, Any]:
    kind = "bind" if mount.source.startswith("/") else "volume"
    return {"Type": kind, "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}


def _tmpfs_mounts(spec: ContainerSpec) -> dict[str, str]:
    """Return the options of each tmpfs, by path. The engine makes no volume at the path of a tmpfs."""
    mounted = {mount.target for mount in spec.mounts}
    volumes = {v.path: _tmpfs(v.size, spec.user or v.owner) for v in spec.volumes if v.path not in mounted}
    given = {path: _tmpfs(size, spec.user) for path, size in ((TMP, spec.tmp_size), *spec.writable)}
    return volumes | given


def _tmpfs(size: int, user: str | None) -> str:
    # `exec` as on any other system: some images unpack libraries there. Forbidding it would protect nothing,
    # since a container can interpret a program that it may not execute.
    options = [f"size={size}", "mode=1777", "nosuid", "nodev", "exec"]
    # If the image has a folder at the path, runc gives the tmpfs the folder's mode. So it must belong to the user.
    # A user given by name cannot own it: only the image knows the number.
    uid, _, gid = (user or "").partition(":")
    if uid.isdecimal():
        options.append(f"uid={uid}")
    if (gid or uid).isdecimal():
        options.append(f"gid={gid or uid}")
    return ",".join(options)


def nano_cpus(cpus: float) -> int:
    """Return CPUs in the unit of the API, billionths."""
    return round(cpus * 1e9)
