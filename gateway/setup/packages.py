"""Debian packages: installs those that setup needs, and removes those that it brought."""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path

Show = Callable[[str, float | None], None]

OUTPUT_TAIL = 2000
"""Characters of a failed apt-get that are shown; its reason is at the end."""
NEW = re.compile(r"^Inst (\S+) \(", re.M)
"""A package in a simulation that is not installed yet. One that is upgraded has its old version in brackets."""
GONE = re.compile(r"^(?:Purg|Remv) (\S+) ", re.M)
RELEASE = Path("/etc/os-release")


class PackagesError(Exception):
    """apt-get failed; the message is the end of its output."""


def is_debian() -> bool:
    """Return whether this machine runs Debian or Ubuntu."""
    facts = RELEASE.read_text() if RELEASE.exists() else ""
    return any(line in facts.replace('"', "").splitlines() for line in ("ID=debian", "ID=ubuntu"))


def install(names: Sequence[str], show: Show, note: Callable[[list[str]], None]) -> None:
    """Install packages. `note` is told the names of all that are new here, dependencies too, before they come.

    Raises `PackagesError`.
    """
    _apt_get(["update"], show)
    arguments = ["install", "-y", "--no-install-recommends", *names]
    note(_named(NEW, _simulated(arguments)))
    _apt_get(arguments, show)


def needed_by_others(names: Collection[str]) -> list[str]:
    """Return the installed packages outside `names` that need one of them. Raises `PackagesError`."""
    return [name for name in _named(GONE, _simulated(["purge", *names])) if name not in names]


def purge(names: Collection[str], show: Show) -> None:
    """Remove packages with their settings. Raises `PackagesError`."""
    _apt_get(["purge", "-y", *names], show)


def installed(names: Collection[str]) -> list[str]:
    """Return those of the packages that are installed."""
    command = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *names]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [name for name in names if f"{name} installed" in listed]


def _named(pattern: re.Pattern[str], simulation: str) -> list[str]:
    return [name.partition(":")[0] for name in pattern.findall(simulation)]


def _simulated(arguments: Sequence[str]) -> str:
    command = ["apt-get", "--simulate", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PackagesError(f"{' '.join(command)} failed:\n{(done.stderr or done.stdout)[-OUTPUT_TAIL:]}")
    return done.stdout


def _apt_get(arguments: Sequence[str], show: Show) -> None:
    """Run apt-get; its status lines (`pmstatus:package:percent:text`) tell how far it is."""
    reader, writer = os.pipe()
    process = subprocess.Popen(
        ["apt-get", "-qq", "-o", f"APT::Status-Fd={writer}", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        pass_fds=[writer],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    os.close(writer)

    def follow() -> None:
        with os.fdopen(reader, errors="replace") as status:
            for line in status:
                kind, _, percent, text = ([*line.rstrip().split(":", 3), "", "", ""])[:4]
                if kind in ("dlstatus", "pmstatus"):
                    with suppress(ValueError):
                        show(text, float(percent) / 100)

    follower = threading.Thread(target=follow, daemon=True)
    follower.start()
    output, _ = process.communicate()
    follower.join()
    if process.returncode != 0:
        raise PackagesError(f"apt-get {' '.join(arguments)} failed:\n{output[-OUTPUT_TAIL:]}")
