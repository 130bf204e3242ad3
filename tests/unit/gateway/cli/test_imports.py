"""What commands import: a package too many costs each start time, and a gateway memory."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.utils import canonicalize_name

SERVING = {
    *(
        "aiohttp",
        "cloudevents",
        "cronsim",
        "fastapi",
        "fastapi-offline",
        "httptools",
        "jmespath",
        "prometheus-client",
    ),
    *("pydantic", "pydantic-core", "pydantic-settings", "pyyaml", "starlette", "uvicorn", "uvloop"),
}
"""Distributions that a gateway imports by itself when it starts."""
BROUGHT = {
    *(
        "aiohappyeyeballs",
        "aiosignal",
        "attrs",
        "frozenlist",
        "idna",
        "multidict",
        "propcache",
        "yarl",
    ),  # aiohttp
    *(
        "annotated-doc",
        "annotated-types",
        "anyio",
        "typing-extensions",
        "typing-inspection",
    ),  # fastapi, pydantic
    *("opentelemetry-api", "python-dateutil", "python-dotenv", "six", "watchfiles"),
}
"""Distributions that those import in turn."""


def imported(module: str) -> set[str]:
    """Return the distributions that a module imports in a process of its own, but for ours."""
    program = f"import sys, gateway.cli, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    known = packages_distributions()
    found = {canonicalize_name(known[name][0]) for name in done.stdout.split() if name in known}
    return found - {"hearth-faas", "setuptools"}  # setuptools finds the editable project


def test_a_gateway_imports_what_it_serves_with_and_nothing_else() -> None:
    """It calls nobody and draws nothing until it must: no httpx, no rich, no broker's client, no tool of tests."""
    found = imported("gateway.cli.commands.serving.serve")
    assert found >= {"aiohttp", "fastapi", "uvicorn"}, "the scan finds nothing"
    assert found - SERVING - BROUGHT - {"click"} == set()


@pytest.mark.parametrize("module", ["gateway.cli", "gateway.cli.commands.serving.setup"])
def test_help_and_setup_import_click_alone(module: str) -> None:
    assert imported(module) == {"click"}
