"""How pip is told to fetch wheels for another Python and machine than those that it runs on."""

from __future__ import annotations

from pathlib import Path

MANYLINUX = (*(f"_2_{minor}" for minor in range(36, 4, -1)), "2014", "2010", "1")
"""Suffixes of the platforms whose wheels run on the runtime image (glibc 2.36 or later), the newest first."""


def pip_arguments(requirements: Path, target: Path, python: str, machine: str) -> list[str]:
    """Arguments of pip that install for another Python (`3.11`) and machine than those it runs on."""
    platforms = [f"--platform=manylinux{version}_{machine}" for version in MANYLINUX]
    return [
        *("install", "--disable-pip-version-check", "--no-input", "--quiet", "--no-compile"),
        "--only-binary=:all:",
        f"--target={target}",
        f"--python-version={python}",
        "--implementation=cp",
        *(f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")),
        *platforms,
        f"--platform=linux_{machine}",
        "--platform=any",
        f"--requirement={requirements}",
    ]
