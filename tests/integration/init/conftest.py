"""Every test of this folder runs with init as it is installed, with sanitizers, and for another machine."""

from __future__ import annotations

import pytest

from tests.support.init_builds import BUILDS, Program, native


@pytest.fixture(scope="module", params=BUILDS)
def program(request: pytest.FixtureRequest) -> Program:
    """Init in each of its builds."""
    return BUILDS[request.param]()


@pytest.fixture(scope="module")
def native_program() -> Program:
    """Init as it is installed, for what depends on the kernel only, or is measured."""
    return native()
