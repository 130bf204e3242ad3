"""Header fields that forbid browsers to run or embed our answers, unless an answer has its own policy."""

from __future__ import annotations

from starlette.types import Message, Send

POLICY = b"content-security-policy"
SANDBOX = b"sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""Policy for answers of functions: a browser shows them without scripts, without loading, in a separate origin."""
DENY_ALL = b"sandbox; default-src 'none'; frame-ancestors 'none'"
"""Policy for the API's own answers, which are not pages."""
NOSNIFF = (b"x-content-type-options", b"nosniff")
FROM_FUNCTION = (NOSNIFF, (POLICY, SANDBOX))
"""Fields of every answer of a function that is not marked `web: true`."""
FROM_API = (NOSNIFF, (POLICY, DENY_ALL))
"""Fields of every answer of the API that sets no policy itself."""


def for_browsers(send: Send) -> Send:
    """Return a `send` that adds the fields of `FROM_API` which an answer lacks."""

    async def send_on(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            names = {name.lower() for name, _ in headers}
            missing = [field for field in FROM_API if field[0] not in names]
            message = {**message, "headers": [*headers, *missing]}
        await send(message)

    return send_on
