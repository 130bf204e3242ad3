"""Parts of the gateway's own image: our code, and what it depends on as wheels for the image's Python."""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from gateway.setup.slim import slim
from scheduler.deploy.images.pip_wheels import pip_arguments

RECIPE = Path(__file__).with_name("recipes") / "gateway"
PACKAGES = ("gateway", "scheduler", "pool", "runtimes")
EXTRAS = ("redis", "nats", "mqtt", "schema")
"""In an image nobody adds a package later: what sources of messages need is there."""
PINNED_BY = ("pyproject.toml", "constraints.txt")


class DependenciesError(Exception):
    """pip could not fetch the gateway's dependencies; the message is the end of what it said."""


def code(root: Path) -> dict[str, Path]:
    """Return the file of each name in the build context: the recipe, our code, and the pins."""
    files = {name: root / name for name in PINNED_BY}
    files.update({path.name: path for path in _files(RECIPE)})
    for package in PACKAGES:
        files.update({str(path.relative_to(root)): path for path in _files(root / package)})
    return files


def dependencies(root: Path, python: str) -> dict[str, Path]:
    """Name in the build context to file of every dependency.

    They are fetched once for each set of pins, into build/gateway. `python`: version, as `3.11`.
    Raises `DependenciesError`.
    """
    machine = platform.machine()
    made_by = (*(root / name for name in PINNED_BY), Path(__file__).with_name("slim.py"))
    pins = b"\0".join(path.read_bytes() for path in made_by)
    digest = hashlib.sha256(pins + f"{python} {machine}".encode()).hexdigest()[:16]
    target = root / "build" / "gateway" / digest
    if not target.exists():
        shutil.rmtree(target.parent, ignore_errors=True)  # earlier pins are of no more use
        unfinished = target.with_suffix(".unfinished")
        unfinished.mkdir(parents=True)
        _fetch(root, unfinished, python, machine)
        slim(unfinished)
        unfinished.rename(target)
    return {f"packages/{path.relative_to(target)}": path for path in _files(target)}


def _fetch(root: Path, target: Path, python: str, machine: str) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    extras = (package for extra in EXTRAS for package in project["optional-dependencies"][extra])
    wanted = [*project["dependencies"], *extras]
    requirements = target.with_suffix(".txt")
    requirements.write_text("\n".join(wanted))
    pip = [sys.executable, "-m", "pip", *pip_arguments(requirements, target, python, machine)]
    done = subprocess.run([*pip, f"--constraint={root / 'constraints.txt'}"], capture_output=True, text=True)
    if done.returncode != 0:
        raise DependenciesError(f"pip failed:\n{done.stderr[-2000:]}")


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
