"""Header fields that tell browsers to make nothing of our answers, unless an answer says so itself."""

from __future__ import annotations

from starlette.types import Message, Send

POLICY = b"content-security-policy"
SANDBOX = b"sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""The policy of what a function made: a browser shows it without scripts or loading, in an origin of its own."""
DENY_ALL = b"sandbox; default-src 'none'; frame-ancestors 'none'"
"""The policy of the API's own answers, which are no pages at all."""
NOSNIFF = (b"x-content-type-options", b"nosniff")
FROM_FUNCTION = (NOSNIFF, (POLICY, SANDBOX))
"""Fields of every answer of a function that is not marked `web: true`."""
FROM_API = (NOSNIFF, (POLICY, DENY_ALL))
"""Fields of every answer of our own that has no policy of its own."""


def for_browsers(send: Send) -> Send:
    """Return `send` with `FROM_API` added to the answer that goes through it, as far as it is missing."""

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            names = {name.lower() for name, _ in headers}
            missing = [field for field in FROM_API if field[0] not in names]
            message = {**message, "headers": [*headers, *missing]}
        await send(message)

    return send_on
