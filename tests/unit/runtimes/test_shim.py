"""The Python shim as its own process, with this test as the gateway that it dials."""

from __future__ import annotations

import base64
import json
import py_compile
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from tests.support.warm_call_loop import ANSWER

SHIM = Path(__file__).parents[3] / "runtimes" / "python" / "shim.py"
PATIENCE = 10.0


class Reply:
    """A response as it was framed on the wire."""

    def __init__(
        self, status: int, headers: list[tuple[str, str]], body: bytes, complete: bool = True
    ) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.complete = complete

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def outcome(self) -> str | None:
        return self.header("X-Hearth-Outcome")


class Slot:
    """The gateway's end of one connection to `calls.sock`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self.file = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(
        self, method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> Reply:
        self.send(request(method, target, headers, body))
        return self.reply(head_only=method == "HEAD")

    def call(self, body: bytes = b"", content_type: str | None = None, deadline: str = "30") -> Reply:
        given = {"X-Invocation-Id": "i-1", "X-Hearth-Deadline": deadline}
        if content_type is not None:
            given["Content-Type"] = content_type
        return self.ask("POST", "/", given, body)

    def head(self) -> tuple[int, list[tuple[str, str]]]:
        line = self.file.readline()
        assert line, "the shim closed the connection"
        version, status, _reason = line.decode("latin-1").split(" ", 2)
        assert version == "HTTP/1.1"
        headers = []
        while (line := self.file.readline()) != b"\r\n":
            name, _, value = line.decode("latin-1").rstrip("\r\n").partition(": ")
            headers.append((name, value))
        return int(status), headers

    def chunk(self) -> bytes | None:
        """The next chunk, b"" at the body's end, None if the connection ends before it."""
        line = self.file.readline()
        if not line:
            return None
        data = self.file.read(int(line, 16))
        assert self.file.read(2) == b"\r\n"
        return data

    def reply(self, head_only: bool = False) -> Reply:
        status, headers = self.head()
        reply = Reply(status, headers, b"")
        length, coding = reply.header("Content-Length"), reply.header("Transfer-Encoding")
        assert not (length and coding)
        if head_only or status in (204, 304):
            return reply
        if coding is None:
            assert length is not None
            reply.body = self.file.read(int(length))
            return reply
        while chunk := self.chunk():
            reply.body += chunk
        reply.complete = chunk is not None
        return reply

    def ended(self) -> bool:
        """Whether the shim has closed its end (waits for it)."""
        return self.file.read(1) == b""

    def close(self) -> None:
        self.file.close()
        self.sock.close()


def request(
    method: str, target: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> bytes:
    head = f"{method} {target} HTTP/1.1\r\nHost: hearth\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    if body is not None:
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode("latin-1") + b"\r\n" + (body or b"")


class Host:
    """The two listening sockets and the shim's process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = folder / "code"
        self.code.mkdir()
        self.output = b""
        self.slots: list[Slot] = []
        self.log = socket.socket(socket.AF_UNIX)
        self.listen()
        self.process: subprocess.Popen[bytes] | None = None

    def listen(self) -> None:
        self.log_listener = self._listener("log.sock")
        self.calls_listener = self._listener("calls.sock")

    def _listener(self, name: str) -> socket.socket:
        (self.folder / name).unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.folder / name))
        listener.listen(64)
        listener.settimeout(PATIENCE)
        return listener

    def start(self, env: dict[str, str] | None = None, shim: Path = SHIM) -> None:
        base = {
            "PATH": "/usr/bin:/bin",
            "HEARTH_SOCKET_DIR": str(self.folder),
            "HEARTH_CODE_DIR": str(self.code),
        }
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-E", str(shim)],
            env=base | (env or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def accept_log(self) -> socket.socket:
        self.log.close()
        self.log, _ = self.log_listener.accept()
        self.log.setblocking(False)
        return self.log

    def accept(self) -> Slot:
        self.slots.append(Slot(self.calls_listener.accept()[0]))
        return self.slots[-1]

    def read_log(self) -> bytes:
        """What has arrived on the log by now, without waiting."""
        data = b""
        try:
            while piece := self.log.recv(65536):
                data += piece
        except BlockingIOError:
            pass
        self.output += data
        return data

    def stop_listening(self) -> None:
        self.log_listener.close()
        self.calls_listener.close()
        self.log.close()

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            boot, _ = self.process.communicate()
            assert boot == b"", "nothing may go to the container's own output"
        self.stop_listening()
        for slot in self.slots:
            slot.close()


Deploy = Callable[..., Slot]


@pytest.fixture
def host() -> Iterator[Host]:
    folder = Path(tempfile.mkdtemp(prefix="shim"))  # short: a socket's path has at most 107 bytes
    running = Host(folder)
    yield running
    running.close()
    shutil.rmtree(folder)


@pytest.fixture
def generic(host: Host) -> Slot:
    host.start()
    host.accept_log()
    return host.accept()


def order(code: str, handler: str = "handler:handle", **more: Any) -> bytes:
    files = {"handler.py": dedent(code), **more.pop("files", {})}
    encoded = [[name, base64.b64encode(text.encode()).decode()] for name, text in files.items()]
    return json.dumps(
        {"function": "f", "version": "v1", "handler": handler, "files": encoded, **more}
    ).encode()


def specialise(slot: Slot, code: str, handler: str = "handler:handle", **more: Any) -> Reply:
    headers = {"X-Hearth-Control": "1", "Content-Type": "application/json"}
    return slot.ask("POST", "/specialise", headers, order(code, handler, **more))


@pytest.fixture
def deploy(generic: Slot) -> Deploy:
    def deployed(code: str, **more: Any) -> Slot:
        reply = specialise(generic, code, **more)
        assert (reply.status, reply.json) == (200, {"slots": more.get("concurrency", 1)})
        return generic

    return deployed


# Specialising


def test_generic_instance_takes_only_an_order(generic: Slot) -> None:
    reply = generic.call(b"{}")
    assert (reply.status, reply.outcome) == (409, "not-specialised")
    assert specialise(generic, "def handle(event, context): return 1").status == 200
    assert generic.call().json == 1


def test_second_order_is_refused(deploy: Deploy) -> None:
    slot = deploy("def handle(event, context): return 1")
    reply = specialise(slot, "def handle(event, context): return 2")
    assert (reply.status, reply.outcome) == (409, "already-specialised")
    assert slot.call().json == 1


def test_callers_path_cannot_reach_the_control_requests(deploy: Deploy) -> None:
    slot = deploy("def handle(event, context): return context.path")
    assert slot.ask("POST", "/specialise", {}, b"").body == b"/specialise"
    assert slot.ask("GET", "/hearth/status").body == b"/hearth/status"


def test_status(generic: Slot) -> None:
    control = {"X-Hearth-Control": "1"}
    assert generic.ask("GET", "/hearth/status", control).json == {"specialised": False}
    specialise(generic, "def handle(event, context): return 1", concurrency=2)
    assert generic.ask("GET", "/hearth/status", control).json == {
        "specialised": True,
        "function": "f",
        "version": "v1",
        "slots": 2,
        "failed": False,
    }


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x", "a//b", "", "./x", "a\0b", ".."])
def test_file_names_cannot_leave_the_code_folder(host: Host, generic: Slot, name: str) -> None:
    code = "def handle(event, context): return 1"
    reply = specialise(generic, code, files={name: "x"})
    assert (reply.status, reply.outcome, reply.json["type"]) == (400, "bad-request", "ValueError")
    assert list(host.code.iterdir()) == []  # not even the good file
    assert specialise(generic, code).status == 200  # still generic


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b'{"function": "f"}',
        b'{"function":"f","version":"v","handler":"a:b","files":[["a"]]}',
    ],
)
def test_malformed_order_is_refused(generic: Slot, body: bytes) -> None:
    reply = generic.ask("POST", "/specialise", {}, body)
    assert (reply.status, reply.outcome) == (400, "bad-request")


@pytest.mark.parametrize(
    ("code", "handler", "kind", "message"),
    [
        ("import nonexistent", "handler:handle", "ModuleNotFoundError", "nonexistent"),
        ("raise SystemExit(3)", "handler:handle", "SystemExit", "3"),
        ("def handle(", "handler:handle", "SyntaxError", "never closed"),
        ("x = 1", "handler:handle", "AttributeError", "handle"),
        ("handle = 1", "handler:handle", "TypeError", "not callable"),
        ("x = 1", "handler", "ValueError", "module:callable"),
    ],
)
def test_import_error(host: Host, generic: Slot, code: str, handler: str, kind: str, message: str) -> None:
    reply = specialise(generic, code, handler)
    assert (reply.status, reply.outcome, reply.json["type"]) == (500, "import-error", kind)
    assert message in reply.json["message"]
    assert kind.encode() in host.read_log()
    assert generic.call().outcome == "import-error"
    assert generic.ask("GET", "/hearth/status", {"X-Hearth-Control": "1"}).json["failed"] is True
    assert specialise(generic, "def handle(event, context): return 1").status == 409


def test_an_import_error_says_where_in_the_function_s_own_code(generic: Slot) -> None:
    """Also if it arose further in, in a package or in Python itself."""
    code = "import json\nimport part.reader\ndef handle(event, context): return 1"
    reader = 'import json\n\nCONFIGURATION = json.loads("{")\n'
    reply = specialise(generic, code, files={"part/reader.py": reader})
    assert reply.json["type"] == "JSONDecodeError"
    assert reply.json["message"].endswith("(char 1) (part/reader.py, line 3)")


def test_an_import_error_outside_of_the_function_s_code_has_no_place_there(generic: Slot) -> None:
    reply = specialise(generic, "x = 1", "elsewhere:handle")
    assert reply.json["message"] == "No module named 'elsewhere'"


def test_a_syntax_error_says_its_place_once(generic: Slot) -> None:
    reply = specialise(generic, "x = 1\ndef handle(")
    assert reply.json["message"] == "'(' was never closed (handler.py, line 2)"


def test_handlers_name_the_type_of_their_context(deploy: Deploy) -> None:
    code = """
        from hearth import Context

        def handle(event, context: Context) -> list[object]:
            return [isinstance(context, Context), context.invocation_id]
    """
    assert deploy(code).call().json == [True, "i-1"]


def test_a_module_hearth_of_the_function_s_own_comes_first(deploy: Deploy) -> None:
    code = "import hearth\ndef handle(event, context): return hearth.MINE"
    assert deploy(code, files={"hearth.py": "MINE = 1"}).call().json == 1


def test_the_rest_of_hearth_needs_its_client(generic: Slot) -> None:
    reply = specialise(generic, "from hearth import Client\ndef handle(event, context): return 1")
    assert reply.json == {
        "type": "ImportError",
        "message": "hearth.Client is not here; add hearth-client to the function's requirements.txt "
        "(handler.py, line 1)",
    }


def test_a_traceback_shows_the_handler_only_also_when_the_shim_is_compiled(host: Host) -> None:
    """The image runs it compiled."""
    compiled = py_compile.compile(str(SHIM), str(host.folder / "shim.pyc"), doraise=True)
    host.start(shim=Path(str(compiled)))
    host.accept_log()
    slot = host.accept()
    specialise(slot, "def handle(event, context): raise KeyError(event)")
    assert slot.call(b"1").outcome == "raised"
    log = host.read_log()
    assert b"KeyError: 1" in log and b"in handle" in log and b"shim.py" not in log


def test_environment_folder_and_packages(host: Host, generic: Slot) -> None:
    code = """
        import os, sys
        from package import inner
        def handle(event, context):
            return [dict(os.environ), os.getcwd(), sys.path[0], inner.NAME, open("data.txt").read()]
    """
    files = {"package/__init__.py": "", "package/inner.py": "NAME = __name__", "data.txt": "grün"}
    assert specialise(generic, code, files=files, env={"COLOUR": "grün", "TZ": "UTC"}).status == 200
    environment, folder, first, name, data = generic.call().json
    assert environment.pop("LC_CTYPE", "C.UTF-8") == "C.UTF-8"  # set by the interpreter itself
    assert environment == {
        "PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8", "COLOUR": "grün", "TZ": "UTC",
    }  # fmt: skip
    assert (folder, first, name, data) == (str(host.code), str(host.code), "package.inner", "grün")
    assert not list(host.code.rglob("__pycache__"))


def test_handler_may_be_an_attribute(deploy: Deploy) -> None:
    slot = deploy(
        """
        class Service:
            def __call__(self, event, context): return "called"
            @staticmethod
            def run(event, context): return "run"
        service = Service()
        """,
        handler="handler:Service.run",
    )
    assert slot.call().body == b"run"


# The event

ECHO = "def handle(event, context): return [type(event).__name__, repr(event)]"


@pytest.mark.parametrize(
    ("content_type", "body", "event"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("Application/JSON; charset=utf-8", b'"gr\xc3\xbcn"', "grün"),
        ("application/cloudevents+json", b"[1]", [1]),
        (None, b'{"a": 1}', {"a": 1}),
        (None, b"not json", b"not json"),
        (None, b"\xff\x00", b"\xff\x00"),
        ("application/x-www-form-urlencoded", b'{"a": 1}', {"a": 1}),
        ("application/x-www-form-urlencoded", b"a=1&b=2", b"a=1&b=2"),
        ("text/plain", b'{"a": 1}', b'{"a": 1}'),
        ("application/octet-stream", b"\x00\x01", b"\x00\x01"),
        ("application/json", b"", None),
        ("application/octet-stream", b"", None),
        (None, b"", None),
    ],
)
def test_event(deploy: Deploy, content_type: str | None, body: bytes, event: Any) -> None:
    slot = deploy(ECHO)
    assert slot.call(body, content_type).json == [type(event).__name__, repr(event)]


@pytest.mark.parametrize("body", [b"{", b"\xff", b"NaN", b"[" * 100_000, b" "])
def test_declared_but_bad_json(deploy: Deploy, body: bytes) -> None:
    slot = deploy(ECHO)
    reply = slot.call(body, "application/json")
    assert (reply.status, reply.outcome) == (400, "bad-json")
    assert slot.call(b"1").json == ["int", "1"]  # the slot lives on


def test_context(deploy: Deploy) -> None:
    slot = deploy("""
        import time
        def handle(event, context):
            return {
                "id": context.invocation_id, "function": context.function, "version": context.version,
                "in": context.deadline - time.time(), "remaining": context.remaining(),
                "method": context.method, "path": context.path, "query": context.query,
                "raw": context.query_string, "agent": context.headers["USER-agent"],
                "get": context.headers.get("User-Agent"), "has": "X-Many" in context.headers,
                "many": context.headers["x-many"], "cookie": context.headers["cookie"],
                "names": sorted(context.headers),
            }
    """)
    slot.send(
        b"PUT /a%20b/c?x=1&y=%C3%BC&x=2&z= HTTP/1.1\r\nHost: h\r\n"
        b"User-Agent:  curl \r\nX-Many: 1\r\nx-many: 2\r\n"
        b"Cookie: a=1\r\nCookie: b=2\r\nX-Invocation-Id: i-9\r\nX-Hearth-Deadline: 12.5\r\n\r\n"
    )
    seen = slot.reply().json
    assert 12 < seen.pop("in") <= 12.5
    assert 12 < seen.pop("remaining") <= 12.5
    assert seen == {
        "id": "i-9", "function": "f", "version": "v1", "method": "PUT", "path": "/a%20b/c",
        "query": {"x": "2", "y": "ü", "z": ""}, "raw": "x=1&y=%C3%BC&x=2&z=", "agent": "curl", "get": "curl",
        "has": True, "many": "1, 2", "cookie": "a=1; b=2",
        "names": ["cookie", "host", "user-agent", "x-invocation-id", "x-many"],
    }  # fmt: skip


# What a handler returns

JSON, TEXT, BYTES = "application/json", "text/plain; charset=utf-8", "application/octet-stream"


@pytest.mark.parametrize(
    ("expression", "status", "content_type", "body"),
    [
        ("{'a': [1, None]}", 200, JSON, b'{"a":[1,null]}'),
        ("None", 200, JSON, b"null"),
        ("0", 200, JSON, b"0"),
        ("'gr\\u00fcn'", 200, TEXT, "grün".encode()),
        ("''", 200, TEXT, b""),
        ("b'\\x00\\xff'", 200, BYTES, b"\x00\xff"),
        ("bytearray(b'ab')", 200, BYTES, b"ab"),
        ("({'a': 1}, 201)", 201, JSON, b'{"a":1}'),
        ("('made', 201, {'X-A': 'b'})", 201, TEXT, b"made"),
        ("(b'<p>', 200, [('Content-Type', 'text/html')])", 200, "text/html", b"<p>"),
        ("('teapot', 418, {})", 418, TEXT, b"teapot"),
        ("(None, 204)", 204, JSON, b""),
        (
            "('x', __import__('http').HTTPStatus.ACCEPTED)",
            202,
            TEXT,
            b"x",
        ),
    ],
)
def test_result(deploy: Deploy, expression: str, status: int, content_type: str, body: bytes) -> None:
    reply = deploy(f"def handle(event, context): return {expression}").call()
    assert (reply.status, reply.header("Content-Type"), reply.body) == (status, content_type, body)
    assert reply.outcome is None
    assert (reply.header("Content-Length") is None) == (status == 204)


@pytest.mark.parametrize(
    "expression",
    [
        "object()",
        "{1, 2}",
        "float('nan')",
        "'\\ud800'",
        "[b'x']",
        "('x', 99)",
        "('x', 600)",
        "('x', '200')",
        "('x', True)",
        "('x', 101)",
        "('x',)",
        "('x', 200, {}, 1)",
        "('x', 200, 5)",
        "('x', 200, {'A': 'b\\r\\nc'})",
        "('x', 200, {'A': 'b\\0'})",
        "('x', 200, {'A\\n': 'b'})",
        "('x', 200, {'A b': 'c'})",
        "('x', 200, {'': 'c'})",
        "('x', 200, {'A': '\\u20ac'})",
        "('x', 200, {1: 'c'})",
        "('x', 200, ['abc'])",
        "(object(), 200)",
    ],
)
def test_bad_result(deploy: Deploy, host: Host, expression: str) -> None:
    slot = deploy(f"def handle(event, context): return {expression} if event is None else 'fine'")
    reply = slot.call()
    assert (reply.status, reply.outcome, set(reply.json)) == (500, "bad-result", {"type", "message"})
    assert reply.json["message"].encode()[:20] in host.read_log()
    assert slot.call(b"1").body == b"fine"


def test_headers_of_the_gateway_are_dropped(deploy: Deploy) -> None:
    slot = deploy("""
        def handle(event, context):
            return "x", 200, [
                ("X-Hearth-Outcome", "raised"), ("x-hearth-start", "warm"), ("X-Invocation-Id", "other"),
                ("Content-Length", "100"), ("Transfer-Encoding", "chunked"), ("Connection", "close"),
                ("Keep-Alive", "1"), ("Upgrade", "h2c"),
                ("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("Age", 3),
            ]
    """)
    reply = slot.call()
    own = [pair for pair in reply.headers if pair[0] not in ("X-Hearth-Exec", "X-Hearth-Silent")]
    assert own == [
        ("Content-Type", TEXT),
        ("Set-Cookie", "a=1"),
        ("Set-Cookie", "b=2"),
        ("Age", "3"),
        ("Content-Length", "1"),
    ]


def test_it_says_how_long_the_handler_ran(deploy: Deploy) -> None:
    slot = deploy("""
        import time
        def handle(event, context):
            time.sleep(event)
    """)
    assert 0 <= float(dict(slot.call(b"0").headers)["X-Hearth-Exec"]) < 0.1
    assert float(dict(slot.call(b"0.1").headers)["X-Hearth-Exec"]) >= 0.1


def test_an_answer_has_the_fields_that_the_cost_of_a_warm_call_is_counted_with(deploy: Deploy) -> None:
    reply = deploy("def handle(event, context): return {'message': 'Hello, Ada!'}").call()
    head, _, body = ANSWER.partition(b"\r\n\r\n")
    expected = [line.partition(": ")[0] for line in head.decode().split("\r\n")[1:]]
    assert [name for name, _ in reply.headers] == expected
    assert reply.body == body


PRINTS = """
    import os, subprocess, sys
    def handle(event, context):
        if event == "print":
            print("printed")
        elif event == "half":
            sys.stdout.write("printed")
        elif event == "descriptor":
            os.write(1, b"printed")
        elif event == "child":
            subprocess.run(["sh", "-c", "echo printed >&2"])
"""


@pytest.mark.parametrize("way", ["print", "half", "descriptor", "child"])
def test_it_says_whether_output_waits_to_be_read(deploy: Deploy, host: Host, way: str) -> None:
    slot = deploy(PRINTS)
    assert slot.call().header("X-Hearth-Silent") == "1"
    assert slot.call(json.dumps(way).encode()).header("X-Hearth-Silent") is None
    assert slot.call().header("X-Hearth-Silent") is None, "it waits still"
    assert host.read_log().strip() == b"printed"
    assert slot.call().header("X-Hearth-Silent") == "1"


def test_a_socket_that_cannot_tell_what_waits_is_not_called_silent(deploy: Deploy) -> None:
    """As with gVisor: the gateway looks."""
    slot = deploy("""
        import fcntl
        def refuse(*_):
            raise OSError(25, "Inappropriate ioctl for device")
        fcntl.ioctl = refuse
        def handle(event, context): return 1
    """)
    assert slot.call().header("X-Hearth-Silent") is None


def test_head_has_no_body(deploy: Deploy) -> None:
    slot = deploy("def handle(event, context): return 'abc' if context.path == '/' else iter('abc')")
    assert slot.ask("HEAD", "/").header("Content-Length") == "3"
    assert slot.ask("HEAD", "/stream").header("Transfer-Encoding") == "chunked"
    assert slot.ask("GET", "/").body == b"abc"  # nothing of a body was left between


@pytest.mark.parametrize(
    ("statement", "kind", "message"),
    [
        ("raise ValueError('no')", "ValueError", "no"),
        ("class Own(Exception): pass\n    raise Own('x' * 100000)", "handle.<locals>.Own", "x" * 8192),
        ("import sys; sys.exit(4)", "SystemExit", "4"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("raise GeneratorExit", "GeneratorExit", ""),
        ("handle(event, context)", "RecursionError", "maximum recursion depth exceeded"),
        ("raise BrokenPipeError('mine')", "BrokenPipeError", "mine"),
        (
            "class Mute(Exception):\n        def __str__(self): raise OSError\n    raise Mute",
            "handle.<locals>.Mute",
            "",
        ),
    ],
)
@pytest.mark.parametrize("kind_of_def", ["def", "async def"])
def test_raised(
    deploy: Deploy, host: Host, kind_of_def: str, statement: str, kind: str, message: str
) -> None:
    if "async" in kind_of_def and "handle(event" in statement:
        statement = "await handle(event, context)"
    slot = deploy(f"{kind_of_def} handle(event, context):\n    if event: return 'fine'\n    {statement}")
    reply = slot.call()
    assert (reply.status, reply.outcome, reply.json["type"]) == (500, "raised", kind)
    assert reply.json["message"].startswith(message)
    assert len(reply.json["message"]) <= 8192
    log = host.read_log()
    assert b"Traceback" in log
    assert b"handler.py" in log
    assert b"shim.py" not in log
    assert slot.call(b"1").body == b"fine"


# Streams


def test_stream_is_flushed_at_each_yield(deploy: Deploy, host: Host) -> None:
    slot = deploy("""
        import pathlib, time
        def handle(event, context):
            for name in ("one", "two"):
                yield name
                while not pathlib.Path(name).exists(): time.sleep(0.005)
            yield b""
            yield b"bytes"
            yield {"a": 1}
    """)
    slot.send(request("POST", "/"))
    assert slot.head() == (200, [("Content-Type", TEXT), ("Transfer-Encoding", "chunked")])
    assert slot.chunk() == b"one"  # arrives while the handler waits for us
    (host.code / "one").touch()
    assert slot.chunk() == b"two"
    (host.code / "two").touch()
    assert [slot.chunk(), slot.chunk(), slot.chunk()] == [b"bytes", b'{"a":1}\n', b""]


@pytest.mark.parametrize(
    ("items", "content_type", "body"),
    [
        ("[b'a', 'b']", BYTES, b"ab"),
        ("[{'n': 1}, [2]]", "application/x-ndjson", b'{"n":1}\n[2]\n'),
        ("[]", BYTES, b""),
        ("['', 'a', '']", TEXT, b"a"),
    ],
)
@pytest.mark.parametrize("kind_of_def", ["def", "async def"])
def test_stream_forms(deploy: Deploy, kind_of_def: str, items: str, content_type: str, body: bytes) -> None:
    slot = deploy(f"{kind_of_def} handle(event, context):\n    for item in {items}: yield item")
    for _ in range(2):
        reply = slot.call()
        assert (reply.status, reply.header("Content-Type"), reply.body) == (200, content_type, body)
        assert reply.complete


def test_stream_in_a_tuple(deploy: Deploy) -> None:
    slot = deploy("""
        def items():
            yield "data: 1\\n\\n"
            yield "data: 2\\n\\n"
        async def later():
            yield "later"
        async def handle(event, context):
            return (later() if event else items()), 202, {"Content-Type": "text/event-stream"}
    """)
    reply = slot.call()
    assert (reply.status, reply.header("Content-Type"), reply.body) == (
        202, "text/event-stream", b"data: 1\n\ndata: 2\n\n",
    )  # fmt: skip
    assert slot.call(b"1").body == b"later"


@pytest.mark.parametrize("kind_of_def", ["def", "async def"])
@pytest.mark.parametrize(("last", "name"), [("raise ValueError('late')", b"ValueError: late"),
                                            ("yield object()", b"TypeError")])  # fmt: skip
def test_failure_in_mid_stream(deploy: Deploy, host: Host, kind_of_def: str, last: str, name: bytes) -> None:
    slot = deploy(f"{kind_of_def} handle(event, context):\n    yield 'half'\n    {last}")
    reply = slot.call()
    assert (reply.status, reply.body, reply.complete) == (200, b"half", False)
    assert name in host.read_log()
    again = host.accept()  # the slot is dialled again
    assert again.call().body == b"half"


@pytest.mark.parametrize("kind_of_def", ["def", "async def"])
@pytest.mark.parametrize(
    ("statement", "outcome"), [("raise ValueError('early')", "raised"), ("yield object()", "bad-result")]
)
def test_failure_before_the_first_item_is_a_whole_answer(
    deploy: Deploy, kind_of_def: str, statement: str, outcome: str
) -> None:
    slot = deploy(f"{kind_of_def} handle(event, context):\n    {statement}\n    yield 1")
    for _ in range(2):
        reply = slot.call()
        assert (reply.status, reply.outcome) == (500, outcome)


@pytest.mark.parametrize("kind_of_def", ["def", "async def"])
def test_generator_is_closed_when_the_gateway_hangs_up(deploy: Deploy, host: Host, kind_of_def: str) -> None:
    slot = deploy(f"""
        import time
        {kind_of_def} handle(event, context):
            if event:
                yield "again"
                return
            try:
                while True:
                    yield "x" * 1000
                    time.sleep(0.005)
            except GeneratorExit:
                print("closed by the gateway")
                raise
    """)
    slot.send(request("POST", "/"))
    slot.head()
    assert slot.chunk() == b"x" * 1000
    slot.close()
    again = host.accept()
    assert again.call(b"1").body == b"again"
    assert b"closed by the gateway\n" in host.read_log()


# Concurrency


def test_def_handlers_run_in_as_many_threads_as_slots(deploy: Deploy, host: Host) -> None:
    first = deploy(
        """
        import threading
        barrier = threading.Barrier(4, timeout=5)
        def handle(event, context):
            barrier.wait()
            return threading.current_thread().name
        """,
        concurrency=4,
    )
    slots = [first, *(host.accept() for _ in range(3))]
    with ThreadPoolExecutor(4) as pool:  # none returns before all four are called
        names = {reply.body for reply in pool.map(Slot.call, slots)}
    assert len(names) == 4


def test_async_handlers_share_one_loop(deploy: Deploy, host: Host) -> None:
    first = deploy(
        """
        import asyncio, threading
        waiting, everybody = 0, asyncio.Event()
        async def handle(event, context):
            global waiting
            waiting += 1
            if waiting == 8: everybody.set()
            await everybody.wait()
            return threading.get_ident()
        """,
        concurrency=8,
    )
    slots = [first, *(host.accept() for _ in range(7))]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(Slot.call, slots))
    assert {reply.status for reply in replies} == {200}
    assert len({reply.json for reply in replies}) == 1


def test_loop_survives_an_exit_in_a_task_left_behind(deploy: Deploy, host: Host) -> None:
    slot = deploy("""
        import asyncio
        async def leave():
            raise SystemExit(1)
        async def handle(event, context):
            task = asyncio.ensure_future(leave())
            await asyncio.sleep(0.01)
            return "here"
    """)
    assert slot.call().body == b"here"
    assert slot.call().body == b"here"
    assert b"goes on after SystemExit" in host.read_log()


# The connection


def test_hundred_calls_on_one_connection(deploy: Deploy) -> None:
    slot = deploy("""
        count = 0
        def handle(event, context):
            global count
            count += 1
            return [count, event]
    """)
    for number in range(1, 101):
        assert slot.call(str(number).encode()).json == [number, number]


def test_large_bodies_both_ways(deploy: Deploy) -> None:
    slot = deploy("def handle(event, context): return event")
    body = bytes(range(256)) * (6 * 4096)
    assert len(body) == 6 * 2**20
    with ThreadPoolExecutor(
        1
    ) as pool:  # the shim reads all before it answers; so no reader is needed meanwhile
        reply = pool.submit(slot.call, body, BYTES).result()
    assert reply.body == body


def test_chunked_request(deploy: Deploy) -> None:
    slot = deploy("def handle(event, context): return event")
    head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    parts = [
        head[:30],
        head[30:],
        b"5\r",
        b"\nhel",
        b"lo\r\n1",
        b"0;name=value\r\n0123456789abcdef\r\n",
        b"0\r\n",
    ]
    for part in [*parts, b"Trailer: x\r\n", b"\r\n"]:
        slot.send(part)
        time.sleep(0.002)
    assert slot.reply().body == b"hello0123456789abcdef"
    slot.send(head + b"0\r\n\r\n")
    assert slot.reply().body == b"null"


def test_pipelined_requests(deploy: Deploy) -> None:
    slot = deploy("def handle(event, context): return event")
    slot.send(b"".join(request("POST", "/", {}, str(number).encode()) for number in range(5)))
    assert [slot.reply().json for _ in range(5)] == list(range(5))


def test_request_in_single_bytes(deploy: Deploy) -> None:
    slot = deploy("def handle(event, context): return event")
    for byte in request("POST", "/", {"A": "b"}, b"[1,2]"):
        slot.send(bytes([byte]))
    assert slot.reply().json == [1, 2]


def test_connection_lost_in_mid_body(deploy: Deploy, host: Host) -> None:
    slot = deploy("def handle(event, context):\n    print('called')\n    return event")
    slot.send(b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    slot.close()
    again = host.accept()
    assert again.call(b"1").json == 1
    assert host.read_log().count(b"called") == 1  # not for the half request


@pytest.mark.parametrize(
    "head",
    [
        b"nonsense\r\n\r\n",
        b"POST / HTTP/1.1\r\nno colon\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc",
    ],
)
def test_malformed_request_ends_the_connection(deploy: Deploy, host: Host, head: bytes) -> None:
    slot = deploy("def handle(event, context): return 1")
    slot.send(head)
    reply = slot.reply()
    assert (reply.status, reply.outcome) == (400, "bad-request")
    assert slot.ended()
    assert host.accept().call().json == 1


def test_too_large_a_head_ends_the_connection(deploy: Deploy, host: Host) -> None:
    slot = deploy("def handle(event, context): return 1")
    slot.send(b"POST / HTTP/1.1\r\nA: " + b"x" * 65536)
    assert slot.reply().status == 431
    assert slot.ended()
    assert host.accept().ask("POST", "/", {"A": "x" * 60000}).json == 1


def test_bad_deadline(deploy: Deploy) -> None:
    slot = deploy("def handle(event, context): return context.remaining()")
    assert slot.call(deadline="soon").outcome == "bad-request"
    assert slot.call(deadline="-1").json == 0


def test_all_slots_are_dialled_again_after_a_restart_of_the_gateway(deploy: Deploy, host: Host) -> None:
    first = deploy("def handle(event, context):\n    print('to', event)\n    return event", concurrency=3)
    slots = [first, *(host.accept() for _ in range(2))]
    assert [slot.call(b"1").json for slot in slots] == [1, 1, 1]
    host.stop_listening()
    for slot in slots:
        slot.close()
    time.sleep(0.2)
    host.listen()
    host.accept_log()
    again = [host.accept() for _ in range(3)]
    assert again[0].ask("GET", "/hearth/status", {"X-Hearth-Control": "1"}).json["function"] == "f"
    assert [slot.call(b"2").json for slot in again] == [2, 2, 2]
    assert host.read_log() == b"to 2\n" * 3


def test_dials_until_somebody_listens(host: Host) -> None:
    host.log_listener.close()
    host.calls_listener.close()
    host.start()
    time.sleep(0.2)
    host.listen()
    host.accept_log()
    assert specialise(host.accept(), "def handle(event, context): return 1").status == 200


def test_gateway_that_hangs_up_is_not_dialled_in_a_busy_loop(host: Host) -> None:
    host.start()
    host.accept_log()
    end, count = time.monotonic() + 0.6, 0
    while time.monotonic() < end:
        host.accept().close()
        count += 1
    assert 2 <= count <= 7  # at 0, 20, 60, 140, 300, 620 ms


def test_calls_go_on_without_a_log(deploy: Deploy, host: Host) -> None:
    slot = deploy("""
        import subprocess, sys
        def handle(event, context):
            for _ in range(20): print("x" * 1000)
            print("half", end="", file=sys.stderr, flush=True)
            sys.stdout.buffer.write(b"raw")
            return "fine"
    """)
    host.log.close()
    assert slot.call().body == b"fine"
    slot.close()
    host.accept_log()  # dialled with the slot
    assert host.accept().call().body == b"fine"
    assert host.read_log().endswith(b"x\nhalfraw")


def test_sigterm_ends_it_at_once(host: Host, deploy: Deploy) -> None:
    slot = deploy("import time\ndef handle(event, context):\n    print('in')\n    time.sleep(30)")
    slot.send(request("POST", "/"))
    while b"in" not in host.output:
        host.read_log()
    assert host.process is not None
    host.process.terminate()
    assert host.process.wait(2) == 0


# Output


def test_output_arrives_before_the_end_of_the_response(deploy: Deploy, host: Host) -> None:
    slot = deploy("""
        import os, subprocess, sys
        def handle(event, context):
            print("line")
            print("error", file=sys.stderr)
            subprocess.run(["echo", "subprocess"], check=True)
            os.write(1, b"direct\\n")
            print("half a line \\ud800", end="")
            return (item for item in "ab") if event == "stream" else "x"
    """)
    for body in (b"", b'"stream"') * 20:
        assert slot.call(body).complete
        assert host.read_log() == b"line\nerror\nsubprocess\ndirect\nhalf a line \\ud800"


def test_output_of_the_import_arrives_before_the_answer(host: Host, generic: Slot) -> None:
    specialise(generic, "print('imported', end='')\ndef handle(event, context): return 1")
    assert host.read_log() == b"imported"


def test_output_is_bounded_for_each_invocation(deploy: Deploy, host: Host) -> None:
    slot = deploy(
        "def handle(event, context):\n    for _ in range(event): print('x' * 99)\n    return 1",
        log_limit=1000,
    )
    assert slot.call(b"10").status == 200
    assert host.read_log() == (b"x" * 99 + b"\n") * 10  # the limit itself is allowed
    for _ in range(2):
        assert slot.call(b"5000").status == 200
        log = host.read_log()
        assert log.count(b"x") == 990
        assert log.endswith(b"\n[output truncated]\n")
        assert log.count(b"truncated") == 1
    assert slot.call(b"1").status == 200
    assert host.read_log() == b"x" * 99 + b"\n"


def test_default_bound(deploy: Deploy, host: Host) -> None:
    slot = deploy("def handle(event, context):\n    for _ in range(1000): print('x' * 999)\n    return 1")
    received = bytearray()

    def read() -> None:
        host.log.settimeout(PATIENCE)
        while not received.endswith(b"truncated]\n"):
            received.extend(host.log.recv(65536))

    reader = threading.Thread(target=read)
    reader.start()
    assert slot.call().status == 200
    reader.join(PATIENCE)
    assert len(received) == 256 * 1024 + len(b"\n[output truncated]\n")


def test_a_log_that_nobody_reads_costs_a_call_about_a_second(deploy: Deploy) -> None:
    slot = deploy(
        "def handle(event, context):\n    for _ in range(5000): print('x' * 999)\n    return 1",
        log_limit=2**30,
    )
    began = time.monotonic()
    assert slot.call().status == 200
    assert time.monotonic() - began < 3


def test_closed_and_replaced_streams_do_no_harm(deploy: Deploy, host: Host) -> None:
    slot = deploy("""
        import contextlib, io, sys
        def handle(event, context):
            if event == "redirect":
                with contextlib.redirect_stdout(io.StringIO()) as caught: print("caught")
                return caught.getvalue()
            sys.stdout.close()
            sys.stderr = None
            raise ValueError("mute")
    """)
    assert slot.call(b'"redirect"').body == b"caught\n"
    assert slot.call().json == {"type": "ValueError", "message": "mute"}
    assert slot.call(b'"redirect"').body == b"caught\n"
    assert host.read_log() == b""


# What a handler may do to its own process


def test_a_forked_child_that_comes_back_does_not_answer(deploy: Deploy) -> None:
    code = """
        import os
        def handle(event, context):
            pid = os.fork()
            if event == "wait" and pid:
                os.waitpid(pid, 0)
            return {"parent": pid > 0}
    """
    slot = deploy(code)
    for body in (b'"wait"', b'"go on"', b'"wait"'):
        reply = slot.call(body, "application/json")
        assert (reply.status, reply.json) == (200, {"parent": True})


def test_an_exception_is_told_when_no_descriptor_is_left(deploy: Deploy) -> None:
    code = """
        import os, resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        kept = []
        def handle(event, context):
            if event == "close":
                while kept:
                    os.close(kept.pop())
                return "closed"
            while True:
                kept.append(os.open("/dev/null", os.O_RDONLY))
    """
    slot = deploy(code)
    reply = slot.call(b"{}", "application/json")
    assert (reply.status, reply.outcome, reply.json["type"]) == (500, "raised", "OSError")
    assert slot.call(b'"close"', "application/json").body == b"closed"
