"""The tests of tests/unit and tests/property need neither an engine nor valgrind nor a browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.setup.engine_api import EngineApi, EngineSilentError

TESTS = Path(__file__).parents[2]
NEEDS = re.compile(
    r"mark\.engine|tests\.support\.callgrind|^from (chromium|own_engine|brokers) |\bdocker_engine\b",
    re.M,
)
"""Marks, modules and fixtures of tests that need more than Python."""


def test_an_engine_that_is_there_is_not_found() -> None:
    with pytest.raises(EngineSilentError, match="nonexistent"):
        EngineApi().ping()


@pytest.mark.parametrize("folder", ["unit", "property"])
def test_no_test_names_what_needs_more(folder: str) -> None:
    others = [path for path in (TESTS / folder).rglob("*.py") if path != Path(__file__)]
    assert len(others) > 10
    assert [str(path) for path in others if NEEDS.search(path.read_text())] == []
    assert NEEDS.search((TESTS / "integration" / "test_warm_call_cost.py").read_text()), (
        "the scan finds nothing"
    )
