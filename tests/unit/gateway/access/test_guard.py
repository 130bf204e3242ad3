"""A gateway on loopback without keys answers programs of this machine, and no foreign web page."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.guard import Guard, authority_of, host_names, is_origin_of


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
    "host",
    [
        "127.0.0.1:8080",
        "127.0.0.1",
        "localhost:8080",
        "LOCALHOST",
        "[::1]:8080",
        "[::1]",
        "[0:0::1]:80",
        "my.box:1",
        "localhost:65535",
    ],
)
def test_own_names(host: str) -> None:
    assert not refused(Guard("127.0.0.1", ["My.Box", "fd00:0::A"]), scope(host))


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
        "localhost/evil",
        "localhost?evil",
        "localhost#",
        "localhost\\",
        "localhost;a",
        "user@localhost",
        "@localhost",
        "evil:80@localhost",
        "LOCALHOST:80:80",
        "localhost:",
        "localhost:0",
        "localhost:65536",
        "localhost:99999999999",
        "localhost:+80",
        "localhost:8_0",
        "localhost:\xb2",
        "localhost:80 ",
        " localhost",
        "local\thost",
        "localhost.",
        "localhost,evil.example",
        "%6cocalhost",
        "localhost%00",
        "loc\u017falhost".encode().decode("latin-1"),
        "0x7f.1",
        "127.1",
        "2130706433",
        "127.000.000.001",
        "::1",
        "::1:80",
        "[::1",
        "[::1]80",
        "[::1]]",
        "[::1%25lo]",
        "[::ffff:127.0.0.1]",
        "[127.0.0.1]",
        "[localhost]",
    ],
)
def test_names_that_were_made_to_point_here(host: str | None) -> None:
    guard = Guard("127.0.0.1")
    for _ in range(2):  # the second time it may be remembered
        assert refused(guard, scope(host))


def test_right_names_are_remembered_boundedly() -> None:
    guard = Guard("127.0.0.1")
    for port in range(1, 1000):
        assert not refused(guard, scope(f"localhost:{port}"))
    assert guard.remembered_hosts <= 64


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
        ("http://127.0.0.1:8080/", True),
        ("http://127.0.0.1:8080?", True),
        ("http://127.0.0.1:8080:8080", True),
        ("http://user@127.0.0.1:8080", True),
        ("http://127.0.0.1:08080 ", True),
        ("http://127.0.0.1:8080, http://evil.example", True),
        ("http://127.0.0.1", True),
        ("ftp://127.0.0.1:8080", True),
        ("//127.0.0.1:8080", True),
        ("file://", True),
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


def test_every_origin_is_looked_at_and_not_only_the_last() -> None:
    request = scope(origin="http://127.0.0.1:8080")
    request["headers"].insert(1, (b"origin", b"http://evil.example"))
    assert refused(Guard("127.0.0.1"), request)
    request = scope(sec_fetch_site="same-origin")
    request["headers"].insert(1, (b"sec-fetch-site", b"cross-site"))
    assert refused(Guard("127.0.0.1"), request)


@pytest.mark.parametrize(
    ("origin", "host", "same"),
    [
        (b"http://localhost", b"localhost", True),
        (b"http://localhost", b"localhost:80", True),
        (b"https://localhost:443", b"localhost", True),
        (b"http://localhost:443", b"localhost", False),
        (b"http://[::1]:80", b"[0::1]", True),
    ],
)
def test_the_port_that_a_scheme_means_may_be_left_out(origin: bytes, host: bytes, same: bool) -> None:
    assert is_origin_of(origin, host) is same


OWN = (b"localhost", b"127.0.0.1", b"[::1]")
HOSTS = st.lists(
    st.sampled_from(
        [*OWN, b":", b"80", b":8080", b"@", b"/", b"?", b"#", b"\\", b"%", b"[", b"]", b".", b" ", b"::1"]
    )
    | st.binary(max_size=2),
    max_size=5,
).map(b"".join)


@given(HOSTS)
def test_only_a_name_of_ours_with_or_without_a_port_is_let_in(host: bytes) -> None:
    """Whatever else a field holds, before, behind or between."""
    name, colon, port = host.lower().rpartition(b":")
    if host.lower() in OWN:
        ours = True
    else:
        ours = name in OWN and colon == b":" and re.fullmatch(rb"[0-9]{1,5}", port) and 0 < int(port) < 65536
    assert refused(Guard("127.0.0.1"), scope(host.decode("latin-1"))) is not bool(ours)
    authority = authority_of(host)
    assert authority is not None or not ours


@pytest.mark.parametrize("entry", ["hearth.example", "HEARTH", "10.0.0.1", "::1", "[2001:db8::7]", "a_b"])
def test_a_setting_names_hosts(entry: str) -> None:
    assert host_names([entry]) == [entry]


@pytest.mark.parametrize(
    "entry",
    ["hearth.example:8080", "[::1]:8080", "https://hearth.example", "hearth.example/", "a b", "bücher.de"],
)
def test_a_name_that_no_host_field_could_match_is_told(entry: str) -> None:
    """Else the gateway answers 403 to it, and says to add it."""
    with pytest.raises(ValueError, match="must be names or addresses alone"):
        host_names(["other", entry])
