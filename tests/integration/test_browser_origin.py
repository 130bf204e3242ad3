"""A real browser opens what functions answer, with every odd content type. None acts for the gateway's origin."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import httpx
import pytest
from harness import Gateway, handler, in_parallel, server
from playwright.sync_api import Browser, Error, Page

pytestmark = pytest.mark.engine

SAID = """
import base64, json, socket, threading

def answer(client):
    with client:
        head = b""
        while b"\\r\\n\\r\\n" not in head:
            piece = client.recv(65536)
            if not piece:
                return
            head += piece
        said = json.loads(base64.urlsafe_b64decode(head.split()[1].partition(b"?")[2] or b"e30="))
        body = base64.b64decode(said.get("body", ""))
        lines = base64.b64decode(said.get("lines", ""))
        client.sendall(b"HTTP/1.1 200 OK\\r\\n" + lines + b"Content-Length: %d\\r\\nConnection: close\\r\\n\\r\\n"
                       % len(body) + body)

served = socket.create_server(("127.0.0.1", 8000))
while True:
    threading.Thread(target=answer, args=(served.accept()[0],)).start()
"""
"""A server that answers with the very bytes it is asked for."""
SENDS_ON = """
import socket

served = socket.create_server(("127.0.0.1", 8000))
while True:
    client = served.accept()[0]
    if client.recv(65536):
        client.sendall(b"HTTP/1.1 307 No\r\nLocation: /invoke/victim\r\nContent-Length: 0\r\n\r\n")
    client.close()
"""
REPEAT = """
import base64, json

def handle(event, context):
    said = json.loads(bytes(event).partition(b"=")[2]) if isinstance(event, (bytes, bytearray)) else event
    lines = base64.b64decode(said["lines"]).decode("latin-1").split("\\r\\n")[:-1]
    headers = [(name.strip(), value) for name, _, value in (line.partition(":") for line in lines)]
    return base64.b64decode(said["body"]), 200, headers
"""
VICTIM = "def handle(event, context):\n    return 'the answer of another function'\n"
CODE = (
    "var x = new XMLHttpRequest(); x.open('POST', '/invoke/victim', false); x.send('{}');"
    "if (x.responseText == 'the answer of another function') { x.open('POST', '/invoke/victim', false); x.send(); }"
)
"""It is done when the page is loaded. A page that may read what it was answered calls a second time."""
LOADS = (
    '<img src="/invoke/victim"/><link rel="stylesheet" href="/invoke/victim"/><iframe src="/invoke/victim"></iframe>'
    '<object data="/invoke/victim"></object><meta http-equiv="refresh" content="0;url=/invoke/victim"/>'
)
PAGE = f'<html xmlns="http://www.w3.org/1999/xhtml"><head><script>{CODE}</script></head><body>{LOADS}</body></html>'
"""It is HTML and XML at once."""
SVG = f'<svg xmlns="http://www.w3.org/2000/svg"><script>{CODE}</script></svg>'
PARTS = f"--a\r\nContent-Type: text/html\r\n\r\n{PAGE}\r\n--a\r\nContent-Type: text/html\r\n\r\n{PAGE}\r\n--a--\r\n"
ALLOWS = (
    b"Content-Security-Policy: sandbox allow-scripts allow-same-origin; default-src * 'unsafe-inline'\r\n"
    b"X-Content-Type-Options: sniff\r\nX-Content-Type-Options: nosniff, sniff\r\nX_Content_Type_Options: none\r\n"
    b"Refresh: 0;url=/invoke/victim\r\nLink: </invoke/victim>; rel=preload; as=script\r\n"
    b"Content-Security-Policy-Report-Only: default-src 'none'; report-uri /invoke/victim\r\n"
)


@dataclass(frozen=True)
class Answer:
    """What a function is to say: the lines of its head, and its body."""

    lines: bytes
    body: bytes = PAGE.encode()

    @property
    def asked(self) -> dict[str, str]:
        """It as JSON can hold it."""
        return {"lines": base64.b64encode(self.lines).decode(), "body": base64.b64encode(self.body).decode()}


def of_type(*values: bytes, body: bytes = PAGE.encode()) -> Answer:
    """An answer with these content types, each in a field of its own."""
    return Answer(b"".join(b"Content-Type: " + value + b"\r\n" for value in values), body)


ANSWERS = [
    Answer(b""),
    Answer(ALLOWS),
    of_type(b"*/*"),
    of_type(b""),
    of_type(b"text/html"),
    of_type(b"text/html;"),
    of_type(b"TEXT/HTML"),
    of_type(b"  \t text/html"),
    of_type(b"text/html; charset=utf-8"),
    of_type(b"text/html", b"text/plain"),
    of_type(b"text/plain", b"text/html"),
    of_type(b"text/plain, text/html"),
    of_type(b"text/html, text/plain"),
    of_type(b"*/*, text/html"),
    of_type(b"text/*"),
    of_type(b"text"),
    of_type(b"html"),
    of_type(b"text/ html"),
    of_type(b"text /html"),
    of_type(b"text/html\x0b"),
    of_type(b"text/plain"),
    of_type(b"text/css"),
    of_type(b"text/javascript", body=CODE.encode()),
    of_type(b"application/json"),
    of_type(b"application/octet-stream"),
    of_type(b"application/unknown"),
    of_type(b"unknown/unknown"),
    of_type(b"application/x-unknown-content-type"),
    of_type(b"image/png"),
    of_type(b"video/mp4"),
    of_type(b"application/xml"),
    of_type(b"text/xml"),
    of_type(b"text/xml-foo"),
    of_type(b"text/xsl"),
    of_type(b"application/rss+xml"),
    of_type(b"application/xhtml+xml"),
    of_type(b"application/vnd.wap.xhtml+xml"),
    of_type(b"image/svg+xml", body=SVG.encode()),
    of_type(b"image/svg+xml; charset=utf-8", body=SVG.encode()),
    of_type(b"multipart/x-mixed-replace; boundary=a", body=PARTS.encode()),
    of_type(b"multipart/mixed; boundary=a", body=PARTS.encode()),
    of_type(b"message/rfc822", body=b"Content-Type: text/html\r\n\r\n" + PAGE.encode()),
    of_type(b"text/html; charset=utf-7", body=PAGE.encode("utf-7")),
    of_type(b"text/plain; charset=utf-7", body=PAGE.encode("utf-7")),
    of_type(b"text/html; charset=utf-16", body=PAGE.encode("utf-16")),
    of_type(b"text/plain; charset=utf-16", body=PAGE.encode("utf-16")),
    of_type(b"text/html; charset=iso-2022-jp"),
    Answer(b"Content_Type: text/html\r\n"),
    Answer(b"Content-Type : text/html\r\n"),
    Answer(b"Content-Type: text/plain\r\n Content-Type: text/html\r\n"),
    Answer(b"X: a\nContent-Type: text/html\r\n"),
    Answer(b"X: a\rContent-Type: text/html\r\n"),
    Answer(b"Content-Disposition: inline\r\nContent-Type: \r\n"),
    Answer(b"Content-Type: text/html\r\n" + ALLOWS),
    Answer(b"Content-Type: image/svg+xml\r\n" + ALLOWS, SVG.encode()),
    Answer(b"Connection: x-content-type-options, content-security-policy, content-type\r\n"),
    Answer(b"Connection: content-security-policy\r\nContent-Type: text/html\r\n"),
]
CONTROLS = [Answer(b"Content-Type: text/html\r\n"), of_type(b"image/svg+xml", body=SVG.encode())]
"""What runs if it is a function's with `web: true`."""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "victim": handler(VICTIM),
        "said": server(SAID, concurrency=8, max_instances=1),
        "sends-on": server(SENDS_ON, max_instances=1),
        "said-web": server(SAID, concurrency=8, max_instances=1, web=True),
        "repeat": handler(REPEAT, max_instances=1),
        "repeat-web": handler(REPEAT, max_instances=1, web=True),
    }
    folder, sections = (
        tmp_path_factory.mktemp("origin"),
        {"workflows": {"flow": ["repeat"], "flow-web": ["repeat-web"]}},
    )
    with Gateway(folder, functions, prewarm={"python": 1}, sections=sections) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


# -- the ways to see an answer ----------------------------------------------------------------------------------

See = Callable[[Page], None]
"""Has a page show one answer."""
Way = Callable[[Gateway, Sequence[Answer], str], list[See]]


def by_link(gateway: Gateway, answers: Sequence[Answer], mark: str = "") -> list[See]:
    """Follow a link to a function that serves HTTP."""
    return [partial(visit, url=f"{gateway.url}/invoke/said{mark}/?{query_of(answer)}") for answer in answers]


def by_form(gateway: Gateway, answers: Sequence[Answer], mark: str = "") -> list[See]:
    """Send a form of a page of the same origin to a handler, which takes nothing but POST."""
    return [partial(send_form, f"{gateway.url}/invoke/repeat{mark}", answer) for answer in answers]


def by_result_of_server(gateway: Gateway, answers: Sequence[Answer], mark: str = "") -> list[See]:
    """Follow a link to what a function that serves HTTP has answered later."""
    return results(
        answers,
        lambda answer, later: gateway.http.post(f"/invoke/said{mark}/?{query_of(answer)}", headers=later),
    )


def by_result_of_handler(gateway: Gateway, answers: Sequence[Answer], mark: str = "") -> list[See]:
    """Follow a link to what a handler has answered later."""
    return results(answers, lambda answer, later: gateway.call(f"repeat{mark}", answer.asked, headers=later))


def by_output_of_run(gateway: Gateway, answers: Sequence[Answer], mark: str = "") -> list[See]:
    """Follow a link to what a run of a workflow has answered."""

    def run(number: int) -> See:
        told = gateway.http.post(
            f"/workflows/flow{mark}", json=answers[number].asked, headers={"prefer": "wait=30"}
        )
        return partial(visit, url=f"{gateway.url}{told.headers['location']}/output")

    return in_parallel(run, len(answers), 16)


def results(answers: Sequence[Answer], call: Callable[[Answer, dict[str, str]], httpx.Response]) -> list[See]:
    """Have calls run later; how to see where their answers are."""

    def accepted(number: int) -> See:
        told = call(answers[number], {"prefer": "respond-async, wait=30"})
        place = f"/invocations/{told.headers['x-invocation-id']}/result"
        return partial(visit, url=str(told.url.join(place)))

    return in_parallel(accepted, len(answers), 16)


def query_of(answer: Answer) -> str:
    return base64.urlsafe_b64encode(json.dumps(answer.asked).encode()).decode()


def send_form(action: str, answer: Answer, page: Page) -> None:
    """Fill a form with what a handler is to say, and send it."""
    field = json.dumps(answer.asked).replace('"', "&quot;")
    form = (
        f'<form method="post" enctype="text/plain" action="{action}"><input name="a" value="{field}"/></form>'
    )
    place = action.replace("/invoke/", "/form-for-")
    page.route(place, lambda route: route.fulfill(content_type="text/html", body=form))
    visit(page, place)
    page.unroute(place)
    try:
        with page.expect_navigation():
            page.evaluate("document.forms[0].submit()")
    except Error as error:
        assert "ERR_ABORTED" in str(error), error


def visit(page: Page, url: str) -> None:
    """Load a page whole, or begin with a download."""
    try:
        page.goto(url)
    except Error as error:
        assert "Download is starting" in str(error) or "ERR_ABORTED" in str(error), error


def calls_of_victim(gateway: Gateway) -> float:
    """How often the other function was called, or asked for in a way that it does not take."""
    return gateway.metric("hearth_invocations_total", function="victim")


@pytest.mark.parametrize("answer", CONTROLS, ids=["html", "svg"])
@pytest.mark.parametrize("way", [by_link, by_form])
def test_what_a_web_function_answers_runs(gateway: Gateway, page: Page, way: Way, answer: Answer) -> None:
    """A control: the test below would see it."""
    before = calls_of_victim(gateway)
    [see] = way(gateway, [answer], "-web")
    see(page)
    assert calls_of_victim(gateway) >= before + 2


@pytest.mark.parametrize("way", [by_link, by_form, by_result_of_server, by_result_of_handler])
def test_what_other_functions_answer_runs_nothing(gateway: Gateway, page: Page, way: Way) -> None:
    before = calls_of_victim(gateway)
    asked: set[str] = set()
    page.on("response", lambda response: asked.add(response.url))
    acted = []
    for answer, see in zip(ANSWERS, way(gateway, ANSWERS, ""), strict=True):
        asked.clear()
        see(page)
        if f"{gateway.url}/invoke/victim" in asked:
            acted.append(answer.lines)
    visit(page, "about:blank")
    assert acted == []
    assert calls_of_victim(gateway) == before


@pytest.mark.parametrize("way", [by_result_of_server, by_result_of_handler, by_output_of_run])
@pytest.mark.parametrize("mark", ["", "-web"])
def test_what_is_kept_runs_nothing_whoever_made_it(gateway: Gateway, page: Page, way: Way, mark: str) -> None:
    """It is read at a place of the API."""
    before = calls_of_victim(gateway)
    statuses: list[int] = []
    page.on("response", lambda response: statuses.append(response.status))
    for see in way(gateway, CONTROLS, mark):
        see(page)
    assert statuses == [200, 200]
    assert calls_of_victim(gateway) == before


def test_a_page_is_shown_all_the_same_and_what_has_no_type_is_saved(gateway: Gateway, page: Page) -> None:
    html = "<h1 style='color: red'>Shown</h1><script>document.body.textContent = 'no'</script>"
    shown, saved = by_link(gateway, [of_type(b"text/html", body=html.encode()), Answer(b"", b"bytes")])
    shown(page)
    assert page.locator("h1").inner_text() == "Shown"
    with page.expect_download() as download:
        saved(page)
    assert download.value.path().read_bytes() == b"bytes"


def test_the_docs_page_goes_nowhere_that_a_function_sends_it(gateway: Gateway, page: Page) -> None:
    """It would take the reader's key along."""
    before = calls_of_victim(gateway)
    page.goto(f"{gateway.url}/docs")
    operation = page.locator("#operations-invoke-invoke")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.locator("select").first.select_option("sends-on")
    operation.get_by_role("button", name="Execute").click()
    operation.locator(".live-responses-table .response").wait_for()
    assert calls_of_victim(gateway) == before
