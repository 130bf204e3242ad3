"""Arguments for pip to fetch wheels for the Python and the machine of a runtime image."""

from __future__ import annotations

from pathlib import Path

MANYLINUX = (*(f"_2_{minor}" for minor in range(36, 4, -1)), "2014", "2010", "1")
"""Suffixes of the platforms whose wheels run on the runtime image (glibc 2.36 or later), newest first."""


def pip_arguments(requirements: Path, target: Path, python: str, machine: str) -> list[str]:
    """Return pip's arguments to install for this Python (`3.11`) and machine, whatever pip itself runs on."""
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
