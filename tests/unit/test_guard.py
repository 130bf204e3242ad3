"""A gateway on loopback without keys answers programs of this machine, and no foreign web page."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.guard import Guard, is_loopback, name_of


def scope(
    host: str | None = "127.0.0.1:8080", method: str = "POST", path: str = "/invoke/f", **headers: str
) -> Any:
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    if host is not None:
        fields.insert(0, (b"host", host.encode("latin-1")))
    return {"headers": fields, "method": method, "path": path}


def refused(guard: Guard, request: Any) -> bool:
    fault = guard.fault(request)
    assert fault is None or fault.status == 403
    return fault is not None


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8080", "127.0.0.1", "localhost:8080", "LOCALHOST", "[::1]:8080", "[::1]", "my.box:1"]
)
def test_own_names(host: str) -> None:
    assert not refused(Guard("127.0.0.1", ["My.Box"]), scope(host))


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:8080",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "127.0.0.1@evil.example",
        "[::1",
        "[evil]",
        "\xff",
    ],
)
def test_names_that_were_made_to_point_here(host: str | None) -> None:
    guard = Guard("127.0.0.1")
    for _ in range(2):  # the second time it may be remembered
        assert refused(guard, scope(host))


def test_right_names_are_remembered_boundedly() -> None:
    guard = Guard("127.0.0.1")
    for port in range(1000):
        assert not refused(guard, scope(f"localhost:{port}"))
    assert len(guard._known) <= 64


@pytest.mark.parametrize(
    ("origin", "is_refused"),
    [
        ("http://127.0.0.1:8080", False),
        ("HTTP://127.0.0.1:8080", False),
        ("http://127.0.0.1:3000", True),
        ("http://localhost:8080", True),
        ("http://evil.example", True),
        ("null", True),
        ("", True),
        ("http://[", True),
    ],
)
def test_origins(origin: str, is_refused: bool) -> None:
    assert refused(Guard("127.0.0.1"), scope(origin=origin)) is is_refused


@pytest.mark.parametrize(
    ("site", "method", "path", "is_refused"),
    [
        ("same-origin", "POST", "/invoke/f", False),
        ("none", "GET", "/invoke/f", False),
        ("cross-site", "POST", "/invoke/f", True),
        ("same-site", "POST", "/invoke/f", True),
        ("cross-site", "GET", "/invoke/f", True),
        ("cross-site", "GET", "/docs", False),
        ("cross-site", "HEAD", "/docs", False),
        ("cross-site", "DELETE", "/pool/instances/0", True),
    ],
)
def test_sites(site: str, method: str, path: str, is_refused: bool) -> None:
    assert refused(Guard("127.0.0.1"), scope(method=method, path=path, sec_fetch_site=site)) is is_refused


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.2", "::", "gateway.example"])
def test_it_stands_down_where_others_are_meant_to_reach_the_gateway(host: str) -> None:
    assert not refused(Guard(host), scope("anything.example", origin="http://evil.example"))


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("a", False),
    ],
)
def test_is_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(("host", "name"), [(b"A.b:80", "a.b"), (b"[::1]:80", "::1"), (b"", ""), (b"[", "")])
def test_name_of(host: bytes, name: str) -> None:
    assert name_of(host) == name
