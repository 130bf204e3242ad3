"""The signature of a callback, as Standard Webhooks has it: HMAC-SHA256 over its id, its time and its body."""

from __future__ import annotations

import binascii
import hmac
import os
import secrets
from base64 import b64decode, b64encode
from pathlib import Path

PREFIX = "whsec_"
SHORTEST, LONGEST = 24, 64
"""Bytes of a secret."""
FILE = "callback-secret"


def parse_secret(text: str) -> bytes:
    """The secret that a text stands for. Raises ValueError."""
    try:
        secret = b64decode(text.strip().removeprefix(PREFIX), validate=True)
    except binascii.Error:
        secret = b""
    if not text.strip().startswith(PREFIX) or not SHORTEST <= len(secret) <= LONGEST:
        raise ValueError(
            f"must be {PREFIX} and then {SHORTEST} to {LONGEST} random bytes in base64; make one with: "
            f"echo {PREFIX}$(head -c 32 /dev/urandom | base64)"
        )
    return secret


def kept_secret(folder: Path) -> bytes:
    """The secret in a data folder, made if there is none; only its owner can read it. Raises OSError."""
    file = folder / FILE
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
    """What a receiver checks. `timestamp` is wall time in whole seconds."""
    told = b"%b.%d.%b" % (message.encode(), timestamp, body)
    digest = hmac.digest(secret, told, "sha256")
    return {
        "webhook-id": message,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{b64encode(digest).decode()}",
    }
