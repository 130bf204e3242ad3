"""What `hearth.testing` says in the gateway's place is what the gateway says: the one is held against the other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import browser_policy, forwarding, problems
from gateway.invoke.invocation import Invocation
from gateway.invoke.methods import check_method
from hearth import _gateway_part as part
from pool.contracts import handler

NAMES = st.one_of(
    st.sampled_from(
        [b"host", b"connection", b"te", b"x-own", b"x_own", b"x-hearth-start", b"x_forwarded_for", b"cookie"]
    ),
    st.from_regex(rb"[a-z_-]{1,8}", fullmatch=True),
)
VALUES = st.one_of(
    st.sampled_from([b"close", b"x-own, te", b"1"]), st.from_regex(rb"[!-~]{0,8}", fullmatch=True)
)


@given(st.lists(st.tuples(NAMES, VALUES), max_size=6))
def test_fields_of_a_request(given_fields: list[tuple[bytes, bytes]]) -> None:
    fields = [(b"host", b"127.0.0.1:8080"), *(field for field in given_fields if field[0] != b"host")]
    scope: dict[str, Any] = {"headers": fields, "client": ("127.0.0.1", 1), "scheme": "http"}
    assert part.told_headers(fields, "i", 2.5) == forwarding.request_headers(scope, b"i", 2.5)


@pytest.mark.parametrize("slug", sorted(part.PROBLEMS))
@pytest.mark.parametrize("invocation", ["i", None])
def test_problems(slug: str, invocation: str | None) -> None:
    ours = problems.Problem(slug, "dé\ud800tail", headers=((b"allow", b"POST"),))
    theirs = part.Refusal(slug, "dé\ud800tail", ((b"allow", b"POST"),))
    body = ours.body(invocation)
    assert (theirs.status, theirs.body(invocation)) == (ours.status, body)
    assert theirs.response_headers(body) == ours.response_headers(body)
    assert browser_policy.FROM_API == part.FROM_API


@pytest.mark.parametrize(("method", "path"), [("POST", ""), ("GET", ""), ("HEAD", ""), ("POST", "/a")])
def test_methods(method: str, path: str) -> None:
    said = []
    for check, kind in ((part.check_method, part.Refusal), (check_handler_method, problems.Problem)):
        try:
            check("greet", method, path)
            said.append(None)
        except kind as refusal:
            said.append((refusal.slug, refusal.detail, refusal.headers))
    assert said[0] == said[1]


def check_handler_method(name: str, method: str, path: str) -> None:
    """The gateway's own check, for a handler."""
    check_method(handler.HANDLER, name, method, path.encode())


def test_reports_of_a_shim() -> None:
    assert part.REPORT_STATUSES == handler.REPORT_STATUSES
    assert part.OUTCOME == handler.OUTCOME
    assert part.OUTCOMES == handler.SLUGS
    assert (
        part.refusal_of(b"else", json.dumps({"type": "A", "message": "b"}).encode()).slug == "contract-broken"
    )


def test_fields_that_every_answer_has() -> None:
    invocation = Invocation(0.0, "greet", "i")
    assert part.own_headers("i", None) == invocation.own_headers()
    invocation.kind, invocation.exec_seconds = "warm", 0.0125
    assert part.own_headers("i", 0.0125) == invocation.own_headers()
