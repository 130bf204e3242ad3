"""Text of functions and callers, made fit for a line."""

from __future__ import annotations

import pytest

from gateway.http.visible import shortened


@pytest.mark.parametrize("size", [0, 99, 100])
def test_a_short_text_stays(size: int) -> None:
    assert shortened("x" * size, 100) == "x" * size


@pytest.mark.parametrize("size", [101, 1000, 10_000_000])
def test_a_long_text_keeps_its_begin_and_its_end(size: int) -> None:
    text = f"<{'x' * (size - 2)}>"
    cut = shortened(text, 100)
    assert len(cut) <= 100
    assert cut.startswith("<xxx") and cut.endswith("xxx>")
    assert f"({size - 60} characters left out)" in cut
