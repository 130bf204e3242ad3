"""`hearth invoke`, `result` and `dead-letters` without a gateway: what they send, print and how they end."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.cli import common, main
from gateway.cli.client import GatewayClient
from gateway.cli.commands.calling.repeated import AnsweredCall, middles_of, phases_of, print_summary
from gateway.cli.watch import watching

ID = "6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4"
AT = "2026-11-29T02:12:05Z"
HEADERS = {
    "x-hearth-start": "warm",
    "server-timing": "queue;dur=0.10, start;dur=0.00, exec;dur=2.5",
    "x-invocation-id": ID,
}


def call(status: str, **more: Any) -> dict[str, Any]:
    kept = {"id": ID, "function": "report", "status": status, "attempts": 3, "accepted": AT, "due": None}
    ended = {"ended": AT, "error": "handler-raised", "detail": "ValueError: no\npaper", "blame": "function"}
    return kept | ended | more


def run(*arguments: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(main, arguments, input=stdin)


class CallsGateway:
    """A gateway that accepts calls; its answers can be put before they are asked for."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.statuses = ["succeeded"]
        self.answers: list[httpx.Response] = []
        self.dead = [call("dead")]
        self.cursor: str | None = None

    def __call__(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.asked.append(request)
        path = request.url.path
        if "respond-async" in request.headers.get("prefer", ""):
            return httpx.Response(202, json=call("queued", attempts=0, ended=None))
        if path.startswith("/invoke/") or path.endswith("/result"):
            given = self.answers.pop(0) if self.answers else httpx.Response(200, text="fine", headers=HEADERS)
            # A real one is not read yet.
            content = httpx.ByteStream(given.content)
            return httpx.Response(given.status_code, headers=given.headers, stream=content)
        if path == "/functions":
            return httpx.Response(200, json=[{"name": "hello"}, {"name": "report"}])
        if path.startswith("/dead-letters"):
            page = {"invocations": self.dead, "cursor": self.cursor}
            return httpx.Response(200, json=page if request.method == "GET" else {"count": len(self.dead)})
        if request.method == "DELETE":
            return httpx.Response(200, json=call("cancelled"))
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return httpx.Response(200, json=call(status))

    def lines(self) -> list[str]:
        return [f"{request.method} {request.url.raw_path.decode()}" for request in self.asked]


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> CallsGateway:
    fake = CallsGateway()
    client = functools.partial(GatewayClient, transport=httpx.MockTransport(fake))
    monkeypatch.setattr(common, "GatewayClient", client)
    monkeypatch.setattr(watching, "FIRST_POLL_SECONDS", 0.0)
    monkeypatch.setattr(watching, "LONGEST_POLL_SECONDS", 0.0)
    return fake


def refusal(status: int, slug: str, detail: str) -> httpx.Response:
    content = {"type": f"urn:hearth:problem:{slug}", "title": "Went wrong", "detail": detail}
    return httpx.Response(
        status,
        content=json.dumps({**content, "blame": "caller", "invocation_id": ID}),
        headers={"content-type": "application/problem+json"},
    )


# -- invoke: what is sent ------------------------------------------------------------------------------------


def test_data_is_a_text_a_file_or_stdin(gateway: CallsGateway, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"picture")
    assert run("invoke", "f", "--data", f"@{picture}").exit_code == 0
    assert run("invoke", "f", "--data", "@-", stdin=b"from stdin").exit_code == 0
    file, stdin = gateway.asked
    assert (file.content, file.headers["content-type"]) == (b"picture", "image/png")
    assert (stdin.content, stdin.headers.get("content-type")) == (b"from stdin", None)


def test_a_file_that_cannot_be_read_is_named(gateway: CallsGateway) -> None:
    for options in ((), ("--repeat", "2"), ("--async",)):
        result = run("invoke", "f", "--data", "@/not/there", *options)
        assert result.exit_code == 2
        assert "cannot read /not/there: No such file or directory" in result.stderr
    assert gateway.asked == []


@pytest.mark.parametrize(
    ("name", "hint"),
    [("helo", "there is no function helo; did you mean hello?"), ("zzz", "hearth functions lists them")],
)
def test_an_unknown_function_gets_the_nearest_name(gateway: CallsGateway, name: str, hint: str) -> None:
    gateway.answers = [refusal(404, "no-such-function", "there is no function")]
    result = run("invoke", name)
    assert result.exit_code == 2
    assert hint in result.stderr


# -- invoke: again and again ----------------------------------------------------------------------------------


def test_a_few_repeated_calls_print_their_answers(gateway: CallsGateway) -> None:
    result = run("invoke", "f", "--repeat", "3", "--data", "@-", stdin=b"same")
    assert (result.exit_code, result.stdout) == (0, "fine" * 3)
    assert [request.content for request in gateway.asked] == [b"same"] * 3


def test_many_repeated_calls_print_a_summary(gateway: CallsGateway) -> None:
    gateway.answers = [
        httpx.Response(200, text="fine", headers=HEADERS | {"x-hearth-start": "cold"}),
        refusal(429, "queue-full", "later"),
    ]
    result = run("invoke", "f", "--repeat", "20")
    assert result.exit_code == 2, "the worst answer decides"
    assert "Statuses:  200: 19, 429: 1" in result.stdout
    assert "Starts:    warm: 18, cold: 1" in result.stdout
    assert "fine" not in result.stdout
    phases = [line.split() for line in result.stdout.splitlines() if line.startswith(("queue", "exec"))]
    assert [phase[:3] for phase in phases] == [["queue", "0.10", "ms"], ["exec", "2.50", "ms"]]
    assert f"A call answered 429; its log: hearth logs {ID}" in result.stdout


def test_repeating_an_unknown_function_ends_at_once(gateway: CallsGateway) -> None:
    gateway.answers = [refusal(404, "no-such-function", "there is no function")] * 20
    assert "did you mean hello?" in run("invoke", "helo", "--repeat", "20").stderr
    assert gateway.lines() == ["POST /invoke/helo", "GET /functions"]


def test_ctrl_c_between_repeated_calls_prints_what_is_known(
    gateway: CallsGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted_fourth(request: httpx.Request) -> httpx.Response:
        if len(gateway.asked) == 3:
            raise KeyboardInterrupt
        return gateway(request)

    transport = httpx.MockTransport(interrupted_fourth)
    monkeypatch.setattr(common, "GatewayClient", functools.partial(GatewayClient, transport=transport))
    result = run("invoke", "f", "--repeat", "20")
    assert result.exit_code == 130
    assert "Statuses:  200: 3" in result.stdout
    assert "Stopped after 3 of 20 calls." in result.stderr


def test_the_percentiles_are_times_that_were_measured() -> None:
    assert middles_of([3.0]) == (3.0, 3.0, 3.0)
    assert middles_of([float(time) for time in range(200, 0, -1)]) == (100.0, 198.0, 200.0)
    assert phases_of("queue;dur=0.1, exec;dur=2, other;dur=3, start") == {"queue": 0.1, "exec": 2.0}


def test_a_summary_of_answers_without_timing_has_the_total(capsys: pytest.CaptureFixture[str]) -> None:
    print_summary([AnsweredCall(503, "", {}, 12.34, None)] * 6, 2.0)
    said = capsys.readouterr().out
    assert "6 calls in 2.0s, 3 a second" in said
    assert said.splitlines()[-1].split() == ["total", *["12.3", "ms"] * 3]


# -- invoke: later ------------------------------------------------------------------------------------------------


def test_an_accepted_call_prints_its_id_and_the_next_steps(gateway: CallsGateway) -> None:
    result = run("invoke", "report", "--async", "--data", "1", "-H", "X-A: b", "--path", "/sub")
    assert (result.exit_code, result.stdout) == (0, f"{ID}\n")
    for step in ("hearth result --wait", "hearth logs", "hearth result --cancel"):
        assert f"{step} {ID}" in result.stderr
    (asked,) = gateway.asked
    assert (asked.method, asked.url.path, asked.content) == ("POST", "/invoke/report/sub", b"1")
    assert asked.headers["prefer"] == "respond-async" and asked.headers["x-a"] == "b"
    assert asked.headers["idempotency-key"] and asked.headers["content-type"] == "application/json"


@pytest.mark.parametrize(("status", "ending"), [(200, 0), (404, 2), (500, 1)])
def test_waiting_prints_the_answer_when_the_call_has_ended(
    gateway: CallsGateway, status: int, ending: int
) -> None:
    gateway.statuses = ["queued", "running", "succeeded"]
    gateway.answers = [httpx.Response(status, text="the report", headers=HEADERS)]
    result = run("invoke", "report", "--async", "--wait", "-i")
    assert (result.exit_code, result.stdout) == (ending, "the report")
    assert "-- warm start" in result.stderr
    assert gateway.lines()[-2:] == [f"GET /invocations/{ID}", f"GET /invocations/{ID}/result"]


@pytest.mark.parametrize("options", [("--wait",), ("--async", "--repeat", "2"), ("--repeat", "0")])
def test_options_that_do_not_go_together_are_refused(gateway: CallsGateway, options: tuple[str, ...]) -> None:
    assert run("invoke", "f", *options).exit_code == 2
    assert gateway.asked == []


# -- result -------------------------------------------------------------------------------------------------------


def test_the_result_of_a_call_is_printed_or_the_way_to_wait_for_it(gateway: CallsGateway) -> None:
    assert run("result", ID).stdout == "fine"
    assert json.loads(run("result", ID, "--json").stdout)["status"] == "succeeded"
    gateway.statuses = ["running"]
    waiting = run("result", ID[:8])
    assert (waiting.exit_code, waiting.stdout) == (1, "")
    assert f"wait for it: hearth result --wait {ID}" in waiting.stderr
    cancelled = run("result", "--cancel", ID)
    assert cancelled.exit_code == 0 and f"call {ID} cancelled" in cancelled.stderr
    assert gateway.lines()[-2:] == [f"GET /invocations/{ID[:8]}", f"DELETE /invocations/{ID}"]


def test_ctrl_c_while_waiting_names_the_ways_back(
    gateway: CallsGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    gateway.statuses = ["running"]
    monkeypatch.setattr(watching.time, "sleep", interrupted)
    result = run("result", "--wait", ID)
    assert result.exit_code == 130
    assert "The call continues without this command." in result.stderr
    assert f"hearth result --wait {ID}" in result.stderr


# -- dead letters -------------------------------------------------------------------------------------------------


def test_dead_letters_are_listed_with_their_reason(gateway: CallsGateway) -> None:
    listed = run("dead-letters", "--function", "report", "--limit", "7")
    assert listed.exit_code == 0
    assert gateway.lines() == ["GET /dead-letters?limit=7&function=report"]
    line = listed.stdout.splitlines()[1]
    assert line.startswith(f"{ID}  report    dead    3")
    assert line.endswith("handler-raised: ValueError: no paper")
    assert listed.stderr == ""
    gateway.cursor = "17"
    assert "--limit N lists more" in run("dead-letters").stderr


def test_without_dead_letters_it_says_so(gateway: CallsGateway) -> None:
    gateway.dead = []
    result = run("dead-letters")
    assert (result.stdout, result.stderr) == ("", "No dead letters: no accepted call was given up.\n")
    assert json.loads(run("dead-letters", "list", "--json").stdout) == []


def test_one_dead_letter_is_shown_with_the_next_steps(gateway: CallsGateway) -> None:
    gateway.statuses = ["dead"]
    shown = run("dead-letters", "show", ID[:8]).stdout
    assert shown.startswith(f"call {ID} of report: dead after 3 attempts\n")
    assert "handler-raised (blame: function)" in shown and "ValueError: no" in shown
    for step in ("hearth logs", "hearth result", "hearth dead-letters redrive"):
        assert f"  {step} {ID}\n" in shown
    assert json.loads(run("dead-letters", "show", ID, "--json").stdout)["id"] == ID


def test_dead_letters_are_redriven_all_by_function_or_by_id(gateway: CallsGateway) -> None:
    assert run("dead-letters", "redrive").stdout == "1 dead letter queued again\n"
    assert json.loads(run("dead-letters", "redrive", "--function", "f", "--json").stdout) == {"count": 1}
    assert run("dead-letters", "redrive", "a", "b").stdout == "2 dead letters queued again\n"
    assert gateway.lines() == [
        "POST /dead-letters/redrive",
        "POST /dead-letters/redrive?function=f",
        "POST /invocations/a/retry",
        "POST /invocations/b/retry",
    ]
    assert run("dead-letters", "redrive", "a", "--function", "f").exit_code == 2


@pytest.mark.parametrize(
    ("options", "stdin", "ending", "purged"),
    [(("--yes",), b"", 0, True), ((), b"y\n", 0, True), ((), b"n\n", 0, False), ((), b"", 2, False)],
)
def test_purging_asks_first(
    gateway: CallsGateway, options: tuple[str, ...], stdin: bytes, ending: int, purged: bool
) -> None:
    result = run("dead-letters", "purge", "--function", "report", *options, stdin=stdin)
    assert result.exit_code == ending, result.output
    assert (gateway.lines() == ["DELETE /dead-letters?function=report"]) == purged
    if not stdin and not purged:
        assert "add --yes" in result.stderr
