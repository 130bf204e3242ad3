"""A place without an engine, for tests that need Python only: a slip must fail here, not on somebody's machine."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let whoever looks for an engine find none."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/engine.sock")
