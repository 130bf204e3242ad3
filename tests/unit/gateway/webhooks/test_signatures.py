"""Signatures of webhooks: which are right, and which event a message becomes."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.webhooks.signatures import (
    MOST_SIGNATURES,
    SCHEMES,
    TOLERANCE,
    WrongSignature,
    signing,
)
from scheduler.triggers.cloud_events import EventFault
from scheduler.triggers.event import Event

NOW = 1_700_000_000.0
KEY = b"0123456789abcdef"
GITHUB_EXAMPLE = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
"""Of GitHub's own documentation: of `Hello, World!` with the secret `It's a Secret to Everybody`."""


def event_of(scheme: str, secret: bytes, headers: dict[str, str], body: bytes, now: float = NOW) -> Event:
    """The event of a message whose body comes in pieces."""
    signed = signing(scheme, secret, headers)
    for at in range(0, len(body), 5):
        signed.update(body[at : at + 5])
    return SCHEMES[scheme]("hook", signed, headers, lambda: body, now)


def github_event(secret: bytes, headers: dict[str, str], body: bytes, now: float = NOW) -> Event:
    return event_of("github", secret, headers, body, now)


def standard_event(secret: bytes, headers: dict[str, str], body: bytes, now: float = NOW) -> Event:
    return event_of("standard", secret, headers, body, now)


def from_github(signature: str, body: bytes = b"Hello, World!", **more: str) -> Event:
    headers = {"x-hub-signature-256": signature, "x-github-event": "push", "x-github-delivery": "d1", **more}
    return github_event(b"It's a Secret to Everybody", headers, body, NOW)


def standard(body: bytes = b"{}", **more: str) -> dict[str, str]:
    """The headers of a message that is signed right; `more` replaces some."""
    signed = b"msg_1.%d." % NOW + body
    right = base64.b64encode(hmac.new(KEY, signed, hashlib.sha256).digest()).decode()
    headers = {"webhook-id": "msg_1", "webhook-timestamp": f"{NOW:.0f}", "webhook-signature": f"v1,{right}"}
    return {**headers, **{name.replace("_", "-"): value for name, value in more.items()}}


def test_a_message_of_githubs_becomes_an_event() -> None:
    event = from_github(GITHUB_EXAMPLE, **{"content-type": "application/json"})
    assert event.data == b"Hello, World!"
    assert event.attributes == {
        "specversion": "1.0",
        "type": "com.github.push",
        "source": "/hooks/hook",
        "id": "d1",
        "datacontenttype": "application/json",
    }


@pytest.mark.parametrize(
    "signature",
    [
        "",
        "sha256=",
        GITHUB_EXAMPLE[:-1],
        GITHUB_EXAMPLE[7:],
        GITHUB_EXAMPLE.upper(),
        f"{GITHUB_EXAMPLE} ",
        "é",
        "sha1=x",
    ],
)
def test_a_wrong_signature_of_githubs_is_refused(signature: str) -> None:
    with pytest.raises(WrongSignature):
        from_github(signature)


def test_another_body_has_another_signature() -> None:
    with pytest.raises(WrongSignature):
        from_github(GITHUB_EXAMPLE, b"Hello, World?")


@pytest.mark.parametrize("name", ["x-github-event", "x-github-delivery"])
def test_a_message_of_githubs_says_what_it_is(name: str) -> None:
    with pytest.raises(EventFault, match="missing"):
        from_github(GITHUB_EXAMPLE, **{name: ""})


@pytest.mark.parametrize("secret", [KEY, b"whsec_" + base64.b64encode(KEY)])
def test_a_standard_message_becomes_an_event(secret: bytes) -> None:
    event = standard_event(secret, standard(), b"{}", NOW)
    assert (event.type, event.source, event.id) == ("hearth.webhook", "/hooks/hook", "msg_1")


def test_one_of_several_signatures_is_enough() -> None:
    headers = standard()
    headers["webhook-signature"] = f"v1,bm8= v2,x {headers['webhook-signature']}"
    assert standard_event(KEY, headers, b"{}", NOW).id == "msg_1"


def test_so_many_signatures_of_a_message_are_looked_at() -> None:
    right = standard()["webhook-signature"]
    for before in (MOST_SIGNATURES - 1, MOST_SIGNATURES):
        headers = standard(webhook_signature="v1,bm8= " * before + f"{right} v1,bm8=")
        if before < MOST_SIGNATURES:
            assert standard_event(KEY, headers, b"{}", NOW).id == "msg_1"
        else:
            with pytest.raises(WrongSignature, match="8"):
                standard_event(KEY, headers, b"{}", NOW)


@pytest.mark.parametrize(
    "more",
    [
        {"webhook_id": "msg_2"},
        {"webhook_id": ""},
        {"webhook_timestamp": "1700000001"},
        {"webhook_timestamp": "x"},
        {"webhook_timestamp": "٣"},
        {"webhook_signature": ""},
        {"webhook_signature": "v1,"},
        {"webhook_signature": "v1,é"},
        {"webhook_signature": standard()["webhook-signature"].replace("v1", "v2")},
    ],
    ids=str,
)
def test_a_wrong_standard_signature_is_refused(more: dict[str, str]) -> None:
    with pytest.raises(WrongSignature):
        standard_event(KEY, standard(**more), b"{}", NOW)


@pytest.mark.parametrize("away", [TOLERANCE + 1, -TOLERANCE - 1])
def test_a_standard_message_of_another_time_is_refused(away: float) -> None:
    assert standard_event(KEY, standard(), b"{}", NOW + away / 2)
    with pytest.raises(WrongSignature, match="clock"):
        standard_event(KEY, standard(), b"{}", NOW + away)


@given(st.binary(max_size=64), st.binary(max_size=64), st.binary(min_size=1, max_size=32))
def test_a_signature_is_of_one_body_and_one_secret(body: bytes, other: bytes, secret: bytes) -> None:
    signature = "sha256=" + hmac.new(secret, body, hashlib.sha256).hexdigest()
    headers = {"x-hub-signature-256": signature, "x-github-event": "push", "x-github-delivery": "d1"}
    assert github_event(secret, headers, body, NOW).data == body
    for wrong_secret, wrong_body in ((secret + b"x", body), (secret, other + body + b"x")):
        with pytest.raises(WrongSignature):
            github_event(wrong_secret, headers, wrong_body, NOW)
