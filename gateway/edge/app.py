"""The HTTP edge: the outermost ASGI app, and the FastAPI app behind it."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi_offline import FastAPIOffline

from gateway.access.access import ADMISSION, CURRENT, Access
from gateway.access.guard import Guard
from gateway.api.calls.accept import AcceptEndpoint
from gateway.api.openapi_document import serve_document
from gateway.api.parts import ApiParts
from gateway.api.routes import include_routes
from gateway.edge.docs_page import PAGE_FILES, show_docs_page
from gateway.edge.error_handlers import ERROR_HANDLERS, respond
from gateway.http.browser_policy import for_browsers
from gateway.http.preferences import preferences
from gateway.http.problems import Problem
from gateway.invoke.body import Receive, Send
from gateway.invoke.endpoint import PREFIX, InvokeEndpoint
from gateway.memory.budget import BodyBudget
from gateway.memory.reservation import RESERVATION, Reservation, busy, head_bytes
from pool import __version__


@dataclass(frozen=True)
class EdgeParts:
    """The parts of one gateway that judge a request, and those that serve calls."""

    guard: Guard
    access: Access
    bodies: BodyBudget
    invoke: InvokeEndpoint
    accept: AcceptEndpoint


class Edge:
    """Takes every request: /invoke/ goes straight on, everything else to the HTTP API."""

    def __init__(self, parts: EdgeParts, api: FastAPI) -> None:
        self._guard = parts.guard
        self._access = parts.access
        self._bodies = parts.bodies
        self._invoke = parts.invoke
        self._accept = parts.accept
        self._api = api

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one request, as ASGI."""
        if scope["type"] != "http":
            return  # no websockets, no lifespan: the server refuses or goes on
        headers, raw_path = scope["headers"], scope["raw_path"]
        if raw_path.startswith(PREFIX):
            admission = self._guard.fault(scope) or self._access.admit_call(headers, raw_path)
            if isinstance(admission, Problem):
                await self._invoke.refuse(scope, receive, send, admission)
                return
            scope[ADMISSION] = admission
            wish = preferences(headers)
            reservation = scope[RESERVATION] = Reservation(self._bodies, admission.caller)
            try:
                if not reservation.take_head(head_bytes(scope)):
                    await self._invoke.refuse(scope, receive, send, busy())
                elif wish.respond_async:
                    await self._accept(scope, receive, send, wish, admission)
                elif wish.callbacks:
                    detail = (
                        "X-Hearth-Callback needs a call that runs later; send Prefer: respond-async as well"
                    )
                    await self._invoke.refuse(scope, receive, send, Problem("bad-request", detail))
                else:
                    await self._invoke(scope, receive, send)
            finally:
                reservation.close()
                admission.ended()
        else:
            admission = self._guard.fault(scope) or self._access.admit_request(
                headers, scope["method"], scope["path"]
            )
            if isinstance(admission, Problem):
                await respond(admission)(scope, receive, send)
                return
            CURRENT.set(admission)
            reservation = scope[RESERVATION] = Reservation(self._bodies, admission.caller)
            app = self._api if reservation.take_head(head_bytes(scope)) else respond(busy())
            try:
                await app(scope, receive, for_browsers(send))
            finally:
                reservation.close()


def build_app(parts: ApiParts) -> FastAPI:
    """Return the HTTP API: every route but /invoke, the OpenAPI document and its page."""
    app = FastAPIOffline(
        docs_url=None, redoc_url=None, static_url=PAGE_FILES, title="Hearth", version=__version__
    )
    app.state.parts = parts
    include_routes(app)
    serve_document(app)
    app.add_api_route("/docs", show_docs_page, include_in_schema=False)
    for error, handler in ERROR_HANDLERS.items():
        app.add_exception_handler(error, handler)
    return app
