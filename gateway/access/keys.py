"""API keys: their text, their hash, and the text of HEARTH_API_KEYS.

A key is `hth_`, an id of 8 characters, `_`, and a secret of 32 characters (160 random bits). Only its SHA-256 is
kept.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from gateway.access.limits import UNLIMITED, Quota, Rate, parse_rate
from gateway.access.scopes import Scopes, parse_scopes

ID_BYTES, SECRET_BYTES = 5, 20
KEY = re.compile(r"hth_([a-z2-7]{8})_[a-z2-7]{32}")
HASHED = re.compile(r"hth_([a-z2-7]{8}):sha256:([0-9a-f]{64})")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,62}")
LENGTH = 45
"""Characters of a key."""


@dataclass(frozen=True)
class Key:
    """A key without its secret, as it is kept. Times are Unix times in seconds."""

    id: str
    digest: bytes = field(repr=False)
    """SHA-256 of the key's text."""
    name: str
    """For people; no two keys share it."""
    scopes: Scopes
    quota: Quota = UNLIMITED
    expires: float | None = None
    created: float | None = None

    def is_of(self, credential: bytes) -> bool:
        """Return whether this is the key's text. The time does not depend on how much of it is right."""
        return hmac.compare_digest(hashlib.sha256(credential).digest(), self.digest)

    @property
    def hashed(self) -> str:
        """Return the text that HEARTH_API_KEYS takes in place of the key."""
        return f"hth_{self.id}:sha256:{self.digest.hex()}"


def create(name: str, scopes: Scopes, quota: Quota, expires: float | None, created: float) -> tuple[str, Key]:
    """Make a new key; return its text, which is kept nowhere, and the key. Raises ValueError for a wrong name."""
    check_name(name)
    id, secret = (
        base64.b32encode(secrets.token_bytes(count)).decode().lower() for count in (ID_BYTES, SECRET_BYTES)
    )
    text = f"hth_{id}_{secret}"
    return text, Key(id, digest_of(text), name, scopes, quota, expires, created)


def digest_of(text: str) -> bytes:
    """Return the SHA-256 of a key's text."""
    return hashlib.sha256(text.encode()).digest()


def check_name(name: str) -> None:
    """Raise ValueError if this cannot be a key's name."""
    if not NAME.fullmatch(name) or name.startswith("hth_"):
        raise ValueError(
            "a key's name must be 1 to 63 letters, digits, - _ . or @; "
            "it must begin with a letter or digit, and not with hth_"
        )


def parse_keys(text: str) -> list[Key]:
    """Return the keys of HEARTH_API_KEYS: entries on their own lines or between `;`, each a key and words about it.

    The key is its text (`hth_…`) or its hash (`hth_ID:sha256:…`). The words are scopes, `name=`, `rate=`, `burst=`,
    `concurrency=` and `expires=` (a date, or a moment with its time zone: RFC 3339). Raises ValueError with every
    fault. It never repeats the text, which may hold secrets.
    """
    keys: list[Key] = []
    faults: list[str] = []
    entries = [words for line in re.split(r"[;\n]", text) if (words := line.split())]
    for number, words in enumerate(entries, 1):
        try:
            keys.append(_parse_entry(words))
        except ValueError as error:
            faults.append(f"key {number}: {error}")
    faults += [f"two keys have the same {what}" for what in same(keys)]
    if faults:
        raise ValueError("; ".join(faults))
    return keys


def _parse_entry(words: list[str]) -> Key:
    digest, id = _parse_credential(words[0])
    given: dict[str, str] = {}
    scopes: list[str] = []
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals:
            scopes.append(word)
        elif name in given or name not in ("name", "rate", "burst", "concurrency", "expires"):
            raise ValueError(
                "use only name=, rate=, burst=, concurrency= and expires= with a value, each once"
            )
        else:
            given[name] = value
    name = given.get("name", id)
    check_name(name)
    return Key(
        id,
        digest,
        name,
        parse_scopes(scopes),
        parse_quota(given.get("rate"), given.get("burst"), given.get("concurrency")),
        parse_moment(given["expires"]) if "expires" in given else None,
    )


def _parse_credential(word: str) -> tuple[bytes, str]:
    if match := KEY.fullmatch(word):
        return digest_of(word), match[1]
    if match := HASHED.fullmatch(word):
        return bytes.fromhex(match[2]), match[1]
    raise ValueError(
        "begin it with a key (hth_ID_SECRET) or a key's hash (hth_ID:sha256:HEX); "
        "create one: `hearth keys create NAME --scope SCOPE --print-only`"
    )


def parse_quota(rate: str | None, burst: str | None, concurrency: str | None) -> Quota:
    """Return limits from their texts. Raises ValueError."""
    parsed: Rate | None = None if rate is None else parse_rate(rate)
    return Quota(parsed, _whole("burst", burst), _whole("concurrency", concurrency))


def _whole(what: str, text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,10}", text):
        raise ValueError(f"a {what} must be a whole number")
    return int(text)


def parse_moment(text: str) -> float:
    """Return the Unix time of a date (its beginning in UTC) or of a moment with a time zone. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            "expires must be a date or a moment, like 2027-01-31 or 2027-01-31T12:00:00Z"
        ) from None
    if moment.tzinfo is None:
        if "T" in text or " " in text:
            raise ValueError("expires has a time without a time zone; add Z for UTC")
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()


def format_moment(moment: float) -> str:
    """Return a Unix time in RFC 3339, in UTC, to the second."""
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def same(keys: Iterable[Key]) -> list[str]:
    """Return which of `id` and `name` two of these keys share; each key must have its own."""
    all_keys = list(keys)
    parts: dict[str, Callable[[Key], str]] = {"id": lambda key: key.id, "name": lambda key: key.name}
    return [what for what, of in parts.items() if len({of(key) for key in all_keys}) < len(all_keys)]
