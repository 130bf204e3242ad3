"""Signed messages of other systems: whether a signature is right, and which event a message becomes; pure.

A body is hashed as it comes (`signing`), so that nothing of it has to be kept to tell whether its signature is right.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable, Mapping

from scheduler.definitions.triggers import standard_key
from scheduler.triggers.cloud_events import EventFault, parse_binary
from scheduler.triggers.event import Event

TOLERANCE = 300.0
"""Seconds that a signed timestamp may be away from our clock: an older message may be one that was listened to."""
ReadBody = Callable[[], bytes]
"""The body of a message, asked for once its signature is right: to put it together takes time that would tell."""
MOST_SIGNATURES = 8
"""Signatures of one message that are compared, the first: strangers send them, and each takes time."""


class WrongSignature(Exception):
    """The message is not signed with the secret; says what was expected, and nothing of what was right."""


def signing(signature: str, secret: bytes, headers: Mapping[str, str]) -> hmac.HMAC:
    """Return what a message's body is to be added to, piece by piece, before its event is asked for."""
    if signature == "github":
        return hmac.new(secret, digestmod=hashlib.sha256)
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    signed = hmac.new(standard_key(secret), digestmod=hashlib.sha256)
    signed.update(b"%b.%b." % (id.encode("latin-1", "replace"), timestamp.encode()))
    return signed


def github_event(
    name: str, signed: hmac.HMAC, headers: Mapping[str, str], body: ReadBody, now: float
) -> Event:
    """Return the event of a message signed as GitHub does it: HMAC-SHA256 of the body.

    Raises `WrongSignature` and `EventFault`.

    Its type is `com.github.` and the event's name, its id that of the delivery: the signature does not cover these.
    """
    digest = signed.hexdigest()
    given = headers.get("x-hub-signature-256", "")
    if not hmac.compare_digest(b"sha256=" + digest.encode(), given.encode("latin-1", "replace")):
        raise WrongSignature(
            "X-Hub-Signature-256 is not the HMAC-SHA256 of the body with this webhook's secret"
        )
    happened, delivery = headers.get("x-github-event", ""), headers.get("x-github-delivery", "")
    if not re.fullmatch("[a-z0-9_]{1,100}", happened):
        raise EventFault("X-GitHub-Event is missing, or is no name of an event")
    if not delivery:
        raise EventFault("X-GitHub-Delivery is missing")
    return _event(name, f"com.github.{happened}", delivery, headers, body())


def standard_event(
    name: str, signed: hmac.HMAC, headers: Mapping[str, str], body: ReadBody, now: float
) -> Event:
    """Return the event of a message signed as Standard Webhooks has it: HMAC-SHA256 of id, timestamp and body.

    Raises `WrongSignature` and `EventFault`. A secret that begins with `whsec_` is base64 after that. Any of several
    signatures may be right, so that a secret can be changed; the first `MOST_SIGNATURES` are looked at.
    """
    id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    right = base64.b64encode(signed.digest())
    parts = headers.get("webhook-signature", "").split(maxsplit=MOST_SIGNATURES)[:MOST_SIGNATURES]
    given = [part.partition(",") for part in parts]
    # All of these are compared, and whatever is missing: how long it takes says nothing.
    matches = [
        hmac.compare_digest(right, signature.encode("latin-1", "replace"))
        for version, _, signature in given
        if version == "v1"
    ]
    if not id or not re.fullmatch("[0-9]{1,12}", timestamp):
        raise WrongSignature("webhook-id or webhook-timestamp is missing")
    if not any(matches):
        raise WrongSignature(
            f"none of the first {MOST_SIGNATURES} signatures in webhook-signature is a v1 that is right for this "
            "webhook's secret"
        )
    if abs(now - int(timestamp)) > TOLERANCE:
        raise WrongSignature(f"webhook-timestamp is more than {TOLERANCE:g} s away from this gateway's clock")
    return _event(name, "hearth.webhook", id, headers, body())


SCHEMES = {"github": github_event, "standard": standard_event}
"""By the value of `signature`."""


def _event(name: str, type: str, id: str, headers: Mapping[str, str], body: bytes) -> Event:
    fields = [
        (b"ce-specversion", b"1.0"),
        (b"ce-type", type.encode()),
        (b"ce-source", f"/hooks/{name}".encode()),
        (b"ce-id", id.encode("latin-1").replace(b"%", b"%25")),
    ]
    if (content_type := headers.get("content-type")) is not None:
        fields.append((b"content-type", content_type.encode("latin-1")))
    return parse_binary(fields, body)
