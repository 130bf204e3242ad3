"""The engine of `hearth dev --no-container`."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from pool.engine.base import Image
from pool.engine.plain.process_engine import ProcessEngine, ProcessSettings
from scheduler.deploy.images.runtimes import PYTHON_LABEL, RUNTIMES

PLAIN_IMAGE = f"sha256:{'0' * 64}"
"""Id of the image that stands for the Python of this process."""


def plain_engine(data_folder: Path) -> ProcessEngine:
    """Return an engine that runs handlers with the Python of this process, and keeps their code in a data folder."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    image = Image(PLAIN_IMAGE, (RUNTIMES["python"],), {PYTHON_LABEL: python}, size=0)
    shim = find_spec("runtimes.python.shim")
    assert shim is not None and shim.origin is not None
    return ProcessEngine(ProcessSettings(data_folder / "processes", Path(shim.origin), image))
