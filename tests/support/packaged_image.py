"""Images with real packages from the package index, made on the base image."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pool.engine.docker import DockerEngine
from pool.observe.metrics import Metrics
from scheduler.deploy.images.runtimes import BASE_IMAGE

DOCKERFILE = f"FROM {BASE_IMAGE}\nCOPY packages /packages\nENV PYTHONPATH=/packages HOME=/tmp\n"


def install(packages: Sequence[str], folder: Path) -> None:
    """Have pip install packages into a folder, as wheels."""
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-compile", "--only-binary", ":all:"]
    subprocess.run([*pip, "--target", folder, *packages], check=True)


def build(tag: str, labels: Mapping[str, str], folder: Path) -> str:
    """Build an image in whose Python the modules of a folder can be imported. Return its tag."""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        tar.add(folder, "packages")
        entry = tarfile.TarInfo("Dockerfile")
        entry.size = len(DOCKERFILE)
        tar.addfile(entry, io.BytesIO(DOCKERFILE.encode()))

    async def built() -> str:
        engine = DockerEngine(None, Metrics())
        try:
            return (await engine.build(context.getvalue(), tag, dict(labels))).tags[0]
        finally:
            await engine.close()

    return asyncio.run(built())
