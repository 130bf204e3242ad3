"""Signature of a callback as in Standard Webhooks: HMAC-SHA256 over its id, time and body."""

from __future__ import annotations

import binascii
import hmac
import os
import secrets
from base64 import b64decode, b64encode
from pathlib import Path

PREFIX = "whsec_"
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
"""Length of a secret, as Standard Webhooks recommends."""
FILE_NAME = "callback-secret"


def parse_secret(text: str) -> bytes:
    """Return the secret in a text. Raises ValueError."""
    try:
        secret = b64decode(text.strip().removeprefix(PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not text.strip().startswith(PREFIX) or not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
        raise ValueError(
            f"must be {PREFIX} and then {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} random bytes in base64; "
            "make one with: "
            f"echo {PREFIX}$(head -c 32 /dev/urandom | base64)"
        )
    return secret


def load_or_create_secret(folder: Path) -> bytes:
    """Return the secret in a data folder, and create it first if necessary.

    Only its owner can read it. Raises OSError.
    """
    file = folder / FILE_NAME
    if not file.exists():
        fresh = file.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as writing:
            writing.write(f"{PREFIX}{b64encode(secrets.token_bytes(32)).decode()}\n")
        fresh.replace(file)
    try:
        return parse_secret(file.read_text())
    except ValueError as error:
        raise OSError(f"{file} {error}") from None


def signed_headers(secret: bytes, message: str, timestamp: int, body: bytes) -> dict[str, str]:
    """Return the headers that a receiver checks. `timestamp` is wall time in whole seconds."""
    signed = b"%b.%d.%b" % (message.encode(), timestamp, body)
    digest = hmac.digest(secret, signed, "sha256")
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{b64encode(digest).decode()}",
    }
