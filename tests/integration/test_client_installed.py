"""hearth-client, installed from its wheel in a virtual environment of its own, calls a real gateway."""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import Gateway, handler
from packaging.utils import canonicalize_name

from pool import __version__
from tests.support.other_venv import OtherVenv, build_wheel, closure

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
LINKED = {
    "hearth/_shim.py": "runtimes/python/shim.py",
    "hearth/_answer_headers.py": "gateway/http/answer_headers.py",
    "hearth/_version.py": "pool/__init__.py",
}
"""Files of the wheel that are Hearth's own."""
PAGE = (ROOT / "docs" / "client.md").read_text()
OF_TESTS = re.compile(r"def (handle|test_)")
FUNCTION = {"runtime": "python", "source": ".", "handler": "handler:handle"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT / "clients" / "python", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory, wheel: Path) -> OtherVenv:
    made = OtherVenv(tmp_path_factory.mktemp("other") / "venv")
    made.add("httpx")
    made.install(wheel)
    return made


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "hello": handler((ROOT / "functions/hello/handler.py").read_text()),
        "countdown": handler(
            (ROOT / "functions/countdown/handler.py").read_text() + "\n\nhandle = countdown\n"
        ),
    }
    with Gateway(tmp_path_factory.mktemp("served"), functions) as running:
        yield running


def clean(**variables: str) -> dict[str, str]:
    """The environment without Hearth's and Python's own variables."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HEARTH", "PYTHON"))}
    return {**kept, **variables}


def test_the_wheel_has_hearth_s_own_files_and_version(wheel: Path) -> None:
    assert wheel.name == f"hearth_client-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        for name, place in LINKED.items():
            assert archive.read(name) == (ROOT / place).read_bytes()
        modules = {path.name for path in (ROOT / "clients/python/hearth").glob("*.py")}
        assert {
            name.removeprefix("hearth/") for name in archive.namelist() if name.startswith("hearth/")
        } == {
            *modules,
            "py.typed",
        }


def test_it_brings_httpx_and_nothing_of_hearth(other: OtherVenv) -> None:
    assert other.names() == {"hearth-client", *(canonicalize_name(each.name) for each in closure("httpx"))}
    printed = other.run("-c", "import hearth, sys; print(*sys.modules)", env=clean(), cwd="/").stdout.split()
    assert "hearth" in printed and {"gateway", "scheduler", "pool", "runtimes", "pytest"}.isdisjoint(printed)


def test_the_example_calls_a_gateway(other: OtherVenv, gateway: Gateway) -> None:
    done = other.run(ROOT / "examples/client/calls.py", env=clean(HEARTH_URL=gateway.url), cwd="/")
    assert done.returncode == 0, done.stdout
    assert re.sub(r"[0-9a-f]{32}", "ID", done.stdout).splitlines() == [
        "call: {'message': 'Hello, Ada!'}",
        "start: warm id: ID",
        "event: 2",
        "event: 1",
        "event: 0",
        "map: Hello, Ada!",
        "map: Hello, Grace!",
        "map: Hello, Edsger!",
        "submitted: ID",
        "result: {'message': 'Hello, later!'}",
        "error: No such function (404, blame: caller): there is no function 'helo'; GET /functions lists them",
    ]


def test_what_the_page_shows_works(other: OtherVenv, gateway: Gateway) -> None:
    shown = [block for block in blocks() if not OF_TESTS.search(block)]
    done = other.run("-c", "\n".join(shown), env=clean(HEARTH_URL=gateway.url), cwd="/")
    assert done.returncode == 0, done.stdout
    assert "{'message': 'Hello, Ada!'}" in done.stdout


def test_tests_with_the_fixture(other: OtherVenv, tmp_path: Path) -> None:
    """The tests that the page shows run on a real gateway and in memory, with what pytest finds by itself."""
    other.add("pytest")
    code, *tests = [block for block in blocks() if OF_TESTS.search(block)]
    (tmp_path / "handler.py").write_text(code)
    for number, test in enumerate(tests):
        (tmp_path / f"test_{number}.py").write_text(test)
    (tmp_path / "functions.yaml").write_text(json.dumps({"version": 1, "functions": {"greet": FUNCTION}}))
    hearth = Path(sys.executable).with_name("hearth")
    pytest_command = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    done = other.run(*pytest_command, env=clean(HEARTH_COMMAND=str(hearth)), cwd=tmp_path)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout
    missing = other.run(*pytest_command, env=clean(PATH="/nowhere"), cwd=tmp_path)
    assert "there is no command `hearth` to start a gateway with: install hearth-faas" in missing.stdout
    assert "3 passed" in missing.stdout and "Traceback" not in missing.stdout


def blocks() -> list[str]:
    """The Python code of the page."""
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
