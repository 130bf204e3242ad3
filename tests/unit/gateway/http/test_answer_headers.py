"""What a function can say with its answer: nothing that makes it active content of the origin that all share."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.answer_headers import (
    FROM_FUNCTION,
    PASSED,
    READ_BY_BROWSERS,
    SANDBOX,
    is_harmless,
    response_headers,
    response_lines,
    safe_content_type,
    without_added_type,
)
from pool.transport.message import header_lines

OCTETS = b"application/octet-stream"
Pairs = list[tuple[bytes, bytes]]


def passed(*headers: tuple[bytes, bytes]) -> Pairs:
    """What is left of a function's fields, without what Hearth adds to each answer."""
    given_type = (b"content-type", b"text/plain")
    told = response_headers([given_type, *headers], web=False)
    assert [pair for pair in told if pair[0] == b"content-type"] == [given_type]
    assert told[-2:] == list(FROM_FUNCTION)
    return [pair for pair in told[:-2] if pair != given_type]


def test_what_a_function_cannot_say() -> None:
    told = [
        (b"content-type", b"text/plain"),
        (b"content-length", b"5"),
        (b"content_length", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"close"),
        (b"x-hearth-start", b"warm"),
        (b"x_hearth_start", b"warm"),
        (b"x-invocation-id", b"other"),
        (b"x-accel-redirect", b"/secret"),
        (b"x-sendfile", b"/etc/passwd"),
        (b"x-envoy-immediate-health-check-fail", b"1"),
        (b"x-archive-files", b"zip"),
        (b"x-litespeed-purge", b"*"),
        (b"date", b"now"),
        (b"server", b"theirs"),
        (b"x-own", b"1"),
    ]
    assert response_headers(told, web=True) == [(b"content-type", b"text/plain"), (b"x-own", b"1")]
    assert passed(*told[1:]) == [(b"x-own", b"1")]


def test_a_web_function_acts_for_our_origin() -> None:
    told = [
        (b"set-cookie", b"a=b"),
        (b"clear-site-data", b'"*"'),
        (b"service-worker-allowed", b"/"),
        (b"content-security-policy", b"default-src 'self'"),
        (b"content-type", b"text/html;"),
    ]
    assert response_headers(told, web=True) == told


@pytest.mark.parametrize(
    "name",
    [
        *READ_BY_BROWSERS,
        b"accept-ch",
        b"access-control-allow-private-network",
        b"activate-storage-access",
        b"alt-svc",
        b"clear-site-data",
        b"content-security-policy",
        b"content-security-policy-report-only",
        b"content_type",
        b"critical-ch",
        b"cross-origin-embedder-policy",
        b"cross-origin-opener-policy",
        b"cross-origin-resource-policy",
        b"document-policy",
        b"expect-ct",
        b"integrity-policy",
        b"nel",
        b"no-vary-search",
        b"observe-browsing-topics",
        b"origin-agent-cluster",
        b"permissions-policy",
        b"public-key-pins",
        b"refresh",
        b"report-to",
        b"reporting-endpoints",
        b"service-worker-allowed",
        b"set-cookie",
        b"set-cookie2",
        b"set-login",
        b"sourcemap",
        b"speculation-rules",
        b"strict-transport-security",
        b"supports-loading-mode",
        b"use-as-dictionary",
        b"x-content-security-policy-report-only",
        b"x-content_type-options",
        b"x_content_type_options",
    ],
)
def test_what_browsers_act_on_does_not_go_through(name: bytes) -> None:
    assert passed((name, b"1")) == []


@pytest.mark.parametrize(
    "name",
    [*sorted(PASSED - {b"link", b"www-authenticate"}), b"x-own", b"x-frame", b"ce-id", b"x-ratelimit-left"],
)
def test_what_programs_use_goes_through(name: bytes) -> None:
    assert passed((name, b"1"), (name, b"2")) == [(name, b"1"), (name, b"2")]


@pytest.mark.parametrize(
    ("name", "value", "harmless"),
    [
        (b"location", b"/invoke/f/a?b#c", True),
        (b"location", b"https://example.org/a", True),
        (b"location", b"//example.org/a:b", True),
        (b"location", b"a/b:c", True),
        (b"location", b"javascript:alert(1)", False),
        (b"location", b"JavaScript:alert(1)", False),
        (b"location", b"java\tscript:alert(1)", False),
        (b"location", b"\x01javascript:alert(1)", False),
        (b"location", b"data:text/html,a", False),
        (b"content-location", b"blob:a", False),
        (b"www-authenticate", b'Bearer realm="a", error="invalid_token"', True),
        (b"www-authenticate", b'Basic realm="Hearth"', False),
        (b"www-authenticate", b'Bearer, Basic realm="Hearth"', False),
        (b"www-authenticate", b"Negotiate", False),
        (b"link", b'</items?page=2>; rel="next", </items>; rel="first last"', True),
        (b"link", b'<https://example.org/r>; rel="https://example.org/relation"; title="a, b; c"', True),
        (b"link", b"</invoke/other>; rel=preload; as=script", False),
        (b"link", b'</invoke/other>;rel="next Preload"', False),
        (b"link", b'</a>; title="a"; rel="preload', False),
        (b"link", b"</a>; rel*=preload", False),
        (b"link", b"</a>; rel = preload", False),
        (b"link", b"</a>; rel=next, </b>; rel=dns-prefetch", False),
    ],
)
def test_values_that_browsers_act_on_do_not_go_through(name: bytes, value: bytes, harmless: bool) -> None:
    assert is_harmless(name, value) is harmless
    assert passed((name, value)) == ([(name, value)] if harmless else [])


@pytest.mark.parametrize(
    ("values", "safe"),
    [
        ([b"application/json"], b"application/json"),
        ([b"text/html"], b"text/html"),
        ([b" TEXT/HTML;charset=utf-8 "], b"text/html; charset=utf-8"),
        ([b"text/html;"], b"text/html"),
        ([b"text/html; ;charset=a ; charset=b"], b"text/html; charset=a"),
        ([b'multipart/mixed; boundary="a b;c"'], b'multipart/mixed; boundary="a b;c"'),
        ([b"text/plain", b"text/plain "], b"text/plain"),
        ([], OCTETS),
        ([b""], OCTETS),
        ([b"*/*"], OCTETS),
        ([b"text/*"], OCTETS),
        ([b"text"], OCTETS),
        ([b"text/"], OCTETS),
        ([b"/html"], OCTETS),
        ([b"text/plain, text/html"], OCTETS),
        ([b"text/plain; a=b, text/html"], OCTETS),
        ([b"text/plain", b"text/html"], OCTETS),
        ([b"text/html\x0b"], OCTETS),
        ([b"text/html charset=utf-8"], OCTETS),
        ([b'text/html; charset="a'], OCTETS),
        ([b"unknown/unknown"], OCTETS),
        ([b"Application/Unknown; a=b"], OCTETS),
        ([b"multipart/x-mixed-replace; boundary=a"], OCTETS),
        ([b"text/\xe4html"], OCTETS),
        ([b"text/plain;" + b" " * 60_000 + b"!"], OCTETS),
    ],
)
def test_one_content_type_that_all_understand_in_the_same_way(values: list[bytes], safe: bytes) -> None:
    assert safe_content_type(values) == safe


def test_an_answer_without_a_body_is_given_no_content_type() -> None:
    """A 304 would change the type of what a cache has."""
    assert response_headers([], False, typed=False) == list(FROM_FUNCTION)
    told = response_headers([(b"content-type", b"*/*")], False, typed=False)
    assert told == [(b"content-type", OCTETS), *FROM_FUNCTION]


FIELDS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"content-type", b"link", b"location", b"x-a", b"x-frame-options", b"set-cookie", b"connection"]
        )
        | st.from_regex(rb"[a-z0-9_-]{1,20}", fullmatch=True),
        st.sampled_from([b"text/html", b"*/*", b"text/html, text/plain", b"close, content-type, x-a"])
        | st.binary(max_size=20),
    ),
    max_size=8,
)


@given(FIELDS, st.booleans())
def test_whatever_a_function_says_its_answer_is_in_the_sandbox(headers: Pairs, typed: bool) -> None:
    told = response_headers(headers, False, typed)
    names = [name for name, _ in told]
    for name in (b"content-type", b"x-content-type-options", b"content-security-policy"):
        assert names.count(name) <= 1
    assert dict(told)[b"x-content-type-options"] == b"nosniff"
    assert dict(told)[b"content-security-policy"] == SANDBOX
    assert b"allow-" not in SANDBOX
    assert not typed or b"content-type" in names
    kept = without_added_type(told)
    assert [pair for pair in told if pair not in kept] == (
        [] if told == kept else [(b"content-type", OCTETS)]
    )
    assert response_headers(kept, False, typed) == told, "what is kept is made safe again when it is shown"
    assert not typed or response_lines(tuple(headers), False) == header_lines(told)
