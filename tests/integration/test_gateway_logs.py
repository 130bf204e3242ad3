"""What an invocation prints is its own log: all of it, nothing of others, and at nobody else's cost."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterator

import httpx
import pytest
from harness import Gateway, command, eventually, handler, in_parallel

pytestmark = pytest.mark.engine

LIMIT = 64 * 1024
PRINTS = """
import os, subprocess, sys, time

def handle(event, context):
    how, text = event["how"], event["text"]
    if how == "print":
        print(text)
    elif how == "half a line":
        sys.stdout.write(text)
    elif how == "stderr":
        print(text, file=sys.stderr)
    elif how == "write":
        os.write(1, text.encode() + b"\\n")
    elif how == "subprocess":
        subprocess.run([sys.executable, "-c", f"print({text!r})"], check=True)
    elif how == "mixed":
        print(text, 1)
        os.write(2, f"{text} 2\\n".encode())
        print(text, 3)
    elif how == "dies":
        print(text, flush=True)
        os._exit(1)
    elif how == "sleeps":
        print(text, flush=True)
        time.sleep(10)
    elif how == "repeat":
        for _ in range(event["times"]):
            print(text)
    elif how == "flood":
        os.set_blocking(1, True)
        for _ in range(50 * 16):
            os.write(1, b"f" * 65535 + b"\\n")
    return text

print("imported")
"""
STREAM = """
def handle(event, context):
    for number in range(3):
        print("line", number)
        yield b"x"
"""
OVERLAP = """
import asyncio

async def handle(event, context):
    print("from", event)
    await asyncio.sleep(0.3)
    return event
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "prints": handler(PRINTS, max_instances=1, timeout="1s"),
        "floods": handler(PRINTS, max_instances=1, timeout="30s"),
        "quiet": handler("def handle(event, context):\n    return event\n"),
        "stream": handler(STREAM),
        "overlap": handler(OVERLAP, concurrency=4, max_instances=1),
        "command": command("sh", "-c", "cat >&2; echo answer"),
        "flood-command": command("sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' e >&2; echo answer"),
    }
    folder = tmp_path_factory.mktemp("logs")
    with Gateway(folder, functions, prewarm={"python": 1}, settings={"log_limit": "64KiB"}) as running:
        yield running


def ask(gateway: Gateway, how: str, text: str, **more: object) -> httpx.Response:
    return gateway.call("prints", {"how": how, "text": text, **more})


@pytest.mark.parametrize("how", ["print", "half a line", "stderr", "write", "subprocess", "mixed"])
def test_an_invocations_log_is_exactly_what_it_printed(gateway: Gateway, how: str):
    answers = [ask(gateway, how, f"number {number}") for number in range(8)]
    for number, answer in enumerate(answers):
        line = f"number {number}"
        expected = {"half a line": line, "mixed": f"{line} 1\n{line} 2\n{line} 3\n"}.get(how, f"{line}\n")
        assert gateway.logs(answer) == expected
    response = gateway.http.get(f"/invocations/{answers[0].headers['x-invocation-id']}/logs")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"


def test_an_invocation_that_prints_nothing_has_an_empty_log(gateway: Gateway):
    ask(gateway, "print", "before")
    answer = gateway.call("quiet", {})
    assert gateway.logs(answer) == ""


def test_what_the_import_printed_belongs_to_no_invocation(gateway: Gateway):
    answer = ask(gateway, "print", "hello")
    (instance,) = gateway.instances("prints")
    assert "imported\n" in gateway.http.get(f"/pool/instances/{instance['id']}/logs").text
    assert "imported" not in gateway.logs(answer)


@pytest.mark.parametrize(("how", "status"), [("dies", 502), ("sleeps", 504)])
def test_the_log_is_there_after_the_instance_is_gone(gateway: Gateway, how: str, status: int):
    answer = ask(gateway, how, "last words")
    assert answer.status_code == status
    eventually(lambda: gateway.instances("prints") == [])
    assert gateway.logs(answer) == "last words\n"


def test_a_log_is_bounded_and_says_so(gateway: Gateway):
    answer = ask(gateway, "repeat", "x" * 999, times=200)
    assert answer.status_code == 200
    log = gateway.logs(answer)
    assert log.startswith("x" * 999 + "\n")
    assert log.endswith("\n[output truncated]\n")
    assert log.count("truncated") == 1
    assert LIMIT <= len(log) < LIMIT + 100
    assert gateway.logs(ask(gateway, "print", "after")) == "after\n"


def test_the_log_of_a_stream_has_all_of_it(gateway: Gateway):
    for _ in range(3):
        answer = gateway.call("stream")
        assert answer.content == b"xxx"
        eventually(lambda response=answer: gateway.logs(response) == "line 0\nline 1\nline 2\n", 2)


def test_calls_that_overlap_share_the_instances_log(gateway: Gateway):
    answers = in_parallel(lambda number: gateway.call("overlap", number), 4)
    (instance,) = gateway.instances("overlap")
    shared = gateway.http.get(f"/pool/instances/{instance['id']}/logs").text
    own = [gateway.logs(answer) for answer in answers]
    assert sorted((shared + "".join(own)).splitlines()) == [f"from {number}" for number in range(4)]
    for number, log in enumerate(own):
        assert log in ("", f"from {number}\n")


def test_a_commands_stderr_is_its_log(gateway: Gateway):
    answers = [gateway.call("command", content=b"complaint %d\n" % number) for number in range(3)]
    assert [answer.text for answer in answers] == ["answer\n"] * 3
    assert [gateway.logs(answer) for answer in answers] == [f"complaint {number}\n" for number in range(3)]


def test_who_prints_50_mib_gets_an_answer_and_slows_nobody(gateway: Gateway):
    flood = {"how": "flood", "text": "done"}
    gateway.call("floods", {"how": "print", "text": "warm"})
    gateway.call("quiet", {})

    def quiet_calls() -> float:
        times = []
        for _ in range(40):
            begin = time.perf_counter()
            assert gateway.call("quiet", {}).status_code == 200
            times.append(time.perf_counter() - begin)
        return statistics.median(times)

    before, memory = quiet_calls(), gateway.memory()
    answers: list[httpx.Response] = []
    flooding = threading.Thread(target=lambda: answers.append(gateway.call("floods", flood)))
    flooding.start()
    eventually(lambda: gateway.pool("floods")["instances"].get("busy"))
    during = quiet_calls()
    still_flooding = not answers
    flooding.join()
    assert still_flooding, "the flood was over before it was measured"
    assert answers[0].text == "done"
    assert during < before + 0.01, (before, during)
    assert gateway.memory() - memory < 8 * 2**20
    log = gateway.logs(answers[0])
    assert len(log) < LIMIT + 100
    assert log.endswith("[output truncated]\n")
    after = gateway.call("floods", {"how": "print", "text": "after"})
    assert gateway.logs(after) == "after\n"


def test_a_command_that_floods_stderr_gets_its_answer(gateway: Gateway):
    answer = gateway.call("flood-command")
    assert (answer.status_code, answer.text) == (200, "answer\n")
    assert gateway.logs(answer).endswith("[output truncated]\n")
    assert len(gateway.logs(answer)) < LIMIT + 100
