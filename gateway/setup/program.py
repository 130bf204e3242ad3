"""The `hearth` command that runs now, for advice and for the service."""

from __future__ import annotations

import sys
from pathlib import Path


def program() -> list[str]:
    """Return the words of a command that runs `hearth` with this Python."""
    script = Path(sys.prefix) / "bin" / "hearth"
    return [str(script)] if script.exists() else [sys.executable, "-P", "-m", "gateway.cli"]
