"""The page that shows the OpenAPI document and calls functions: Swagger UI, from the gateway's own files."""

from __future__ import annotations

from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse

PAGE_FILES = "/docs/files"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The docs page may load from here only, and nobody may frame it. Swagger UI is set up by an inline script."""

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
"""Loads the document again when a key is given on the page, or taken back: it names the functions that the key may
see. Follows no redirect: a function could have the page send its reader's key to any place of the API."""


async def show_docs_page() -> HTMLResponse:
    """Return the page."""
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
    html = bytes(page.body).decode().replace("</body>", f"<script>{SHOW_WHAT_THE_KEY_SEES}</script></body>")
    return HTMLResponse(html, headers={"content-security-policy": PAGE_POLICY})
