"""The hearth command without a gateway or an engine: what it sends, prints and how it ends."""

import functools
import json
import logging
import re
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.cli import common, log_format, main
from gateway.cli.client import GatewayClient
from gateway.cli.commands.serving.serve import first_call, reachable
from gateway.cli.given_settings import SettingsFault, settings_from, unknown_variables
from gateway.cli.human import human_seconds, human_size, human_time
from pool import __version__
from scheduler.definitions.file import load
from scheduler.deploy.declared import Declared

Answer = Callable[[httpx.Request], httpx.Response]


def run(*arguments: str, stdin: bytes = b"", **variables: str) -> Result:
    return CliRunner().invoke(main, arguments, input=stdin, env=variables)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[Answer], list[httpx.Request]]:
    """Puts an answer in the place of a gateway; the requests that it was asked."""

    def put(answer: Answer) -> list[httpx.Request]:
        asked: list[httpx.Request] = []

        def handle(request: httpx.Request) -> httpx.Response:
            request.read()
            asked.append(request)
            given = answer(request)
            if not given.is_stream_consumed:
                return given
            # A real one is not read yet.
            return httpx.Response(
                given.status_code, headers=given.headers, stream=httpx.ByteStream(given.content)
            )

        client = functools.partial(GatewayClient, transport=httpx.MockTransport(handle))
        monkeypatch.setattr(common, "GatewayClient", client)
        return asked

    return put


def problem(status: int, blame: str, kind: str = "urn:hearth:problem:some") -> httpx.Response:
    content = {"type": kind, "title": "Went wrong", "status": status, "detail": "this and that"}
    return httpx.Response(
        status,
        content=json.dumps({**content, "blame": blame, "invocation_id": "abc"}),
        headers={"content-type": "application/problem+json"},
    )


# -- invoke -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "stdin", "method", "path", "body", "kind"),
    [
        ((), b"", "POST", "/invoke/f", b"", None),
        (("--data", '{"a": 1}'), b"", "POST", "/invoke/f", b'{"a": 1}', "application/json"),
        (("--data", "hello"), b"", "POST", "/invoke/f", b"hello", "text/plain; charset=utf-8"),
        (("-",), b"from stdin\0", "POST", "/invoke/f", b"from stdin\0", None),
        (("--file", "-"), b"too", "POST", "/invoke/f", b"too", None),
        (("--path", "/notes/1?x=2"), b"", "GET", "/invoke/f/notes/1?x=2", b"", None),
        (("--path", "notes", "--data", "1"), b"", "POST", "/invoke/f/notes", b"1", "application/json"),
        (("--path", "/n", "--method", "delete"), b"", "DELETE", "/invoke/f/n", b"", None),
        (("--data", "1", "--content-type", "a/b"), b"", "POST", "/invoke/f", b"1", "a/b"),
        (("--data", "1", "-H", "Content-Type: c/d"), b"", "POST", "/invoke/f", b"1", "c/d"),
    ],
)
def test_invoke_sends_what_it_is_told(
    answers, arguments: tuple[str, ...], stdin: bytes, method: str, path: str, body: bytes, kind: str | None
) -> None:
    asked = answers(lambda request: httpx.Response(200, content=b"\xff\0ok"))
    result = run("invoke", "f", *arguments, stdin=stdin)
    assert (result.exit_code, result.stdout_bytes, result.stderr) == (0, b"\xff\0ok", "")
    assert (asked[0].method, asked[0].url.raw_path.decode(), asked[0].content) == (method, path, body)
    assert asked[0].headers.get("content-type") == kind


def test_invoke_sends_a_file_with_the_type_of_its_name(answers, tmp_path: Path) -> None:
    asked = answers(lambda request: httpx.Response(200))
    picture = tmp_path / "a.png"
    picture.write_bytes(b"p" * 200_000)
    assert run("invoke", "f", "--file", str(picture)).exit_code == 0
    assert asked[0].headers["content-type"] == "image/png"
    assert asked[0].content == b"p" * 200_000


def test_invoke_names_status_start_and_timing_on_stderr_when_asked(answers) -> None:
    headers = {"X-Hearth-Start": "warm", "Server-Timing": "queue;dur=0.1, start;dur=0.00, exec;dur=2"}
    answers(lambda request: httpx.Response(200, content=b"body", headers=headers))
    result = run("invoke", "f", "-i")
    assert result.stdout == "body"
    assert result.stderr.splitlines()[0] == "HTTP/1.1 200 OK"
    assert "-- warm start, queue 0.1 ms, start 0.00 ms, exec 2 ms" in result.stderr


@pytest.mark.parametrize(
    ("status", "blame", "ending"),
    [
        (404, "caller", 2),
        (429, "caller", 2),
        (500, "function", 1),
        (502, "function", 1),
        (503, "platform", 1),
    ],
)
def test_a_problem_is_told_on_stderr_with_its_blame(answers, status: int, blame: str, ending: int) -> None:
    answers(lambda request: problem(status, blame))
    result = run("invoke", "f")
    assert (result.exit_code, result.stdout) == (ending, "")
    assert f"Went wrong ({status}, blame: {blame}): this and that" in result.stderr
    assert result.stderr.endswith("\n  its output: hearth logs abc\n")


@pytest.mark.parametrize(("status", "ending"), [(404, 2), (500, 1)])
def test_an_error_that_is_the_functions_own_answer_is_printed(answers, status: int, ending: int) -> None:
    answers(lambda request: problem(status, "nobody", kind="https://example.org/own"))
    result = run("invoke", "f")
    assert result.exit_code == ending
    assert json.loads(result.stdout)["type"] == "https://example.org/own"
    assert f"f answered {status}" in result.stderr


def test_an_answer_that_breaks_off_is_a_failure(answers) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise httpx.RemoteProtocolError("peer closed connection")

    answers(lambda request: httpx.Response(200, content=broken()))
    result = run("invoke", "f")
    assert (result.exit_code, result.stdout) == (1, "half")
    assert "failed: peer closed connection" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--data", "a", "-"), ("--header", "nonsense"), ("--header", "a: b\r\nc: d"), ("--file", "/not/there")],
)
def test_invoke_refuses_a_wrong_command_line(answers, arguments: tuple[str, ...]) -> None:
    asked = answers(lambda request: httpx.Response(200))
    assert run("invoke", "f", *arguments).exit_code == 2
    assert asked == []


# -- the gateway is not there, or is none ----------------------------------------------------------------------


@pytest.mark.parametrize("command", [("functions",), ("ps",), ("logs", "-f"), ("invoke", "f")])
def test_where_no_gateway_answers_it_says_how_to_start_one(command: tuple[str, ...]) -> None:
    result = run(*command, HEARTH_URL="http://127.0.0.1:1/")
    assert result.exit_code == 1
    assert "no gateway answers at http://127.0.0.1:1; start one with `hearth serve`" in result.stderr


@pytest.mark.parametrize(
    "address", ["localhost:8080", "http://[::", "http://127.0.0.1:8080 x", "http://127.0.0.1:99999"]
)
def test_an_address_that_is_none_is_the_callers_mistake(address: str) -> None:
    result = run("ps", "--url", address)
    assert result.exit_code == 2
    assert "use one like http://127.0.0.1:8080" in result.stderr


def test_a_gateway_without_a_route_is_said_to_be_of_another_version(answers) -> None:
    problem = {
        "type": "urn:hearth:problem:not-found",
        "title": "Not found",
        "status": 404,
        "detail": "there is nothing at /calls; see /docs",
        "blame": "caller",
    }
    answers(
        lambda request: httpx.Response(
            404, json=problem, headers={"content-type": "application/problem+json"}
        )
    )
    result = run("calls")
    assert result.exit_code == 2
    assert f"the gateway is of another version than this hearth, {__version__}" in result.stderr


@pytest.mark.parametrize("answer", [httpx.Response(404, text="nginx"), httpx.Response(200, text="<html>")])
def test_another_server_is_not_taken_for_a_gateway(answers, answer: httpx.Response) -> None:
    answers(lambda request: answer)
    result = run("functions")
    assert result.exit_code == 1
    assert "is not a Hearth gateway" in result.stderr


# -- listings ------------------------------------------------------------------------------------------------

FUNCTION = {"name": "hello", "kind": "handler", "state": "failed", "version": "f" * 64, "fault": "two\nlines"}
INSTANCE = {
    "id": "be5e875eabc7",
    "function": None,
    "state": "prewarmed",
    "in_use": 0,
    "served": 3,
    "memory": 2**27,
    "age": 3700.0,
    "idle": 0.25,
}
POOL = {
    "prewarm": [{"image": "sha256:" + "a" * 64, "wanted": 2, "ready": 1, "starting": 1}],
    "memory_declared": 2**27,
    "memory_budget": 2**30,
}


def test_functions_are_a_table_or_json(answers) -> None:
    answers(lambda request: httpx.Response(200, json=[FUNCTION]))
    assert run("functions").stdout.splitlines() == [
        "NAME   KIND     STATE   INPUT  VERSION       FAULT",
        "hello  handler  failed  any    ffffffffffff  two lines",
    ]
    assert json.loads(run("functions", "--json").stdout) == [FUNCTION]


def test_ps_shows_instances_pools_and_memory(answers) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=POOL if request.url.path == "/pool" else [INSTANCE])

    asked = answers(answer)
    lines = run("ps", "--function", "hello").stdout.splitlines()
    assert asked[0].url.params["function"] == "hello"
    assert lines[1].split() == ["be5e875eabc7", "-", "prewarmed", "0", "3", "128", "MiB", "1h01m", "0.2s"]
    assert lines[3:] == [
        "Prewarmed on image aaaaaaaaaaaa: 1 of 2, 1 starting",
        "Memory declared: 128 MiB of 1 GiB",
    ]


def test_times_are_local_with_their_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setenv("TZ", "Europe/Berlin")
        time.tzset()
        winter, summer = human_time("2026-11-29T02:12:05Z"), human_time("2026-07-29T02:12:05.99+00:00")
    time.tzset()
    assert (winter, summer) == ("2026-11-29 03:12:05 CET", "2026-07-29 04:12:05 CEST")
    assert human_time(None) == "-"


def test_sizes_and_times_are_short() -> None:
    assert [human_size(n) for n in (0, 2**27, 18957385728)] == ["0 B", "128 MiB", "17.66 GiB"]
    assert [human_seconds(s) for s in (0.42, 12, 200, 7500, 273600)] == [
        "0.4s",
        "12s",
        "3m20s",
        "2h05m",
        "3d04h",
    ]


# -- serve: what is checked first ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "variables", "fault"),
    [
        ({"port": "x"}, {}, "--port: must be a whole number, not 'x'"),
        ({}, {"HEARTH_PORT": "70000"}, "HEARTH_PORT: must be from 0 to 65535, not '70000'"),
        ({"port": "-1"}, {"HEARTH_PORT": "1"}, "--port: must be from 0 to 65535, not '-1'"),
        ({"memory_budget": "3"}, {}, "--memory-budget: 3 has no unit; write 3MiB or 3MB"),
        ({}, {"HEARTH_DRAIN_TIMEOUT": "soon"}, "HEARTH_DRAIN_TIMEOUT: 'soon' is not a duration"),
        (
            {"uids": "70000"},
            {},
            "--uids: must be FIRST-LAST in numbers, like 1879048192-2147352575, not '70000'",
        ),
        ({}, {"HEARTH_UIDS": "0-80000"}, "HEARTH_UIDS: must go upwards and lie between 1000 and 2147483647"),
        ({"log_level": "loud"}, {}, "--log-level: must be 'debug', 'info', 'warning' or 'error', not 'loud'"),
        (
            {"allowed_capabilities": "chown,sys_admin"},
            {},
            "--allowed-capabilities: must be some of chown, dac_override, fowner, kill, net_bind_service, setgid, "
            "setuid, not 'sys_admin'",
        ),
        ({}, {"HEARTH_LOG_FORMAT": "xml"}, "HEARTH_LOG_FORMAT: must be 'text' or 'json', not 'xml'"),
        (
            {},
            {"HEARTH_KEEP_WARM": "maybe"},
            "HEARTH_KEEP_WARM: must be true or false, not 'maybe'",
        ),
    ],
)
def test_a_faulty_setting_is_named_as_it_was_given(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, str], variables: dict[str, str], fault: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsFault) as caught:
        settings_from(options)
    assert str(caught.value).startswith(fault)
    assert "\n" not in str(caught.value)


def test_options_go_before_variables_and_these_before_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_PORT", "1")
    monkeypatch.setenv("HEARTH_HOST", "::1")
    monkeypatch.setenv("HEARTH_ALLOWED_VOLUMES", "/a:/b:")
    monkeypatch.setenv("HEARTH_ALLOWED_CAPABILITIES", "CHOWN, setuid")
    settings = settings_from({"port": "2", "host": None, "allowed_hosts": "x.example, y.example"})
    assert settings.allowed_capabilities == ["chown", "setuid"]
    assert (settings.port, settings.host, settings.drain_timeout) == (2, "::1", 30.0)
    assert settings.allowed_volumes == [Path("/a"), Path("/b")]
    assert settings.allowed_hosts == ["x.example", "y.example"]


def test_a_variable_that_is_no_setting_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_URL", "http://x")
    monkeypatch.setenv("HEARTH_MEMORY_BUGDET", "1GiB")
    assert unknown_variables() == [
        "HEARTH_MEMORY_BUGDET is not a setting; did you mean HEARTH_MEMORY_BUDGET?"
    ]


def test_a_faulty_file_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    file, data = tmp_path / "functions.yaml", tmp_path / "data"
    file.write_text("version: 1\nfunctions:\n  f: {image: x, prot: 1}\n  g: {}\n")
    result = run("serve", "--functions", str(file), "--data-dir", str(data), DOCKER_HOST="unix:///nowhere")
    assert result.exit_code == 2
    assert [line.split(" ")[0] for line in result.stderr.splitlines()] == [f"{file}:3:23:", f"{file}:4:6:"]
    assert not data.exists()


def test_an_engines_address_that_is_none_is_refused(tmp_path: Path) -> None:
    for command in (("serve",), ("doctor",), ("prune",)):
        result = run(*command, DOCKER_HOST="/var/run/docker.sock")
        assert result.exit_code == 2
        assert "DOCKER_HOST=/var/run/docker.sock cannot be used; give unix:///PATH" in result.stderr


def test_an_engine_over_tls_without_certificates_is_refused_with_the_folder_to_fill(tmp_path: Path) -> None:
    for command in (("serve",), ("doctor",), ("prune",)):
        result = run(*command, DOCKER_HOST="https://127.0.0.1:1", DOCKER_CERT_PATH=str(tmp_path))
        assert result.exit_code == 2
        assert f"cannot be read from {tmp_path}: No such file" in result.stderr
        assert "Traceback" not in result.stderr


def test_the_line_to_try_fits_a_function_that_is_ready(tmp_path: Path) -> None:
    (tmp_path / "functions.yaml").write_text(
        "version: 1\nfunctions:\n  count: {image: x, command: [wc]}\n  web: {image: x, port: 80}\n"
    )
    declared = [Declared(d) for d in load(tmp_path / "functions.yaml").functions.values()]
    assert first_call(declared, "http://h") is None
    declared[0].state = "ready"
    assert first_call(declared, "http://h") == (
        "printf 'one two three' | curl --data-binary @- http://h/invoke/count"
    )
    declared[1].state = "ready"
    assert first_call(declared, "http://h") == "curl http://h/invoke/web/"


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("localhost", "http://localhost:80"),
    ],
)
def test_the_printed_address_can_be_used(host: str, shown: str) -> None:
    assert reachable(f"http://{host}:80", host) == shown


# -- logging ---------------------------------------------------------------------------------------------------


@pytest.fixture
def logged(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[str]]]:
    """Lines that were logged since the last look, with the root logger put back afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    levels = {name: logging.getLogger(name).level for name in log_format.QUIET}
    yield lambda: capsys.readouterr().err.splitlines()
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def test_a_json_line_has_the_fields_and_the_traceback(logged) -> None:
    log_format.configure("info", None)
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("hearth.x").exception("it %s", "failed", extra={"function": "f"})
    logging.getLogger("hearth.x").debug("unseen")
    (line,) = logged()
    entry = json.loads(line)
    assert (entry["level"], entry["logger"], entry["message"]) == ("error", "hearth.x", "it failed")
    assert entry["function"] == "f"
    assert entry["time"].endswith("+00:00")
    assert entry["exception"].endswith("ValueError: no")
    assert set(entry) == {"time", "level", "logger", "message", "function", "exception"}


def test_text_lines_are_for_people(logged) -> None:
    log_format.configure("debug", "text")
    logging.getLogger("hearth.reaper").warning("careful")
    logging.getLogger("uvicorn.error").info("Started server process")
    logging.getLogger("other").info("hello")
    assert [line.split(" ", 1)[1] for line in logged()] == ["warning careful", "info other: hello"]


def test_what_tells_nothing_is_not_logged(logged) -> None:
    log_format.configure("info", "text")
    logging.getLogger("uvicorn.error").error("ASGI callable returned without completing response.")
    for _ in range(3):
        logging.getLogger("hearth").warning("the engine does not answer, trying again in %g s", 1)
        logging.getLogger("hearth.invoke").warning("invocation failed")
    lines = logged()
    assert sum("does not answer" in line for line in lines) == 1
    assert sum("invocation failed" in line for line in lines) == 3
    assert len(lines) == 4


# -- init --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["handler", "http", "command"])
def test_init_makes_a_file_that_loads(tmp_path: Path, kind: str) -> None:
    result = run("init", "greet", "--kind", kind, "--dir", str(tmp_path / "new"))
    assert result.exit_code == 0, result.output
    function = load(tmp_path / "new" / "functions.yaml").functions["greet"]
    assert function.kind.value == kind
    assert "hearth serve" in result.stdout


def test_the_handler_that_init_writes_works(tmp_path: Path) -> None:
    assert run("init", "--dir", str(tmp_path)).exit_code == 0
    names: dict[str, Callable[[object, object], object]] = {}
    exec((tmp_path / "functions/hello/handler.py").read_text(), names)
    assert names["handle"]({"name": "Ada"}, None) == {"message": "Hello, Ada!"}
    assert names["handle"](None, None) == {"message": "Hello, world!"}


ADDED_B = (
    "b:\n{i}  image: hearth-example/busybox:latest\n{i}  command: [wc, -w]\n{i}  content_type: text/plain\n"
)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "# mine\nversion: 1\nfunctions:\n  a: {image: x}   # why\n",
            "# mine\nversion: 1\nfunctions:\n  a: {image: x}   # why\n  B",
        ),
        (
            "version: 1\nfunctions:\n    a:\n        image: x",
            "version: 1\nfunctions:\n    a:\n        image: x\n    B",
        ),
        (
            "functions:\n  a: {image: x}\n  # of a\n\n# the version\nversion: 1\n",
            "functions:\n  a: {image: x}\n  # of a\n  B\n# the version\nversion: 1\n",
        ),
        (
            "version: 1\nfunctions:\n  a: {image: x}\n\n  c: {image: x}\n",
            "version: 1\nfunctions:\n  a: {image: x}\n\n  c: {image: x}\n\n  B",
        ),
        ("functions: {}  # none\nversion: 1\n", "functions:  # none\n  B" + "version: 1\n"),
        (
            "version: 1\nfunctions:\n  a:\n    image: x\n    env:\n      T: |\n        # text\n\ndefaults: {}\n",
            "version: 1\nfunctions:\n  a:\n    image: x\n    env:\n      T: |\n        # text\n  B\ndefaults: {}\n",
        ),
        (
            "version: 1\r\nfunctions:\r\n  a: {image: x}\r\n",
            "version: 1\r\nfunctions:\r\n  a: {image: x}\r\n  B",
        ),
    ],
)
def test_init_adds_to_a_file_and_leaves_the_rest_as_it_is(tmp_path: Path, before: str, after: str) -> None:
    file = tmp_path / "functions.yaml"
    file.write_bytes(before.encode())
    file.chmod(0o640)
    result = run("init", "b", "--kind", "command", "--dir", str(tmp_path))
    assert result.exit_code == 0, result.output
    start, _, end = after.partition("B")
    indent = " " * (len(start) - len(start.rstrip(" ")))
    entry = ADDED_B.format(i=indent)
    if "\r\n" in before:
        entry = entry.replace("\n", "\r\n")
    text = (
        file.read_bytes()
        .decode()
        .replace("b:                             # body to stdin, stdout is the answer", "b:")
    )
    assert text == start + entry + end
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert "b" in load(file).functions


def test_init_edits_the_file_that_a_link_names(tmp_path: Path) -> None:
    folder, kept = tmp_path / "my folder", tmp_path / "kept.yaml"
    folder.mkdir()
    kept.write_text("version: 1\nfunctions: {}\n")
    (folder / "functions.yaml").symlink_to(kept)
    result = run("init", "b", "--kind", "command", "--dir", str(folder))
    assert result.exit_code == 0, result.output
    assert (folder / "functions.yaml").is_symlink() and "b" in load(kept).functions
    assert f"cd '{folder}'" in result.stdout


@pytest.mark.parametrize(
    ("content", "name", "fault"),
    [
        ("version: 1\nfunctions: {a: {image: x}}\n", "b", "add this entry yourself"),
        ("version: 1\nfunctions:\n  a: {image: x}\n", "a", "has a function a already"),
        ("version: 1\nfunctions:\n  a: {imgae: x}\n", "b", "has faults"),
        ("version: 1\nfunctions:\n  a: {image: x}\n", "No", "is not a valid name of a function"),
        ("version: 1\nfunctions:\n  a: {image: x}\n", "taken", "exists already"),
    ],
)
def test_init_refuses_and_writes_nothing(tmp_path: Path, content: str, name: str, fault: str) -> None:
    file = tmp_path / "functions.yaml"
    file.write_text(content)
    (tmp_path / "functions" / "taken").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    result = run("init", name, "--dir", str(tmp_path))
    assert result.exit_code == 2
    assert fault in result.stderr
    assert file.read_text() == content
    assert sorted(tmp_path.rglob("*")) == before


# -- the log ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("Grüße an 東京", "Grüße an 東京"),
        ("a\r\n12:00:00 error forged", "a\\r\\n12:00:00 error forged"),
        ("\x1b[2J\x1b]0;title\x07", "\\x1b[2J\\x1b]0;title\\x07"),
        ("right\u202eleft\u2028line", "right\\u202eleft\\u2028line"),
    ],
)
def test_what_a_function_says_is_one_line_of_the_log_and_steers_no_terminal(message: str, shown: str) -> None:
    record = logging.makeLogRecord({"name": "hearth.invoke", "levelname": "WARNING", "msg": message})
    assert log_format.TextFormatter(colour=False).format(record).split(" warning ")[1] == shown


def test_each_line_that_a_function_has_printed_is_marked_in_the_log() -> None:
    printed = "Traceback:\n12:00:00 error forged\r\x1b[2J"
    record = logging.makeLogRecord(
        {"name": "hearth.registry", "levelname": "WARNING", "msg": "broken", "printed": printed}
    )
    lines = log_format.TextFormatter(colour=False).format(record).split(" warning ")[1].splitlines()
    assert lines == ["broken", "  | Traceback:", "  | 12:00:00 error forged\\r\\x1b[2J"]


# -- sources ------------------------------------------------------------------------------------------------


def test_sources_are_listed_with_what_came_and_an_error_that_is_not_over(answers) -> None:
    common = {
        "address": "redis://127.0.0.1:6379/0/s",
        "in_hand": 0,
        "error": "no answer in time",
        "error_at": None,
    }
    listed = [
        {"name": "orders", "kind": "redis", "state": "connected", "function": "f", "lag": 7}
        | {"counts": {"started": 3, "refused": 1}, "last": "2026-01-01T00:00:00Z", **common},
        {"name": "meters", "kind": "mqtt", "state": "connecting", "function": None, "lag": None}
        | {"counts": {}, "last": None, **common},
    ]
    asked = answers(lambda request: httpx.Response(200, json=listed))
    head, orders, meters = [re.split("  +", line) for line in run("sources").stdout.splitlines()]
    assert head == ["NAME", "KIND", "STATE", "STARTS", "MESSAGES", "LAG", "LAST", "ERROR"]
    assert orders[:6] == ["orders", "redis", "connected", "function f", "3 started, 1 refused", "7"]
    assert len(orders) == 7 and orders[6] != "-", "when the last came, and no error: it is over"
    assert meters == ["meters", "mqtt", "connecting", "triggers", "-", "-", "-", "no answer in time"]
    assert json.loads(run("sources", "--json").stdout) == listed
    assert {request.url.path for request in asked} == {"/sources"}
