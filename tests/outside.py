"""Hearth as its users have it: installed from its wheel into a fresh virtual environment, outside of any checkout."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution
from pathlib import Path

from harness import eventually
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("gateway", "scheduler", "pool", "runtimes", "pyproject.toml", "README.md", "LICENSE")
"""Everything that the wheel of Hearth is made of."""


def build_wheel(folder: Path, root: Path = ROOT, sources: Sequence[str] = SOURCES) -> Path:
    """Return a wheel of the project in `root`, built from a copy: pip builds in the folder that it is given."""
    copy, wheels = folder / f"{root.name}-source", folder / "wheels"
    for name in sources:
        if (root / name).is_dir():
            shutil.copytree(root / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            copy.mkdir(exist_ok=True)
            shutil.copy(root / name, copy)
    known = set(wheels.glob("*.whl"))
    pip("wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={wheels}", str(copy))
    (made,) = set(wheels.glob("*.whl")) - known
    return made


def pip(*arguments: str) -> None:
    """Run the pip of these tests. It reaches no index."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stderr + done.stdout


def needed_by(found: Distribution) -> dict[str, Distribution]:
    """Return all that a distribution says it needs, and what that needs, by name. Extras are not followed."""
    closure: dict[str, Distribution] = {}
    open_ends = [(requirement, "") for requirement in found.requires or []]
    while open_ends:
        text, extra = open_ends.pop()
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        there = closure.setdefault(name, distribution(name))
        assert there.version in requirement.specifier, f"{requirement}, but {there.version} is installed"
        for extra in {"", *requirement.extras}:
            known = [(more, extra) for more in there.requires or []]
            open_ends += [end for end in known if canonicalize_name(Requirement(end[0]).name) not in closure]
    return closure


class Outside:
    """A virtual environment with one wheel and what it declares, in a folder with nothing else of ours."""

    def __init__(self, folder: Path, wheel: Path, **environment: str) -> None:
        self.folder = folder
        self.bin = folder / "venv" / "bin"
        self.environment = {
            **{
                name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "HEARTH"))
            },
            **environment,
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
        }
        folder.mkdir(parents=True, exist_ok=True)
        venv.create(folder / "venv", symlinks=True)
        pip("--python", str(self.bin / "python"), "install", "--no-deps", "--no-compile", str(wheel))
        self._copy_needed(wheel.name.partition("-")[0])

    def _copy_needed(self, name: str) -> None:
        """Copy what the wheel declares from the environment of these tests: that costs no download."""
        (site,) = (self.folder / "venv" / "lib").glob("python*/site-packages")
        (facts,) = site.glob(f"{name}-*.dist-info")
        for needed in needed_by(Distribution.at(facts)).values():
            for file in needed.files or []:
                if ".." not in file.parts and Path(str(file.locate())).exists():
                    target = site / file
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(str(file.locate()), target)

    def run(self, *words: str, status: int = 0, given: str = "", **environment: str) -> str:
        """Run a program of the environment in the folder, and return what it prints, on stdout and stderr."""
        done = subprocess.run(
            [self.bin / words[0], *words[1:]],
            cwd=self.folder,
            env={**self.environment, **environment},
            input=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        assert done.returncode == status, f"{words} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    @contextmanager
    def running(self, *words: str, until: str, prefix: Sequence[str] = ()) -> Iterator[RunningProgram]:
        """Run a program until the end of the block, from when it has printed `until`."""
        running = RunningProgram(self, [*prefix, str(self.bin / words[0]), *words[1:]])
        try:
            eventually(lambda: running.says(until), 60)
            yield running
        finally:
            running.end()


class RunningProgram:
    """A program of an environment that runs beside the test."""

    def __init__(self, outside: Outside, command: Sequence[str]) -> None:
        self._output = outside.folder / f"output-{len(list(outside.folder.glob('output-*')))}"
        with self._output.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                cwd=outside.folder,
                env={**outside.environment, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def output(self) -> str:
        """Return all that it has printed so far."""
        return self._output.read_text()

    def says(self, text: str) -> bool:
        """Return whether it has printed a text. It must still run."""
        assert self._process.poll() is None or text in self.output, self.output
        return text in self.output

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and return its exit status. Safe to call twice."""
        if self._process.poll() is None:
            self._process.send_signal(number)
        return self._process.wait(60)
