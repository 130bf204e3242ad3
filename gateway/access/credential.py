"""The credential of a request: the key that its head carries."""

from __future__ import annotations

from gateway.http.forwarding import HeaderList

SCHEME = b"bearer "
"""Start of an Authorization that carries a key, in lower case."""
CARRIERS = frozenset({b"authorization", b"x-hearth-key"})
"""Header fields that may carry a key."""


def take_credential(headers: HeaderList) -> bytes | None:
    """Take the credential out of the headers of a request, so that it cannot be passed on, and return it.

    Return None if there is none. X-Hearth-Key goes before Authorization, which then belongs to the function, unless
    it holds a key as well.
    """
    own = bearer = None
    carriers = 0
    for pair in headers:
        name = pair[0]
        if name not in CARRIERS:
            continue
        carriers += 1
        if name == b"authorization":
            bearer = pair
        else:
            own = pair
    if bearer is not None and carriers == 1:  # as nearly every client sends it
        headers.remove(bearer)
    elif carriers:
        headers[:] = [
            (name, value)
            for name, value in headers
            if name != b"x-hearth-key"
            and (name != b"authorization" or (own is not None and b"hth_" not in value))
        ]
    if own is not None:
        return own[1].strip()
    if bearer is None:
        return None
    value = bearer[1]
    return value[len(SCHEME) :].strip() if value[: len(SCHEME)].lower() == SCHEME else b""
