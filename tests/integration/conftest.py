"""Failures of these tests show the logs of the gateways that were running."""

import pytest

pytest.register_assert_rewrite("harness")

from chromium import browser  # noqa: E402, F401  (a fixture)
from harness import pytest_runtest_makereport  # noqa: E402, F401  (a hook: pytest finds it here)
