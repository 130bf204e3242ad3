"""Header fields that forbid browsers to run or embed our answers, unless an answer has its own policy."""

from __future__ import annotations

from starlette.types import Message, Send

from gateway.http.answer_headers import NOSNIFF, POLICY

DENY_ALL = b"sandbox; default-src 'none'; frame-ancestors 'none'"
"""Policy for the API's own answers, which are not pages."""
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
