"""Named volumes: one file is put into one, through a container that is never started."""

from __future__ import annotations

import base64
import io
import json
import tarfile

from pool.engine.base import VolumeFile
from pool.engine.docker_api import DockerApi, EngineRefused

TARGET = "/volume"
STAT = "X-Docker-Container-Path-Stat"
"""Field of an answer that describes a file: JSON in base64."""


async def fill(api: DockerApi, wanted: VolumeFile, image: str) -> None:
    """Make a volume unless it is there, with its file. Raises as requests of the API do.

    The root of the container is writable, else the engine refuses to write into it.
    """
    mount = {"Type": "volume", "Source": wanted.volume, "Target": TARGET, "VolumeOptions": {"NoCopy": True}}
    config = {
        "Image": image,
        "Entrypoint": ["/never-started"],
        "NetworkDisabled": True,
        "Labels": dict(wanted.labels),
        "HostConfig": {"Mounts": [mount]},
    }
    await api.call("POST", "/volumes/create", body={"Name": wanted.volume, "Labels": dict(wanted.labels)})
    container = str((await api.call("POST", "/containers/create", body=config))["Id"])
    archive = f"/containers/{container}/archive"
    try:
        # A whole one is left alone: containers of other gateways may be starting with it.
        if await _size(api, archive, f"{TARGET}/{wanted.file}") != len(wanted.content):
            async with api.stream("PUT", archive, {"path": TARGET}, data=_packed(wanted)):
                pass
    finally:
        await api.call("DELETE", f"/containers/{container}", {"force": "true"})


async def _size(api: DockerApi, archive: str, path: str) -> int | None:
    """Return the size of a file in a container, or None if it is not there."""
    try:
        async with api.stream("HEAD", archive, {"path": path}) as response:
            return int(json.loads(base64.b64decode(response.headers[STAT]))["size"])
    except EngineRefused as error:
        if error.status != 404:
            raise
        return None


def _packed(wanted: VolumeFile) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        entry = tarfile.TarInfo(wanted.file)
        entry.size, entry.mode = len(wanted.content), 0o755
        tar.addfile(entry, io.BytesIO(wanted.content))
    return packed.getvalue()
