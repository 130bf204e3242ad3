"""What goes through to a function and back: never framing, never anything in Hearth's or the caller's name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.answer_headers import HOP_BY_HOP, response_headers
from gateway.http.forwarding import cgi_variables, request_headers, target_of
from gateway.http.problems import Problem

OWN = {
    b"x-forwarded-for": b"10.0.0.1",
    b"x-forwarded-proto": b"http",
    b"x-forwarded-host": b"hearth.example",
    b"x-invocation-id": b"i1",
    b"x-hearth-deadline": b"2.500",
}


def scope(*headers: tuple[bytes, bytes], **keys: Any) -> dict[str, Any]:
    return {
        "headers": [(b"host", b"hearth.example"), *headers],
        "client": ("10.0.0.1", 1234),
        "server": ("127.0.0.1", 8080),
        "scheme": "http",
        "method": "POST",
        "http_version": "1.1",
        "query_string": b"a=b",
        **keys,
    }


def sent(*headers: tuple[bytes, bytes], **keys: Any) -> list[tuple[bytes, bytes]]:
    """The function's view without what Hearth always adds."""
    result = request_headers(scope(*headers, **keys), b"i1", 2.5)
    own = [pair for pair in result if pair[0] in OWN]
    assert [name for name, _ in own] == list(OWN), "Hearth's own fields, each once"
    if not keys:
        assert dict(own) == OWN
    return [pair for pair in result if pair[0] not in OWN]


def test_what_is_the_callers_goes_through_as_it_is() -> None:
    headers = [
        (b"accept", b"*/*"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"cookie", b"a=b"),
        (b"traceparent", b"00-1"),
    ]
    assert sent(*headers) == [(b"host", b"hearth.example"), *headers]


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | {b"content-length", b"expect", b"forwarded"}))
def test_framing_and_hops_end_here(name: bytes) -> None:
    assert sent((name, b"close")) == [(b"host", b"hearth.example")]


@pytest.mark.parametrize(
    "name",
    [
        b"x-forwarded-for",
        b"x-forwarded-port",
        b"x_forwarded_for",
        b"x-forwarded_for",
        b"x-hearth-start",
        b"x-hearth-control",
        b"x_hearth_control",
        b"x-invocation-id",
        b"x_invocation_id",
    ],
)
def test_what_hearth_says_no_caller_can_say(name: bytes) -> None:
    assert sent((name, b"forged")) == [(b"host", b"hearth.example")]
    assert "forged" not in cgi_variables(scope((name, b"forged")), "f", "i1", None).values()


@pytest.mark.parametrize(
    "name",
    sorted(HOP_BY_HOP | {b"content-length", b"x-forwarded-for", b"x-hearth-deadline", b"x-invocation-id"}),
)
def test_a_name_with_underscores_is_no_way_around(name: bytes) -> None:
    """Many servers take `_` for `-`: `Content_Length` would be framing to them."""
    disguised = {name.replace(b"-", b"_"), name.replace(b"-", b"_", 1)}
    for other in disguised:
        assert sent((other, b"7")) == [(b"host", b"hearth.example")]
        assert "7" not in cgi_variables(scope((other, b"7")), "f", "i1", None).values()


def test_of_two_names_that_servers_may_take_for_one_the_plain_one_is_passed() -> None:
    fields = [(b"x_role", b"admin"), (b"x-role", b"guest"), (b"content_type", b"a/b"), (b"my_own", b"1")]
    assert sent(*fields) == [(b"host", b"hearth.example"), fields[1], *fields[2:]]
    typed = [(b"content-type", b"text/plain"), *fields]
    assert sent(*typed) == [(b"host", b"hearth.example"), typed[0], fields[1], fields[3]]
    variables = cgi_variables(scope(*typed), "f", "i1", None)
    assert variables["HTTP_X_ROLE"] == "guest"
    assert variables["HTTP_MY_OWN"] == "1"
    assert "HTTP_CONTENT_TYPE" not in variables


def test_what_connection_lists_ends_under_either_spelling() -> None:
    for listed, name in ((b"x-one", b"x_one"), (b"x_one", b"x-one")):
        assert sent((b"connection", listed), (name, b"1")) == [(b"host", b"hearth.example")]


NAMES = st.text("abx-_", min_size=1, max_size=6).map(str.encode) | st.sampled_from(
    [
        b"content_length",
        b"content-length",
        b"transfer_encoding",
        b"x-hearth_a",
        b"x_forwarded-for",
        b"keep_alive",
    ]
)


@given(st.lists(NAMES, max_size=12))
def test_no_field_is_another_in_disguise(names: list[bytes]) -> None:
    told = request_headers(scope(*((name, b"1") for name in names)), b"i1", 2.5)
    passed = {name for name, _ in told if name not in OWN}
    for name in passed:
        plain = name.replace(b"_", b"-")
        assert plain not in HOP_BY_HOP | {b"content-length"}
        assert not plain.startswith((b"x-hearth", b"x-forwarded", b"x-invocation"))
        assert plain == name or plain not in passed


def test_what_connection_lists_ends_here_too() -> None:
    connection = [
        (b"connection", b"x-one, X-Two"),
        (b"connection", b"close"),
        (b"connection", b"keep-alive, x-three"),
    ]
    extra = [(b"x-one", b"1"), (b"x-two", b"2"), (b"x-three", b"3"), (b"x-four", b"4")]
    assert sent(*connection, *extra) == [(b"host", b"hearth.example"), (b"x-four", b"4")]
    assert response_headers([*connection, *extra], web=True) == [(b"x-four", b"4")]


def test_there_is_always_one_host() -> None:
    """HTTP/1.0 may leave it out, and `Connection` could name it; what is sent on is HTTP/1.1, which must have it."""
    assert sent((b"connection", b"host, x-one")) == [(b"host", b"hearth.example")]
    for headers in ([], [(b"host", b"")]):
        without = request_headers(scope() | {"headers": headers}, b"i1", 2.5)
        assert [value for name, value in without if name == b"host"] == [b"localhost"]


def test_connection_cannot_take_hearths_own_fields_away() -> None:
    sent((b"connection", b"x-invocation-id, x-forwarded-for"))


@pytest.mark.parametrize("bad", [b"a\rb", b"a\nb", b"a\0b"])
def test_a_value_with_a_line_end_is_refused(bad: bytes) -> None:
    with pytest.raises(Problem) as caught:
        sent((b"x-a", bad))
    assert caught.value.status == 400


def test_a_caller_without_an_address() -> None:
    headers = dict(request_headers(scope(client=None), b"i1", 1.0))
    assert headers[b"x-forwarded-for"] == b"unknown"


@pytest.mark.parametrize(
    ("path", "query", "target"),
    [
        (b"", b"", b"/"),
        (b"a/b", b"", b"/a/b"),
        (b"/a", b"x=1&y", b"/a?x=1&y"),
        (b"//evil.example/a", b"", b"/evil.example/a"),
        (b"%20%0d%0a", b"%00", b"/%20%0d%0a?%00"),
        (b"..", b"", b"/.."),
    ],
)
def test_target(path: bytes, query: bytes, target: bytes) -> None:
    assert target_of(path, query) == target


@given(st.binary(max_size=20), st.binary(max_size=20))
def test_a_target_never_ends_its_line(path: bytes, query: bytes) -> None:
    try:
        target = target_of(path, query)
    except Problem as problem:
        assert problem.status == 400
        assert any(byte <= 32 or byte == 127 for byte in path + query)
    else:
        assert target.startswith(b"/")
        assert not target.startswith(b"//")
        assert not any(byte <= 32 or byte == 127 for byte in target)


def test_cgi_variables() -> None:
    headers = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"3"),
        (b"authorization", b"Bearer secret"),
        (b"proxy", b"evil:80"),
        (b"x-a", b"1"),
        (b"x-a", b"2"),
        (b"cookie", b"a=1"),
        (b"cookie", b"b=2"),
        (b"x.dotted", b"no"),
        (b"x-nul", b"a\0b"),
    ]
    assert cgi_variables(scope(*headers), "f", "i1", 3) == {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SERVER_SOFTWARE": "Hearth",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "/invoke/f",
        "PATH_INFO": "",
        "QUERY_STRING": "a=b",
        "REMOTE_ADDR": "10.0.0.1",
        "HEARTH_INVOCATION_ID": "i1",
        "CONTENT_LENGTH": "3",
        "CONTENT_TYPE": "text/plain",
        "HTTP_HOST": "hearth.example",
        "HTTP_X_A": "1, 2",
        "HTTP_COOKIE": "a=1; b=2",
    }


def test_cgi_without_a_length_and_without_addresses() -> None:
    variables = cgi_variables(scope(client=None, server=None), "f", "i1", None)
    assert "CONTENT_LENGTH" not in variables
    assert variables["REMOTE_ADDR"] == ""
