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

COMPACT = """
.swagger-ui .info { margin: 20px 0 }
.swagger-ui .scheme-container { padding: 10px 0 }
.swagger-ui .opblock-body .opblock-description-wrapper { padding: 8px 20px 0 }
.swagger-ui .opblock-description-wrapper p { margin: 0 0 4px }
.swagger-ui .opblock .opblock-section-header { min-height: 34px; padding: 0 20px }
.swagger-ui .opblock-section-header .btn { padding: 2px 20px }
.swagger-ui :is(.parameters-container, .responses-inner) { padding: 2px 20px }
.swagger-ui .table-container { padding: 0 20px }
.swagger-ui .opblock-section-request-body { padding: 0; margin: 4px 0 }
.swagger-ui .opblock-description-wrapper:has(> .body-param) { padding: 2px 20px }
.swagger-ui :is(.parameters, .responses-table) tbody tr td:is(:first-of-type, :last-of-type, td) {
  padding: 3px 0; font-size: 13px }
.swagger-ui :is(.parameters, .responses-table) thead { display: none }
.swagger-ui :is(.parameters, .responses-table) p, .swagger-ui .opblock-section p { margin: 0; font-size: 13px }
.swagger-ui .parameters .parameter__name { font-size: 13px; margin: 0 }
.swagger-ui .parameters .parameter__name.required:after { padding: 0 4px }
.swagger-ui .parameters .parameter__deprecated { display: none }
.swagger-ui .parameters :is(.parameter__type, .parameter__in) { display: inline; padding: 0 4px 0 0 }
.swagger-ui .execute-wrapper:not(:has(button)) { display: none }
.swagger-ui .parameters :is(.parameter__enum, .parameter__default, .parameter__extension) { display: none }
.swagger-ui .parameters .parameters-col_description { display: flex; gap: 2px 14px; align-items: start; margin: 0 }
.swagger-ui .parameters .parameters-col_description > :first-child { flex: 1 1 0 }
.swagger-ui .parameters .parameters-col_description :is(input, select) { width: 240px; min-width: 0; margin: 0;
  padding: 3px 8px; font-size: 13px }
.swagger-ui .opblock .model-example ul.tab { margin: 2px 0; padding: 0 }
.swagger-ui :is(.model-example, .body-param__example) { margin: 0 }
.swagger-ui .opblock pre.example, .swagger-ui .highlight-code > .microlight { min-height: 0; max-height: 130px;
  margin: 0; padding: 4px 8px; overflow: auto }
.swagger-ui .responses-table:not(.live-responses-table) :is(.headers__title, .headers, .response__extension,
  .response-controls, .response-col_links) { display: none }
.swagger-ui .responses-table:not(.live-responses-table) :is(tbody, table) { display: block }
.swagger-ui .responses-table:not(.live-responses-table) .response { display: flex }
.swagger-ui .responses-table:not(.live-responses-table) .response-col_status { flex: none; min-width: 0; width: 50px }
.swagger-ui .responses-table:not(.live-responses-table) .response-col_description { flex: 1 1 0; min-width: 0 }
.swagger-ui .responses-table:not(.live-responses-table) .response:is([data-code^="4"], [data-code^="5"]) {
  display: inline-flex; margin-right: 24px; vertical-align: top }
.swagger-ui .responses-table:not(.live-responses-table) .response:is([data-code^="4"], [data-code^="5"])
  .response-col_status { min-width: 0; width: 36px }
.swagger-ui .responses-table:not(.live-responses-table) .response:is([data-code^="4"], [data-code^="5"])
  .response-col_description { flex: 0 1 auto }
.swagger-ui .responses-table:not(.live-responses-table) .response:is([data-code^="4"], [data-code^="5"])
  .response-col_description > :not(:first-child) { display: none }
.swagger-ui .response-undocumented { display: none }
.swagger-ui .responses-table .renderedMarkdown code { padding: 0 4px }
"""
"""Style by which an operation fits on a screen. Of problems the page shows what they are; their bodies are alike."""
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
    own = f"<style>{COMPACT}</style><script>{SHOW_WHAT_THE_KEY_SEES}</script></body>"
    html = bytes(page.body).decode().replace("</body>", own)
    return HTMLResponse(html, headers={"content-security-policy": PAGE_POLICY})
