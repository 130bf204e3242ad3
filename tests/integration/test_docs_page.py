"""The docs page in a real browser, pages of others that try the same, and the curl lines of the reference.

`RENEW_SCREENSHOT=1 .venv/bin/python -m pytest tests/integration/test_docs_page.py -k screenshot` makes
docs/images/docs-page.png anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from chromium import STRANGE_NAME
from harness import Gateway, command, handler
from playwright.sync_api import Browser, BrowserContext, Locator, Page

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes

pytestmark = pytest.mark.engine

ROOT = Path(__file__).parents[2]
SCREENSHOT = ROOT / "docs" / "images" / "docs-page.png"
SCHEMA = {
    "input": {"title": "Greet somebody", "type": "object", "properties": {"name": {"type": "string"}}},
    "output": {"properties": {"message": {"type": "string", "examples": ["Hello, Ada!"]}}},
    "example": {"name": "Ada"},
}
SCREEN = {"width": 1280, "height": 800}
API = {"image": "hearth-example/api:latest", "port": 8000, "concurrency": 16, "health": "/healthz"}


def code_of(example: str) -> str:
    """The code of an example function."""
    return (ROOT / "functions" / example / "handler.py").read_text()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with a function of each kind."""
    functions = {
        "hello": {**handler(code_of("hello")), "schema": SCHEMA},
        "countdown": handler(code_of("countdown") + "\nhandle = countdown\n"),
        "wordcount": command("wc", "-w"),
        "api": API,
    }
    with Gateway(tmp_path_factory.mktemp("docs"), functions, prewarm={"python": 1}) as running:
        yield running


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    made = browser.new_context(viewport={"width": 1100, "height": 1400})
    yield made
    made.close()


@pytest.fixture
def page(context: BrowserContext, gateway: Gateway) -> Page:
    """The docs page, opened and drawn."""
    page = context.new_page()
    page.goto(f"{gateway.url}/docs")
    page.locator("#operations-invoke-invoke").wait_for()
    return page


def execute(page: Page, function: str) -> Locator:
    """Call a function as a reader would; the part of the page that shows the answer."""
    operation = page.locator("#operations-invoke-invoke")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("select").first.select_option(function)
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response")
    answer.wait_for()
    return answer


def test_it_loads_nothing_from_anywhere_else(context: BrowserContext, gateway: Gateway) -> None:
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{gateway.url}/docs")
    page.locator("#operations-invoke-invoke").wait_for()
    execute(page, "hello")
    page.wait_for_load_state("networkidle")
    reached = {urlsplit(url).netloc for url in asked if urlsplit(url).scheme not in ("data", "blob")}
    assert reached == {urlsplit(gateway.url).netloc}
    paths = {urlsplit(url).path for url in asked}
    assert {"/docs", "/openapi.json", "/docs/files/swagger-ui-bundle.js", "/invoke/hello"} <= paths
    assert errors == []


def test_it_offers_the_functions_by_name(page: Page) -> None:
    def choice(operation: Locator) -> list[str]:
        operation.locator(".opblock-summary-control").click()
        operation.get_by_role("button", name="Try it out").click()
        return operation.locator("select").first.locator("option").all_inner_texts()

    names = ["api", "countdown", "hello", "wordcount"]
    assert choice(page.locator("#operations-invoke-invoke")) == names
    assert choice(page.locator("#operations-invoke-invoke_get")) == ["api"]


def test_a_function_that_describes_its_input_answers_to_its_own_example(page: Page, gateway: Gateway) -> None:
    operation = page.locator("#operations-invoke-call_hello")
    assert "Greet somebody" in operation.inner_text()
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    with gateway.counted("ok", "none", "hello"):
        operation.get_by_role("button", name="Execute").click()
        answer = operation.locator(".live-responses-table .response")
        answer.wait_for()
    assert '"message": "Hello, Ada!"' in answer.inner_text()


@pytest.mark.parametrize("name", ["invoke-call_hello", "invoke-invoke", "jobs-start_job", "calls-list_calls"])
def test_an_operation_fits_on_a_screen_and_has_no_filler(page: Page, name: str) -> None:
    page.set_viewport_size(SCREEN)
    operation = page.locator(f"#operations-{name}")
    operation.locator(".opblock-summary-control").click()
    operation.locator(".responses-table").wait_for()
    box = operation.bounding_box()
    assert box is not None and box["height"] <= SCREEN["height"]
    shown = "\n".join(operation.locator("pre").all_inner_texts())
    assert '"string"' not in shown and not shown.strip().startswith("string")
    assert operation.locator('.response[data-code="4XX"], .response[data-code="403"]').is_visible()


def test_its_groups_are_in_order(page: Page) -> None:
    groups = page.locator("h3.opblock-tag").evaluate_all("tags => tags.map(tag => tag.dataset.tag)")
    before, after = (
        ["invoke", "calls", "async", "workflows", "jobs", "triggers"],
        ["functions", "pool", "logs", "health"],
    )
    assert groups == [*before, *after]


def test_execute_shows_the_answer_and_how_it_started_and_a_screenshot(page: Page, gateway: Gateway) -> None:
    with gateway.counted("ok", "none", "hello"):
        answer = execute(page, "hello")
    assert '"message": "Hello, Ada!"' in answer.inner_text()
    headers = [line.strip() for line in answer.locator(".headerline").all_inner_texts()]
    assert any(re.fullmatch(r"x-hearth-start: (warm|prewarmed|cold)", line) for line in headers), headers
    assert any(re.fullmatch("x-invocation-id: [0-9a-f]{32}", line) for line in headers), headers
    if os.environ.get("RENEW_SCREENSHOT"):
        take_screenshot(page)
    assert 0 < SCREENSHOT.stat().st_size < 200_000


def take_screenshot(page: Page) -> None:
    """The operation, from its name to the answer."""
    page.add_style_tag(content="#operations-invoke-invoke textarea { min-height: 0; height: 70px }")
    page.evaluate("document.activeElement.blur()")
    operation = page.locator("#operations-invoke-invoke").bounding_box()
    answer = page.locator("#operations-invoke-invoke .live-responses-table").bounding_box()
    assert operation is not None and answer is not None
    top = operation["y"] + page.evaluate("window.scrollY")
    height = answer["y"] + answer["height"] - operation["y"]
    SCREENSHOT.parent.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOT, full_page=True, clip={**operation, "y": top, "height": height})


def test_a_path_of_a_server_is_called(page: Page) -> None:
    operation = page.locator("#operations-invoke-invoke_get")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("input[placeholder=path]").fill("whoami")
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response")
    answer.wait_for()
    assert '"hostname"' in answer.inner_text()


# -- with keys ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    """A gateway that needs a key, and one that may invoke hello only."""
    text, _ = create("page", parse_scopes(["invoke:hello"]), UNLIMITED, None, 0.0)
    functions = {name: handler(code_of("hello")) for name in ("hello", "other")}
    settings = {"api_keys": f"{text} invoke:hello"}
    with Gateway(tmp_path_factory.mktemp("keyed"), functions, settings=settings) as running:
        yield running, text


def test_a_key_is_given_on_the_page_and_names_its_functions(
    context: BrowserContext, keyed: tuple[Gateway, str]
) -> None:
    gateway, key = keyed
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(f"{gateway.url}/docs")
    operation = page.locator("#operations-invoke-invoke")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("input[placeholder=function]").fill("hello")
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response")
    answer.wait_for()
    assert "urn:hearth:problem:unauthorized" in answer.inner_text()
    assert "other" not in operation.locator("select").all_inner_texts()

    page.get_by_role("button", name="Authorize").click()
    dialog = page.locator(".dialog-ux")
    dialog.locator("input").fill(key)
    dialog.get_by_role("button", name="Apply credentials").click()
    dialog.get_by_role("button", name="Close").click()
    choice = operation.locator("select").first
    choice.locator("option[value=hello]").wait_for(state="attached")
    assert choice.locator("option").all_inner_texts() == ["hello"]
    operation.get_by_role("button", name="Try it out").click()
    choice.select_option("hello")
    operation.get_by_role("button", name="Execute").click()
    page.get_by_text('"message": "Hello, Ada!"').first.wait_for()
    assert errors == []
    assert page.evaluate("JSON.stringify([localStorage, sessionStorage])") == "[{},{}]", "the page forgets it"


# -- pages of others ------------------------------------------------------------------------------------------


ATTACK = """
<img src="{url}/invoke/api/image">
<script>
fetch("{url}/invoke/hello", {{method: "POST", mode: "no-cors", body: '{{"name": "Eve"}}'}}).catch(() => 0);
fetch("{url}/invoke/api/fetch", {{mode: "no-cors"}}).catch(() => 0);
</script>
<form method="post" action="{url}/invoke/hello"><button>Win a prize</button></form>
"""


@contextmanager
def site(html: str) -> Iterator[int]:
    """A web server of somebody else, on a port of its own."""

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

        def log_message(self, *_: object) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=served.serve_forever)
    thread.start()
    try:
        yield served.server_port
    finally:
        served.shutdown()
        thread.join()
        served.server_close()


def not_forbidden(gateway: Gateway) -> float:
    """How many invocations ended, but for those that were refused at the door."""
    name = "hearth_invocations_total"
    return gateway.metric(name) - gateway.metric(name, outcome="forbidden")


@pytest.mark.parametrize("where", ["http://127.0.0.1:{port}/", "http://localhost:{port}/", "file://{file}"])
def test_pages_of_others_run_nothing(
    context: BrowserContext, gateway: Gateway, tmp_path: Path, where: str
) -> None:
    html = ATTACK.format(url=gateway.url)
    (tmp_path / "page.html").write_text(html)
    before = not_forbidden(gateway)
    asked: set[str] = set()
    answers: dict[tuple[str, str], int] = {}
    context.on("request", lambda request: asked.add(urlsplit(request.url).path))
    context.on("response", lambda r: answers.update({(r.request.method, urlsplit(r.url).path): r.status}))
    page = context.new_page()
    with site(html) as port:
        page.goto(where.format(port=port, file=tmp_path / "page.html"))
        page.wait_for_load_state("networkidle")
        assert "/invoke/api/image" in asked  # its answer is not even shown to us: the browser blocks it too
        assert answers[("POST", "/invoke/hello")] == answers[("GET", "/invoke/api/fetch")] == 403
        answers.clear()
        page.get_by_role("button", name="Win a prize").click()
        page.wait_for_load_state("networkidle")
        assert answers.get(("POST", "/invoke/hello")) == 403
        assert "may not call this gateway" in page.content()
    assert not_forbidden(gateway) == before


def test_a_link_from_elsewhere_to_the_docs_page_works(context: BrowserContext, gateway: Gateway) -> None:
    page = context.new_page()
    with site(f'<a href="{gateway.url}/docs">docs</a>') as port:
        page.goto(f"http://localhost:{port}/")
        page.get_by_role("link").click()
        page.locator("#operations-invoke-invoke").wait_for()


def test_a_name_that_was_made_to_point_here_is_refused(context: BrowserContext, gateway: Gateway) -> None:
    page = context.new_page()
    answer = page.goto(gateway.url.replace("127.0.0.1", STRANGE_NAME) + "/docs")
    assert answer is not None and answer.status == 403
    assert STRANGE_NAME in page.content()


def test_nobody_may_frame_it(context: BrowserContext, gateway: Gateway) -> None:
    page = context.new_page()
    with site(f'<iframe src="{gateway.url}/docs"></iframe>') as port:
        page.goto(f"http://localhost:{port}/")
        page.wait_for_load_state("networkidle")
        assert page.frame_locator("iframe").locator("#swagger-ui").count() == 0


# -- the reference --------------------------------------------------------------------------------------------


def examples() -> list[tuple[str, str | None]]:
    """Every shell block of the reference, with what it prints where the document says so."""
    text = "".join((ROOT / "docs" / name).read_text() for name in ("http-api.md", "metrics.md"))
    found = re.findall(r"```sh\n(.*?)```(?:\n```(?:json|text)\n(.*?)```)?", text, re.DOTALL)
    return [(lines, printed or None) for lines, printed in found]


@pytest.mark.parametrize(("lines", "printed"), examples())
def test_the_references_examples_work(gateway: Gateway, lines: str, printed: str | None) -> None:
    assert "http://127.0.0.1:8080/" in lines
    if "pool/instances" in lines:
        gateway.call("hello", {})  # there must be one to be looked at
    script = 'set -eu; curl() { command curl --fail --silent --show-error "$@"; }\n'
    script += lines.replace("http://127.0.0.1:8080", gateway.url)
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    if printed is not None:
        assert done.stdout.strip() == printed.strip()
