"""`hearth run` and `hearth jobs` without a gateway: what they send, print and how they end."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.cli import common, main
from gateway.cli.client import GatewayClient
from gateway.cli.watch import job_watch, watching

ID = "0f3a1c5b7d9e4f60a1b2c3d4e5f60718"
NO_TASKS = {"queued": 0, "running": 0, "succeeded": 0, "failed": 0, "cancelled": 0}


def job(status: str, count: int = 2, **tasks: int) -> dict[str, Any]:
    times = {"created": "2026-01-01T00:00:00Z", "ended": None, "url": f"/jobs/{ID}"}
    names = {"name": None, "image": "busybox:latest", "function": None}
    return {
        "id": ID,
        "status": status,
        "count": count,
        "parallel": 2,
        "tasks": NO_TASKS | tasks,
        **names,
        **times,
    }


def task(index: int, status: str, **more: Any) -> dict[str, Any]:
    times = {"started": "2026-01-01T00:00:00Z", "ended": "2026-01-01T00:00:01.5Z"}
    named = {"invocation": f"i{index}", "error": None, "detail": ""}
    return {"index": index, "status": status, "attempts": index + 1, **times, **named, **more}


class FakeGateway:
    """Answers from a list, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.stands = [job("running", queued=2), job("succeeded", succeeded=2)]
        self.tasks = [task(0, "succeeded"), task(1, "succeeded")]
        self.refuses: dict[str, tuple[int, str]] = {}
        self.away = 0
        self.lost = 0
        """Starts whose answers get lost."""
        self.keys: list[str] = []
        """Idempotency keys of the starts."""

    def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.raw_path.decode(), body))
        path = request.url.path
        if path == "/jobs" and request.method == "POST":
            for kind, (status, detail) in self.refuses.items():
                if kind in body:
                    return refusal(status, detail)
            self.keys.append(request.headers["idempotency-key"])
            if self.lost:
                self.lost -= 1
                raise httpx.ReadError("the connection broke")
            return httpx.Response(202, json=self.stands.pop(0))
        if path == "/jobs":
            return httpx.Response(200, json={"jobs": self.stands, "declared": ["nightly"], "cursor": None})
        if path.endswith("/tasks"):
            return httpx.Response(200, json={"tasks": self.tasks, "cursor": None})
        if path.endswith("/result"):
            return httpx.Response(200, content=f"result of {path.split('/')[2]}\nand more".encode())
        if request.method == "DELETE":
            return httpx.Response(204)
        if self.away:
            self.away -= 1
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=self.stands.pop(0) if len(self.stands) > 1 else self.stands[0])

    def started(self) -> list[Any]:
        return [body for method, path, body in self.asked if (method, path) == ("POST", "/jobs")]


def refusal(status: int, detail: str) -> httpx.Response:
    content = {"type": "urn:hearth:problem:some", "title": "Went wrong", "status": status, "detail": detail}
    return httpx.Response(
        status, json={**content, "blame": "caller"}, headers={"content-type": "application/problem+json"}
    )


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> FakeGateway:
    fake = FakeGateway()
    client = functools.partial(GatewayClient, transport=httpx.MockTransport(fake))
    monkeypatch.setattr(common, "GatewayClient", client)
    monkeypatch.setattr(watching, "FIRST_POLL_SECONDS", 0.0)
    monkeypatch.setattr(watching, "LONGEST_POLL_SECONDS", 0.0)
    return fake


def run(*arguments: str, stdin: str = "") -> Result:
    return CliRunner().invoke(main, arguments, input=stdin)


@pytest.mark.parametrize(
    ("arguments", "body"),
    [
        (("busybox:latest",), {"image": "busybox:latest", "count": 1}),
        (
            ("busybox:latest", "sh", "-c", "exit 1", "--count", "10", "--retries", "20", "--memory", "100MB"),
            {
                "image": "busybox:latest",
                "command": ["sh", "-c", "exit 1"],
                "count": 10,
                "retries": 20,
                "memory": "100MB",
            },
        ),
        (
            ("--cpu-shares", "10", "--remove", "none", "--env", "A=b=c", "busybox", "ls", "-la"),
            {
                "image": "busybox",
                "command": ["ls", "-la"],
                "cpu_shares": 10,
                "remove": "none",
                "env": {"A": "b=c"},
            }
            | {"count": 1},
        ),
        (
            ("--", "busybox:1", "ls", "--count"),
            {"image": "busybox:1", "command": ["ls", "--count"], "count": 1},
        ),
        (("nightly",), {"job": "nightly"}),
        (("nightly", "--count", "3"), {"job": "nightly", "count": 3}),
    ],
)
def test_what_is_asked_for_is_sent(
    gateway: FakeGateway, arguments: tuple[str, ...], body: dict[str, Any]
) -> None:
    result = run("run", *arguments)
    assert result.exit_code == 0, result.output
    assert gateway.started() == [body]


def test_a_name_is_a_job_else_a_function_else_an_image(gateway: FakeGateway) -> None:
    gateway.refuses = {"job": (404, "there is no such job"), "function": (403, "not yours")}
    assert run("run", "hello", "--count", "2").exit_code == 0
    assert gateway.started() == [{kind: "hello", "count": 2} for kind in ("job", "function", "image")]
    gateway.refuses["image"] = (404, "the engine has no image hello; docker pull hello")
    result = run("run", "hello")
    assert result.exit_code == 2
    assert "there is no job and no function hello, and the engine has no image hello" in result.stderr
    gateway.refuses = {"job": (422, "count: too many")}
    assert run("run", "hello").exit_code == 2
    assert gateway.started()[-1] == {"job": "hello"}, "what is there and refuses is not sought elsewhere"


def test_the_tasks_are_a_table_with_what_they_brought(gateway: FakeGateway) -> None:
    result = run("run", "busybox:latest", "--count", "2")
    assert result.stdout.splitlines() == [
        "INDEX  STATUS     ATTEMPTS  TOOK  RESULT",
        "0      succeeded  1         1.5s  result of i0",
        "1      succeeded  2         1.5s  result of i1",
    ]
    assert f"job {ID} succeeded: 2 succeeded" in result.stderr


def test_a_job_that_fails_ends_with_status_1_and_says_of_what(gateway: FakeGateway) -> None:
    gateway.stands = [job("running", running=2), job("failed", succeeded=1, failed=1)]
    gateway.tasks = [task(0, "succeeded"), task(1, "failed", detail="the command ended with exit status 3")]
    result = run("run", "busybox:latest")
    assert result.exit_code == 1
    assert "exit status 3" in result.stdout and f"hearth jobs retry {ID}" in result.stderr


def test_of_a_large_job_those_that_have_failed_are_shown(gateway: FakeGateway) -> None:
    gateway.stands = [job("failed", count=1000, succeeded=999, failed=1)]
    gateway.tasks = [task(17, "failed", error="timeout")]
    assert "17" in run("jobs", "show", ID).stdout
    assert gateway.asked[-1][1] == f"/jobs/{ID}/tasks?limit=50&status=failed"


def test_json_and_detach_are_for_programs(gateway: FakeGateway) -> None:
    assert run("run", "busybox:latest", "--detach").stdout == f"{ID}\n"
    gateway.stands = [job("running"), job("succeeded")]
    shown = json.loads(run("run", "busybox:latest", "--json").stdout)
    assert (shown["id"], shown["status"], [t["index"] for t in shown["listed"]]) == (ID, "succeeded", [0, 1])
    gateway.stands = [job("running")]
    assert json.loads(run("run", "busybox:latest", "--detach", "--json").stdout)["status"] == "running"


def test_inputs_come_as_json_lines(gateway: FakeGateway, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('1\n\n"two"\n{"three": [3]}\n')
    assert run("run", "busybox:latest", "--input", str(tmp_path / "in.jsonl")).exit_code == 0
    gateway.stands = [job("succeeded")]
    assert run("run", "busybox:latest", "--input", "-", stdin="4\n").exit_code == 0
    assert [body["inputs"] for body in gateway.started()] == [[1, "two", {"three": [3]}], [4]]
    assert all("count" not in body for body in gateway.started())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("busybox", "--conut", "3"), "did you mean --count?"),
        (("busybox", "--input", "-", "--count", "3"), "only one of --count and --input"),
        (("busybox", "--input", "absent.jsonl"), "cannot read absent.jsonl: No such file"),
        (("busybox", "--input", "-"), "stdin:2: "),
        (("busybox", "--env", "A"), "does not have the form K=V"),
        ((), "Missing argument"),
    ],
)
def test_a_wrong_command_line_is_refused(
    gateway: FakeGateway, arguments: tuple[str, ...], words: str
) -> None:
    result = run("run", *arguments, stdin="1\nno json\n")
    assert (result.exit_code, words in result.stderr) == (2, True), result.stderr
    assert gateway.asked == []


def test_a_gateway_that_is_away_for_a_while_is_waited_for(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway.away = 3
    assert run("run", "busybox:latest").exit_code == 0
    gateway.stands, gateway.away = [job("running"), job("running")], 1
    monkeypatch.setattr(watching, "GATEWAY_AWAY_SECONDS", -1.0)
    result = run("run", "busybox:latest")
    assert result.exit_code == 1 and f"hearth jobs show {ID}" in result.stderr


def test_ctrl_c_ends_the_showing_and_says_how_to_go_on(
    gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupted)
    result = run("run", "busybox:latest")
    assert result.exit_code == 130
    assert f"hearth jobs show --follow {ID}" in result.stderr and f"hearth jobs cancel {ID}" in result.stderr
    assert [method for method, _, _ in gateway.asked] == ["POST"], "the job is left alone"


def test_jobs_are_listed_shown_and_changed(gateway: FakeGateway) -> None:
    gateway.stands = [job("failed", succeeded=1, failed=1)]
    listed = run("jobs").stdout
    assert "busybox:latest" in listed and "2/2, 1 failed" in listed and "nightly" in listed
    assert json.loads(run("jobs", "--status", "failed", "--json").stdout)["declared"] == ["nightly"]
    for name, method, path in (
        ("cancel", "POST", f"/jobs/{ID}/cancel"),
        ("retry", "POST", f"/jobs/{ID}/retry"),
        ("forget", "DELETE", f"/jobs/{ID}"),
    ):
        changed = run("jobs", name, ID)
        assert changed.exit_code == 0, changed.output
        assert gateway.asked[-1][:2] == (method, path)
    assert run("jobs", "show", ID).exit_code == 0
    assert run("jobs", "show", "--follow", ID).exit_code == 1
    assert json.loads(run("jobs", "cancel", ID, "--json").stdout)["id"] == ID


@pytest.mark.parametrize(
    "command", [("run",), ("jobs",), ("jobs", "list"), ("jobs", "show"), ("jobs", "cancel")]
)
def test_help_has_examples(command: tuple[str, ...]) -> None:
    assert "Examples:" in run(*command, "--help").stdout


def test_a_result_is_one_short_line_that_steers_no_terminal(gateway: FakeGateway) -> None:
    shown: Callable[[dict[str, Any]], str] = functools.partial(job_watch.outcome_of, None)  # type: ignore[arg-type]
    assert shown(task(0, "failed", detail="\x1b[31mred\nsecond")) == r"\x1b[31mred"
    assert len(shown(task(0, "failed", detail="x" * 500))) == job_watch.MAX_FAULT_CHARS
    assert job_watch.took(task(0, "running", ended=None)) == "-"


def test_a_start_whose_answer_is_lost_is_asked_for_once_more_with_the_same_key(gateway: FakeGateway) -> None:
    gateway.lost = 1
    assert run("run", "hello", "--count", "2").exit_code == 0
    assert len(gateway.keys) == 2 and len(set(gateway.keys)) == 1
    gateway.stands, gateway.lost = [job("succeeded", succeeded=2)], 2
    failed = run("run", "hello", "--count", "2")
    assert failed.exit_code == 1 and "the connection to" in failed.output
    assert len(set(gateway.keys)) == 2, "another start has another key"
