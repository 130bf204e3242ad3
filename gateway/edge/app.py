"""The HTTP edge: the outermost ASGI app, and the FastAPI app behind it."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse

from gateway.access.access import CURRENT
from gateway.access.guard import Guard
from gateway.api.calls.accept import AcceptEndpoint
from gateway.api.functions import build_routes
from gateway.api.openapi_document import serve_document
from gateway.assembly.runtime import Runtime
from gateway.calls.caller import Caller
from gateway.http.browser_policy import for_browsers
from gateway.http.preferences import preferences
from gateway.http.problems import Problem, problem_of
from gateway.invoke.body import Receive, Send
from gateway.invoke.endpoint import PREFIX, InvokeEndpoint
from gateway.invoke.fast_call import FastPath
from gateway.memory.reservation import RESERVATION, Reservation, busy, head_bytes
from pool import __version__
from scheduler.calls.store import StoreError
from scheduler.definitions.language.callback_allow import Allowed

PAGE_FILES = "/docs/files"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The docs page may load from here only, and nobody may frame it. (Swagger UI is set up by an inline script.)"""

SHOW_WHAT_THE_KEY_SEES = """
let key = null;
ui.getConfigs().requestInterceptor = request => {
  request.redirect = "manual";
  if (request.loadSpec && key) request.headers = {...request.headers, Authorization: "Bearer " + key};
  return request;
};
ui.getStore().subscribe(() => {
  const given = ui.authSelectors.authorized().getIn(["key", "value"]) || null;
  if (given === key) return;
  key = given;
  ui.specActions.download("/openapi.json");
});
"""
"""Loads the document again when a key is given on the page, or taken back: it names what the key may see.
Follows no redirect: a function could have the page send its reader's key to any place of the API."""


class Edge:
    """Every request comes here: /invoke/ goes straight on, everything else to FastAPI."""

    def __init__(self, runtime: Runtime, guard: Guard) -> None:
        self._guard = guard
        self._access = runtime.access
        self._bodies = runtime.bodies
        self._invoke = InvokeEndpoint(
            runtime.dispatcher,
            runtime.registry,
            runtime.outcomes,
            runtime.logs,
            runtime.clock,
            runtime.launcher.obituary,
        )
        self.fast = FastPath(
            self._invoke,
            guard,
            runtime.access,
            runtime.dispatcher,
            runtime.outcomes,
            runtime.logs,
            runtime.clock,
            runtime.bodies,
        )
        """For the protocol of the clients' connections."""
        runtime.worker.run = Caller(self._invoke, self.fast, runtime.store)
        self._accept = AcceptEndpoint(
            self._invoke,
            runtime.registry,
            runtime.dispatcher,
            runtime.store,
            runtime.worker,
            runtime.clock,
            runtime.metrics,
            Allowed(runtime.settings.callback_allow),
        )
        self._app = build_app(runtime)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return  # no websockets, no lifespan: the server refuses or goes on
        headers, raw_path = scope["headers"], scope["raw_path"]
        if raw_path.startswith(PREFIX):
            admission = self._guard.fault(scope) or self._access.admit_call(headers, raw_path)
            if isinstance(admission, Problem):
                await self._invoke.refuse(scope, receive, send, admission)
                return
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
            app = self._app if reservation.take_head(head_bytes(scope)) else respond(busy())
            try:
                await app(scope, receive, for_browsers(send))
            finally:
                reservation.close()


def build_app(runtime: Runtime) -> FastAPI:
    """The FastAPI app: every route but /invoke, the OpenAPI document and its page."""
    app = FastAPIOffline(
        docs_url=None, redoc_url=None, static_url=PAGE_FILES, title="Hearth", version=__version__
    )
    app.include_router(build_routes(runtime))
    serve_document(app, runtime)

    @app.get("/docs", include_in_schema=False)
    async def docs_page() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="/openapi.json",
            title="Hearth",
            swagger_js_url=f"{PAGE_FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{PAGE_FILES}/swagger-ui.css",
            swagger_favicon_url=f"{PAGE_FILES}/favicon.png",
            swagger_ui_parameters={
                "displayRequestDuration": True,
                "defaultModelsExpandDepth": 0,
                "validatorUrl": None,  # else some layouts send the document's address to a public validator
            },
        )
        html = (
            bytes(page.body).decode().replace("</body>", f"<script>{SHOW_WHAT_THE_KEY_SEES}</script></body>")
        )
        return HTMLResponse(html, headers={"content-security-policy": PAGE_POLICY})

    @app.exception_handler(Problem)
    async def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        return respond(error)

    @app.exception_handler(StoreError)
    async def store_failed(_: Request, error: Exception) -> Response:
        return respond(problem_of(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        return respond(Problem("invalid-input", faults))

    @app.exception_handler(Exception)
    async def failed(_: Request, error: Exception) -> Response:
        return respond(problem_of(error))  # it is raised again after this, and the server logs it

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "")
            return respond(
                Problem(
                    "method-not-allowed",
                    f"{request.url.path} does not take {request.method}",
                    headers=((b"allow", allow.encode()),),
                )
            )
        return respond(Problem("not-found", f"there is nothing at {request.url.path}; see /docs"))

    return app


def respond(problem: Problem) -> Response:
    """A problem as a response of FastAPI."""
    body = problem.body()
    response = Response(body, status_code=problem.status)
    response.raw_headers = problem.response_headers(body)
    return response
