"""The program init, the first process of containers: where it is installed, and where engines mount it."""

from __future__ import annotations

import hashlib
import platform
import shutil
import tempfile
from pathlib import Path
from typing import NamedTuple

INSTALLED = Path(__file__).resolve().parents[2] / "runtimes" / "init" / "bin"
"""Holds the program for each machine. Wheels of a release carry them; in a checkout `hearth setup` builds one."""
MACHINES = ("x86_64", "aarch64")
"""Machines for which there is an init, named as the kernel names them."""


class InitMissing(Exception):
    """No init program is installed for a machine; the message says what to do."""


class PlacedInit(NamedTuple):
    """The init program in a folder that containers mount."""

    folder: Path
    """Holds `init` and nothing else."""
    digest: str
    """Short digest of the program, in the folder's name too."""


def file_name(machine: str) -> str:
    """Return the name of the installed program for a machine."""
    return f"init-{machine}"


def installed_init(machine: str | None = None, installed: Path = INSTALLED) -> Path:
    """Return the installed program for a machine, by default this one. Raises `InitMissing`."""
    machine = machine or platform.machine()
    program = installed / file_name(machine)
    if not program.is_file():
        step = "run `hearth setup`" if machine in MACHINES else f"it exists for {' and '.join(MACHINES)}"
        raise InitMissing(f"there is no init program for {machine}; {step}")
    return program


def place_init(folder: Path, installed: Path = INSTALLED) -> PlacedInit:
    """Copy the program into a folder of its own in `folder`, and return that.

    The engine mounts parts of the data folder, but need not see where we are installed. Older programs stay, as
    containers may mount them. Raises `InitMissing`, OSError.
    """
    program = installed_init(installed=installed)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()[:16]
    place = folder / digest
    if not (place / "init").exists():
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)
        unfinished = Path(tempfile.mkdtemp(dir=folder))
        unfinished.chmod(0o755)  # the user of a container must be able to run what is in it
        shutil.copyfile(program, unfinished / "init")
        (unfinished / "init").chmod(0o755)
        unfinished.rename(place)
    return PlacedInit(place, digest)
