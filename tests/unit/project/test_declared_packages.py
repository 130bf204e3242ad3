"""The packages that production code imports, and what it uses of them that they do not promise.

The rest of a package may change as it likes: its version is open. A package whose private names are used is pinned
to the minor versions that were tested.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import packages_distributions, version
from pathlib import Path

import httptools
import pytest
import uvicorn
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

ROOT = Path(__file__).parents[3]
SERVING = ("gateway", "scheduler", "pool", "deploy")
"""Floors that run with the dependencies of `make serve`."""
OWN = {*SERVING, "runtimes", "bench"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


PROTOCOL = words(
    "access_log access_logger connection_lost connection_made connections cycle data_received expect_100_continue "
    "flow headers logger loop on_body on_header on_headers_complete on_message_begin on_message_complete "
    "on_response_complete parser pause_writing pipeline resume_writing scope server_state shutdown "
    "timeout_keep_alive timeout_keep_alive_handler timeout_keep_alive_task transport url "
    "_start_asgi_task _unset_keepalive_if_required"
)
"""Names of uvicorn's HttpToolsProtocol that its subclasses in gateway/edge use."""
CYCLE = words(
    "body disconnected keep_alive message_event more_body response_complete response_started scope "
    "waiting_for_100_continue"
)
"""Names of uvicorn's RequestResponseCycle that the gateway uses."""
CYCLE_ARGUMENTS = words(
    "scope transport flow logger access_logger access_log default_headers message_event expect_100_continue "
    "keep_alive on_response"
)
"""Arguments that `FastPathProtocol.take_long_way` makes such a cycle with."""
FLOW = words("pause_reading read_paused resume_reading write_paused")
"""Names of uvicorn's FlowControl that the gateway uses."""
SERVER = words("capture_signals serve should_exit")
"""Names of uvicorn's Server that ours overrides or uses."""
PARSER = words(
    "feed_data get_http_version get_method set_dangerous_leniencies should_keep_alive should_upgrade"
)
"""Names of httptools' HttpRequestParser."""
UNDERSCORED: dict[str, str] = {}
"""Every other underscored name of a package that production code uses, and the class that has it."""
PINNED = ("uvicorn", "httptools")
NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}


def trees(*floors: str) -> Iterator[tuple[Path, ast.Module]]:
    """Every module of these floors, parsed."""
    for floor in floors:
        for path in sorted((ROOT / floor).rglob("*.py")):
            yield path.relative_to(ROOT), ast.parse(path.read_text())


def imported(*floors: str) -> dict[str, set[str]]:
    """Third-party packages that the floors import, by top-level name, and the modules that do."""
    found: dict[str, set[str]] = defaultdict(set)
    for path, tree in trees(*floors):
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in {name.partition(".")[0] for name in names}:
                if name not in sys.stdlib_module_names and name not in OWN and name != "tests":
                    found[name].add(str(path))
    return found


def declared(*extras: str) -> dict[str, Requirement]:
    """Distributions that pyproject.toml declares for serving and in these extras."""
    lines = [
        *PROJECT["dependencies"],
        *(line for extra in extras for line in PROJECT["optional-dependencies"][extra]),
    ]
    return {canonicalize_name(one.name): one for one in map(Requirement, lines)}


@pytest.mark.parametrize(
    ("floors", "extras"),
    [(SERVING, ("redis", "nats", "mqtt", "schema")), (("bench",), ("bench",))],
    ids=["serving", "bench"],
)
def test_every_package_that_is_imported_is_declared(floors: tuple[str, ...], extras: tuple[str, ...]) -> None:
    distributions, known = packages_distributions(), declared(*extras)
    assert imported(*floors), "the scan finds nothing"
    missing = {
        name: sorted(modules)
        for name, modules in imported(*floors).items()
        if not {canonicalize_name(one) for one in distributions.get(name, [name])} & set(known)
    }
    assert missing == {}


@pytest.mark.parametrize("package", PINNED)
def test_a_package_whose_private_names_are_used_is_pinned_to_tested_minor_versions(package: str) -> None:
    specifier = declared()[package].specifier
    assert version(package) in specifier
    major, minor, *_ = map(int, re.findall(r"\d+", version(package)))
    assert f"{major}.{minor + 1}.0" not in specifier
    assert f"{major}.{minor - 1}.0" not in specifier


# -- names that packages do not promise ---------------------------------------------------------------------------


async def application(scope: object, receive: object, send: object) -> None:
    """An ASGI application that is never called."""


def protocol() -> HttpToolsProtocol:
    """One of uvicorn's, as its server makes it, at the beginning of a request."""
    made = HttpToolsProtocol(uvicorn.Config(application, loop="none", log_config=None), ServerState(), {})
    made.on_message_begin()
    return made


def cycle() -> RequestResponseCycle:
    """One of uvicorn's, with the arguments that the fast path gives."""
    return RequestResponseCycle(**dict.fromkeys(CYCLE_ARGUMENTS))


async def test_the_installed_packages_have_every_name_that_is_used() -> None:
    has = {
        "protocol": (PROTOCOL, set(dir(protocol()))),
        "cycle": (CYCLE, set(dir(cycle()))),
        "cycle's arguments": (CYCLE_ARGUMENTS, set(inspect.signature(RequestResponseCycle).parameters)),
        "flow": (FLOW, set(dir(FlowControl(None)))),
        "server": (SERVER, set(dir(uvicorn.Server(protocol().config)))),
        "parser": (PARSER, set(dir(httptools.HttpRequestParser(None)))),
    }
    assert {what: used - names for what, (used, names) in has.items()} == {what: set() for what in has}
    assert STATUS_LINE[404] == b"HTTP/1.1 404 Not Found\r\n"
    for name, place in UNDERSCORED.items():
        module, _, owner = place.partition(":")
        source = inspect.getsource(getattr(importlib.import_module(module), owner))
        assert re.search(rf"\b{name}\b", source), f"{place} has no {name}"


def attributes(*modules: str, of_self: bool) -> set[str]:
    """Names that are looked up on `self` or `super()`, or on anything else, in these modules."""
    return {
        node.attr
        for module in modules
        for node in ast.walk(ast.parse((ROOT / module).read_text()))
        if isinstance(node, ast.Attribute) and is_own(node.value) is of_self
    }


def is_own(value: ast.expr) -> bool:
    """Return whether an expression is `self` or `super()`."""
    return ast.unparse(value) in ("self", "super()")


EDGE = [
    f"gateway/edge/{name}.py"
    for name in ("client_protocol", "fast_path", "one_write", "slices", "slow_reader")
]
CALL = "gateway/invoke/fast_call.py"


async def test_every_name_of_uvicorn_that_is_used_is_listed() -> None:
    ours_of_protocol, others = attributes(*EDGE, of_self=True), attributes(*EDGE, CALL, of_self=False)
    assert (ours_of_protocol & set(vars(protocol()))) - PROTOCOL == set()
    assert (ours_of_protocol & set(vars(HttpToolsProtocol))) - PROTOCOL == {"__init__"}
    assert (others & set(vars(cycle()))) - CYCLE - CYCLE_ARGUMENTS == set()
    assert (others & set(vars(FlowControl(None)))) - FLOW == set()
    assert {"more_body", "response_complete"} <= others, "the scan finds nothing"


def test_every_underscored_name_of_a_package_that_is_used_is_listed() -> None:
    """A name that our own code defines is ours."""
    ours, used = set(NAMED_TUPLE), defaultdict(set)
    for path, tree in trees("gateway", "scheduler", "pool"):
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                ours.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                ours.add(node.id)
            elif (
                isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.endswith("__")
            ):
                if is_own(node.value) and isinstance(node.ctx, ast.Store):
                    ours.add(node.attr)
                elif not is_own(node.value):
                    used[node.attr].add(str(path))
            elif isinstance(node, ast.ImportFrom) and re.search(r"\b_[a-z]", node.module or ""):
                used[str(node.module)].add(str(path))
    assert used, "the scan finds nothing"
    assert {name: sorted(paths) for name, paths in used.items() if name not in ours | set(UNDERSCORED)} == {}
