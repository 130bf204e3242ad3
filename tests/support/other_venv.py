"""A virtual environment beside ours, with few distributions, made without a package index."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement


class OtherVenv:
    """A virtual environment in a folder, with copies of distributions that are installed here."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, symlinks=True)
        self.folder = folder
        self.python = folder / "bin" / "python"
        self._packages = next(folder.glob("lib/python*/site-packages"))

    def add(self, name: str) -> None:
        """Copy a distribution that is installed here, with all that it needs."""
        for found in closure(name):
            for file in found.files or ():
                if ".." not in file.parts:  # a command in bin/ would be that of our Python
                    (self._packages / file).parent.mkdir(parents=True, exist_ok=True)
                    if Path(file.locate()).exists():
                        shutil.copy(file.locate(), self._packages / file)

    def install(self, wheel: Path) -> None:
        """Install a wheel as pip does it, without its dependencies, which must be there already."""
        pip = [sys.executable, "-m", "pip", "--python", str(self.python)]
        subprocess.run([*pip, "install", "-q", "--no-index", str(wheel)], check=True)

    def names(self) -> set[str]:
        """Return the names of what is installed."""
        folders = self._packages.glob("*.dist-info")
        return {re.sub(r"[-_.]+", "-", folder.name.partition("-")[0]).lower() for folder in folders}

    def run(
        self, *arguments: str | Path, env: Mapping[str, str], cwd: Path | str
    ) -> subprocess.CompletedProcess[str]:
        """Run its Python, and return what it printed on both streams."""
        return subprocess.run(
            [self.python, *arguments],
            env=env,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
        )


def closure(name: str) -> list[Distribution]:
    """Return a distribution that is installed here, and all that it needs, without extras."""
    found: dict[str, Distribution] = {}
    wanted = [name]
    while wanted:
        one = wanted.pop()
        if one in found:
            continue
        try:
            found[one] = distribution(one)
        except PackageNotFoundError:
            continue  # needed on other systems only
        for line in found[one].requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                wanted.append(needed.name)
    return list(found.values())


def build_wheel(source: Path, folder: Path) -> Path:
    """Build the wheel of a project into a folder, from a copy, and return it."""
    copy = folder / "source"
    shutil.copytree(source, copy)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "-w", str(folder), str(copy)], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
