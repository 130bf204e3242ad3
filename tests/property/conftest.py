"""These tests need Python only."""

from tests.support.no_engine import no_engine  # noqa: F401  (a fixture)
