"""Output of functions at a real gateway: kept over a kill, filtered, followed, and shown to whom it may be shown."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Gateway, command, eventually, handler

from gateway.access.key_file import KeyFile
from gateway.access.keys import create, parse_quota
from gateway.access.scopes import parse_scopes

pytestmark = pytest.mark.engine

HEARTH = Path(sys.executable).with_name("hearth")
PRINTS = """
import sys

def handle(event, context):
    sys.stdout.buffer.write(event.encode("latin-1"))
    print(flush=True)
"""
FLOODS = """
import os

def handle(event, context):
    os.set_blocking(1, True)
    for _ in range(event):
        os.write(1, (b"f" * 63 + b"\\n") * 1024)
"""
HOSTILE = "\x1b]0;title\x07\x1b[2J\x9b31m\r\xe2\x80\xae"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "prints": handler(PRINTS),
        "others": handler(PRINTS),
        "floods": handler(FLOODS, timeout="60s"),
        "command": command("sh", "-c", "cat >&2; echo answer"),
    }
    folder = tmp_path_factory.mktemp("journal")
    with Gateway(
        folder, functions, prewarm={"python": 1}, settings={"log_disk": "4MiB", "quiet": "false"}
    ) as running:
        yield running


def call(gateway: Gateway, function: str, text: object) -> str:
    """Have a function print; the id of its call."""
    answer = gateway.call(function, text)
    assert answer.status_code == 200, answer.text
    return str(answer.headers["x-invocation-id"])


def lines(gateway: Gateway, headers: dict[str, str] | None = None, **query: str) -> list[dict[str, Any]]:
    accept = {"accept": "application/x-ndjson", **(headers or {})}
    answer = gateway.http.get("/logs", params=query, headers=accept)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == "application/x-ndjson"
    return [json.loads(line) for line in answer.text.splitlines()]


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    id = ""
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name == "id":
            id = value
        elif name == "data":
            yield id, json.loads(value)


def hearth(gateway: Gateway, *words: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HEARTH_")}
    return subprocess.run(
        [HEARTH, *words], env={**clean, "HEARTH_URL": gateway.url}, capture_output=True, text=True, check=True
    )


def test_output_is_there_after_a_kill_and_can_be_followed_across_it(gateway: Gateway) -> None:
    first = call(gateway, "prints", "before the kill")
    eventually(lambda: lines(gateway, invocation=first))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HEARTH_")}
    with gateway.http.stream("GET", "/logs", params={"follow": "true", "function": "prints"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        followed = events(answer)
        place, line = next(followed)
        assert line["text"] == "before the kill"
    assert gateway.stop(signal.SIGKILL) == -signal.SIGKILL
    url = gateway.url
    gateway.launch()
    gateway.wait_until_ready()
    assert gateway.url != url
    (line,) = lines(gateway, function="prints")
    assert line["text"] == "before the kill"
    assert line["invocation"] == first
    for id in (first, first[:8]):
        assert gateway.http.get(f"/invocations/{id}/logs").text == "before the kill\n"
    second = call(gateway, "prints", "after it")
    query = {"follow": "true", "function": "prints"}
    with gateway.http.stream("GET", "/logs", params=query, headers={"last-event-id": place}) as answer:
        _, line = next(events(answer))
        assert (line["text"], line["invocation"]) == ("after it", second)
    follower = subprocess.Popen(
        [HEARTH, "logs", "-f", "prints", "-n", "1"],
        env={**clean, "HEARTH_URL": gateway.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None and follower.stderr is not None
        assert follower.stdout.readline().endswith(f" prints {second[:8]} │ after it\n")
        third = call(gateway, "prints", "while it follows")
        assert follower.stdout.readline().endswith(f" prints {third[:8]} │ while it follows\n")
        follower.send_signal(signal.SIGINT)
        assert follower.wait(20) == 130
        assert "No longer following" in follower.stderr.read()
    finally:
        follower.kill()
        follower.wait()
        follower.stdout.close()  # type: ignore[union-attr]
        follower.stderr.close()  # type: ignore[union-attr]


def test_filters_text_and_commands(gateway: Gateway) -> None:
    one, two = call(gateway, "prints", "a needle\nhay"), call(gateway, "others", "a needle")
    shell = gateway.call("command", content=b"a complaint\n").headers["x-invocation-id"]
    eventually(lambda: lines(gateway, invocation=shell))
    assert [line["text"] for line in lines(gateway, invocation=one)] == ["a needle", "hay"]
    assert {line["invocation"] for line in lines(gateway, grep="needle", since="10m")} >= {one, two}
    assert [line["text"] for line in lines(gateway, grep="hay", limit="1")] == ["hay"]
    assert [line["text"] for line in lines(gateway, function="command")] == ["a complaint"]
    assert lines(gateway, since="2099-01-01T00:00:00Z") == lines(gateway, until="2020-01-01T00:00:00Z") == []
    text = gateway.http.get("/logs", params={"invocation": two}).text
    assert text.endswith(f"Z others {two[:8]} | a needle\n")
    assert hearth(gateway, "logs", one).stdout == "a needle\nhay\n"
    assert f" others {two[:8]} │ a needle\n" in hearth(gateway, "logs", "others", "--grep", "needle").stdout


@pytest.mark.parametrize(
    "query",
    [{"since": "yesterday"}, {"since": "1e9"}, {"until": "99999999d"}, {"limit": "-1"}, {"limit": "10001"}],
)
def test_a_bad_request_says_which_parameter(gateway: Gateway, query: dict[str, str]) -> None:
    answer = gateway.http.get("/logs", params=query)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:hearth:problem:invalid-input")


def test_hostile_output_steers_no_terminal(gateway: Gateway) -> None:
    id = call(gateway, "prints", HOSTILE)
    eventually(lambda: lines(gateway, invocation=id))
    clean = {key: value for key, value in os.environ.items() if not key.startswith("HEARTH_")}
    for words in (["logs", id], ["logs", "--call", id, "-n", "5"], ["logs", "prints", "--json"]):
        ours, theirs = pty.openpty()
        subprocess.run(
            [HEARTH, *words],
            env={**clean, "HEARTH_URL": gateway.url, "NO_COLOR": "1"},
            stdout=theirs,
            stderr=theirs,
            check=True,
        )
        os.close(theirs)
        shown = os.read(ours, 65536).decode().replace("\r\n", "\n")
        os.close(ours)
        assert "title" in shown
        assert not [c for c in shown if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"], ascii(shown)
    text = gateway.http.get("/logs", params={"invocation": id}).text
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]


def test_the_gateways_log_shows_what_functions_print(gateway: Gateway) -> None:
    id = call(gateway, "prints", "shown " + HOSTILE)
    eventually(lambda: id in gateway.log)
    (line,) = [line for line in gateway.log.splitlines() if id in line]
    found = json.loads(line)
    assert found["logger"] == "hearth.output"
    assert (found["function"], found["message"]) == (
        "prints",
        "shown " + HOSTILE.encode("latin-1").decode(errors="backslashreplace"),
    )
    assert not [c for c in line if unicodedata.category(c) in ("Cc", "Cf")]


def test_a_flood_fills_no_disk_and_takes_nobodys_lines(gateway: Gateway) -> None:
    id = call(gateway, "others", "a quiet word")
    eventually(lambda: lines(gateway, invocation=id))
    for _ in range(24):
        call(gateway, "floods", 16)
    eventually(lambda: lines(gateway, function="floods", limit="1"))
    on_disk = sum(file.stat().st_size for file in (gateway.data / "logs").iterdir())
    assert on_disk <= 4 * 2**20
    eventually(lambda: "lines left out here; hearth logs floods shows them" in gateway.log)
    assert [line["text"] for line in lines(gateway, invocation=id)] == ["a quiet word"]


def test_a_key_sees_the_output_of_what_it_may_invoke(gateway: Gateway) -> None:
    """The last test here: from now on the gateway needs a key, and at its end it is stopped."""
    secret, other = call(gateway, "prints", "secret"), call(gateway, "others", "for all")
    eventually(lambda: lines(gateway, invocation=other))
    file, headers = KeyFile(gateway.data), {}
    for name, scopes in {"narrow": ["invoke:others"], "reader": ["read"], "wide": ["invoke:*"]}.items():
        secret_key, key = create(name, parse_scopes(scopes), parse_quota(None, None, None), None, 0.0)
        file.add(key)
        headers[name] = {"authorization": f"Bearer {secret_key}"}
    eventually(lambda: gateway.http.get("/logs", headers=headers["wide"]).status_code == 200)
    eventually(lambda: gateway.http.get("/logs").status_code == 401)
    assert {line["function"] for line in lines(gateway, headers["narrow"])} == {"others"}
    assert lines(gateway, headers["narrow"], invocation=secret) == []
    for name in ("reader", "wide"):
        assert lines(gateway, headers[name], invocation=secret)[0]["text"] == "secret"
    refused = gateway.http.get("/logs", params={"function": "prints"}, headers=headers["narrow"])
    assert refused.status_code == 403
    query = {"follow": "true", "limit": "1"}
    with gateway.http.stream("GET", "/logs", params=query, headers=headers["narrow"]) as answer:
        followed = events(answer)
        assert next(followed)[1]["invocation"] == other
        file.revoke("narrow")
        eventually(lambda: gateway.http.get("/logs", headers=headers["narrow"]).status_code == 401)
        assert gateway.call("others", "too late", headers=headers["wide"]).status_code == 200
        assert list(followed) == [], "its key is revoked"
    with gateway.http.stream("GET", "/logs", params=query, headers=headers["wide"]) as answer:
        followed = events(answer)
        assert next(followed)[1]["text"] == "too late"
        assert gateway.stop() == 0
        assert list(followed) == []
    assert "graceful shutdown exceeded" not in gateway.log, "who follows must not hold up the end"
