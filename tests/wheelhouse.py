"""A package index that is a folder, for tests of what pip is told: no network, no chance."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest


def wheel(
    folder: Path,
    name: str,
    tag: str = "py3-none-any",
    more: Mapping[str | zipfile.ZipInfo, bytes] | None = None,
) -> None:
    """Put a wheel of one module, named as the package, into a folder; `more` files are in it, as they are named."""
    facts = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": "ANSWER = 42\n",
        f"{facts}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{facts}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{facts}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-{tag}.whl", "w", zipfile.ZIP_DEFLATED) as archive:
        for entry, data in (more or {}).items():
            archive.writestr(entry, data)
        for path, content in {**files, f"{facts}/RECORD": record}.items():
            archive.writestr(path, content)


def only_index(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder the only place that pip looks in."""
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder
