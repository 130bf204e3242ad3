"""The example functions: functions.yaml is sound, and the handlers do what their docstrings say."""

import ast
import asyncio
import http.client
import importlib.util
import inspect
import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from click.testing import CliRunner

from gateway.cli import main
from scheduler.definitions import source_folder
from scheduler.definitions.file import Definitions, Kind, load

ROOT = Path(__file__).parents[3]
EXAMPLES = {
    "hello": Kind.HANDLER,
    "thumbnail": Kind.HANDLER,
    "fanout": Kind.HANDLER,
    "countdown": Kind.HANDLER,
    "api": Kind.HTTP,
    "wordcount": Kind.COMMAND,
    "gallery-names": Kind.HANDLER,
    "gallery-read": Kind.HANDLER,
    "gallery-page": Kind.HANDLER,
}
"""The functions that come with Hearth. People add theirs to the same file, with `hearth init`."""
STEPS = "{steps: {one: {function: mine}}}"


@pytest.fixture(scope="module", params=["as it comes", "after hearth init"])
def definitions(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Definitions:
    """functions.yaml, and a copy of it to which somebody has added functions."""
    if request.param == "as it comes":
        return load(ROOT / "functions.yaml")
    folder = tmp_path_factory.mktemp("checkout")
    shutil.copy(ROOT / "functions.yaml", folder)
    shutil.copytree(ROOT / "functions", folder / "functions")
    for name, kind in (("mine", "handler"), ("mine-served", "http"), ("mine-run", "command")):
        made = CliRunner().invoke(main, ["init", name, "--kind", kind, "--dir", str(folder)])
        assert made.exit_code == 0, made.output
    (folder / "functions/mine/requirements.txt").write_text("six\n")
    (folder / "functions/mine/handler.py").write_text("handle = print\n")
    file = folder / "functions.yaml"
    file.write_text(file.read_text().replace("\nworkflows:\n", f"\nworkflows:\n  mine: {STEPS}\n"))
    assert "mine" in load(file).workflows
    return load(file)


def module(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        path.replace("/", "_").removesuffix(".py"), ROOT / "functions" / path
    )
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def test_what_is_declared(definitions: Definitions) -> None:
    assert {name: definitions.functions[name].kind for name in EXAMPLES} == EXAMPLES
    assert definitions.prewarm == {"python": 2}
    assert definitions.functions["thumbnail"].memory == 256 * 2**20
    assert definitions.functions["fanout"].concurrency == 8
    assert definitions.functions["wordcount"].command == ("wc", "-w")


def test_every_handler_is_a_documented_function_of_its_source(definitions: Definitions) -> None:
    for example in EXAMPLES:
        function = definitions.functions[example]
        if function.kind is Kind.HANDLER:
            assert function.source is not None and function.handler is not None
            file, _, name = function.handler.partition(":")
            code = dict(source_folder.collect(function.source).files)
            tree = ast.parse(code[f"{file}.py"])
            found = [node for node in tree.body if getattr(node, "name", None) == name]
            assert len(found) == 1 and len(found[0].args.args) == 2
            assert code[f"{file}.py"].startswith(b'"""')


def test_only_thumbnail_needs_an_image_of_its_own(definitions: Definitions) -> None:
    needing = [
        name
        for name in EXAMPLES
        if (source := definitions.functions[name].source) is not None
        and source_folder.collect(source).requirements is not None
    ]
    assert needing == ["thumbnail"]


def test_the_gallery_shows_every_picture_that_has_a_thumbnail(definitions: Definitions) -> None:
    assert "gallery" in definitions.workflows
    gallery = module("gallery/gallery.py")
    names = gallery.names(None, None)
    assert len(names) == 6
    assert all(gallery.read(name.encode(), None)[0].startswith(b"\xff\xd8\xff") for name in names)
    assert [gallery.read(name, None)[1] for name in ("../gallery.py", "/etc/passwd", "none", "", 3)] == [
        404
    ] * 5
    thumbnails = [{"content_type": "image/jpeg", "base64": "aGVsbG8="}, None]
    page, status, _ = gallery.page({"title": "<A>", "names": names[:2], "thumbnails": thumbnails}, None)
    assert status == 200 and "&lt;A&gt;" in page
    assert page.count("<img ") == 1 and f'alt="{names[0]}" src="data:image/jpeg;base64,aGVsbG8="' in page


def test_hello() -> None:
    handle = module("hello/handler.py").handle
    assert handle({"name": "Ada"}, None) == {"message": "Hello, Ada!"}
    for event in (None, {}, b"Ada", [], {"name": ""}):
        assert handle(event, None) == {"message": "Hello, world!"}


def test_fanout_waits_for_all_at_once() -> None:
    fanout = module("fanout/handler.py").fanout
    assert inspect.iscoroutinefunction(fanout)
    start = time.monotonic()
    answer = asyncio.run(fanout({"delays": [0.2] * 10}, None))
    assert time.monotonic() - start < 1.5
    assert answer["tasks"] == 10 and answer["sum"] == 2.0 and answer["seconds"] < 1.5
    assert asyncio.run(fanout(None, None))["tasks"] == 3


@pytest.mark.parametrize("delays", [[-1], [6], ["1"], [True], 3, None, [0.0] * 101, [float("nan")]])
def test_fanout_refuses_what_it_cannot_wait_for(delays: object) -> None:
    _, status, _ = asyncio.run(module("fanout/handler.py").fanout({"delays": delays}, None))
    assert status == 400


def test_countdown_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    countdown = module("countdown/handler.py")
    pauses: list[float] = []
    monkeypatch.setattr(countdown.time, "sleep", pauses.append)
    events, status, headers = countdown.countdown({"from": 2}, None)
    assert status == 200 and headers["content-type"] == "text/event-stream"
    assert inspect.isgenerator(events)
    assert next(events) == "data: 2\n\n" and pauses == []
    assert list(events) == ["data: 1\n\n", "data: 0\n\n"] and pauses == [1.0, 1.0]


@pytest.mark.parametrize("start", [-1, 21, "3", True, None])
def test_countdown_refuses_what_it_cannot_count(start: object) -> None:
    assert module("countdown/handler.py").countdown({"from": start}, None)[1] == 400


@pytest.fixture(scope="module")
def api() -> Iterator[http.client.HTTPConnection]:
    """One connection for all tests: that it stays open is what is tested too."""
    server = module("api/server.py").Server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    yield connection
    connection.close()
    server.shutdown()
    thread.join()
    server.server_close()


def call(api: http.client.HTTPConnection, method: str, path: str, body: object = None) -> tuple[int, object]:
    api.request(method, path, None if body is None else json.dumps(body))
    response = api.getresponse()
    data = response.read()
    return response.status, json.loads(data) if data else None


def test_api_routes(api: http.client.HTTPConnection) -> None:
    assert call(api, "GET", "/healthz") == (200, {"status": "ok"})
    port = api.sock.getsockname()
    assert call(api, "GET", "/notes") == (200, [])
    assert call(api, "POST", "/notes", {"text": "buy milk"}) == (201, {"id": 1, "text": "buy milk"})
    assert call(api, "GET", "/notes/1") == (200, {"id": 1, "text": "buy milk"})
    assert call(api, "DELETE", "/notes/1") == (200, {"id": 1, "text": "buy milk"})
    assert call(api, "GET", "/notes/1")[0] == 404
    assert call(api, "POST", "/notes", ["text"])[0] == 400
    assert call(api, "POST", "/elsewhere", {})[0] == 404
    assert call(api, "HEAD", "/") == (200, None)
    status, echo = call(api, "GET", "/echo?a=1&b=2")
    assert status == 200 and isinstance(echo, dict) and echo["query"] == {"a": "1", "b": "2"}
    assert api.sock.getsockname() == port, "the connection was not kept"


def test_api_ends_the_connection_when_it_leaves_a_body_unread(api: http.client.HTTPConnection) -> None:
    for method, path, length in (
        ("POST", "/notes", "99999999"),
        ("POST", "/notes", "x"),
        ("DELETE", "/notes/1", "5"),
    ):
        api.putrequest(method, path)
        api.putheader("content-length", length)
        api.endheaders()
        response = api.getresponse()
        response.read()
        assert response.status in (404, 413) and response.getheader("connection") == "close"
