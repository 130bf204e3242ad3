"""`hearth logs`: it takes a function or a call, filters, and follows across restarts of the gateway."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.cli import common, main
from gateway.cli.client import GatewayClient
from gateway.cli.commands.watching import logs

ID = "2e16dc3290329f5f74ccb6021d486ad7"
LINE = {
    "time": "2026-11-29T12:00:00.123Z",
    "function": "hello",
    "revision": "r1",
    "invocation": ID,
    "instance": "be5e875eabc7",
    "text": "Hello, Ada!",
}
Answers = Callable[[Callable[[httpx.Request], httpx.Response]], list[httpx.Request]]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """Have every command ask a gateway that answers so; returns what it was asked."""

    def use(answer: Callable[[httpx.Request], httpx.Response]) -> list[httpx.Request]:
        asked: list[httpx.Request] = []

        def note(request: httpx.Request) -> httpx.Response:
            asked.append(request)
            return answer(request)

        client = functools.partial(GatewayClient, transport=httpx.MockTransport(note))
        monkeypatch.setattr(common, "GatewayClient", client)
        return asked

    return use


def run(*words: str) -> Result:
    return CliRunner().invoke(main, ["logs", *words])


def lines(*found: dict[str, object]) -> httpx.Response:
    return httpx.Response(200, content="".join(json.dumps(line) + "\n" for line in found).encode())


def refused(status: int, blame: str = "caller") -> httpx.Response:
    problem = {"type": "urn:hearth:problem:x", "title": "No", "detail": "why", "blame": blame}
    return httpx.Response(status, json=problem, headers={"content-type": "application/problem+json"})


def gateway(request: httpx.Request) -> httpx.Response:
    """A gateway with the functions hello and cafe."""
    if request.url.path == "/functions":
        return httpx.Response(200, json=[{"name": "hello"}, {"name": "cafe"}])
    if request.url.path == "/logs":
        return lines(LINE)
    return httpx.Response(200, content=b"\xffline\n")


@pytest.mark.parametrize(
    ("words", "paths", "said"),
    [
        ([ID], [f"/invocations/{ID}/logs"], ""),
        (["2e16dc32"], ["/functions", "/invocations/2e16dc32/logs"], "Output of call 2e16dc32"),
        (["--call", "2e16"], ["/invocations/2e16/logs"], "Output of call 2e16"),
        (["--instance", "i1"], ["/pool/instances/i1/logs"], ""),
        (["cafe"], ["/functions", "/logs?function=cafe"], "Output of function cafe"),
        (["hello"], ["/logs?function=hello"], "Output of function hello"),
        ([], ["/logs"], "Output of all functions"),
        ([ID, "-n", "3"], [f"/logs?invocation={ID}&limit=3"], f"Output of call {ID}"),
        (
            ["hello", "--call", "2e16", "--since", "10m", "--grep", "Ada"],
            ["/logs?function=hello&invocation=2e16&since=10m&grep=Ada"],
            "Output of function hello and call 2e16",
        ),
    ],
)
def test_a_name_is_a_function_or_a_call_and_it_says_which(
    answers: Answers, words: list[str], paths: list[str], said: str
) -> None:
    asked = answers(gateway)
    shown = run(*words)
    assert shown.exit_code == 0, shown.output
    assert [request.url.raw_path.decode() for request in asked] == paths
    assert shown.stderr.startswith(said) and bool(said) == bool(shown.stderr)
    if paths[-1].startswith("/logs"):
        assert shown.stdout == "2026-11-29T12:00:00.123Z hello 2e16dc32 │ Hello, Ada!\n"
    else:
        assert shown.stdout_bytes == b"\xffline\n"


def test_a_key_that_may_not_list_functions_gets_its_call(answers: Answers) -> None:
    asked = answers(lambda request: refused(403) if request.url.path == "/functions" else gateway(request))
    assert run("2e16dc32").exit_code == 0
    assert asked[-1].url.path == "/invocations/2e16dc32/logs"


def test_json_has_one_object_a_line(answers: Answers) -> None:
    answers(gateway)
    assert json.loads(run("--json").stdout) == LINE


def test_an_instance_that_is_gone_leaves_what_is_kept_of_it(answers: Answers) -> None:
    answers(lambda request: refused(404) if "/pool/" in request.url.path else gateway(request))
    shown = run("--instance", "be5e875eabc7")
    assert shown.stdout == "Hello, Ada!\n"
    assert "The instance is gone" in shown.stderr


def test_nothing_found_says_what_to_do(answers: Answers) -> None:
    functions = httpx.Response(200, json=[{"name": "hello"}])
    answers(lambda request: functions if request.url.path == "/functions" else lines())
    unknown, known = run("helo"), run("hello")
    assert (unknown.exit_code, unknown.stdout, known.exit_code, known.stdout) == (2, "", 0, "")
    assert "there is no function helo; did you mean hello?" in unknown.stderr
    assert "Nothing was printed, or it is forgotten." in known.stderr


def test_two_calls_are_refused(answers: Answers) -> None:
    answers(gateway)
    assert run(ID, "--call", ID).exit_code == 2


# -- following ------------------------------------------------------------------------------------------------


def events(*texts: str, first: int = 1) -> httpx.Response:
    parts = [
        f"id: {number}-0\ndata: {json.dumps(LINE | {'text': text})}\n\n"
        for number, text in enumerate(texts, first)
    ]
    return httpx.Response(200, content=("retry: 1000\n\n:\n\n" + "".join(parts)).encode())


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Pauses that were made, without waiting."""
    made: list[float] = []
    monkeypatch.setattr(logs.time, "sleep", made.append)
    return made


def one_by_one(answered: Iterator[httpx.Response | Exception]) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        found = next(answered)
        if isinstance(found, BaseException):
            raise found
        return found

    return answer


def test_following_goes_on_where_it_was_after_a_restart(answers: Answers, pauses: list[float]) -> None:
    away = httpx.ConnectError("away")
    served = [
        events("one", "two"),
        away,
        away,
        refused(503, "platform"),
        events("three", first=3),
        KeyboardInterrupt(),
    ]
    asked = answers(one_by_one(iter(served)))  # type: ignore[arg-type]
    shown = run("-f", "hello")
    assert shown.exit_code == 130
    assert [line.rpartition("│ ")[2] for line in shown.stdout.splitlines()] == ["one", "two", "three"]
    assert [request.headers.get("last-event-id") for request in asked] == [
        None,
        "2-0",
        "2-0",
        "2-0",
        "2-0",
        "3-0",
    ]
    assert shown.stderr.count("has gone away") == shown.stderr.count("is back") == 1
    assert "No longer following" in shown.stderr


def test_a_follower_that_has_seen_nothing_asks_for_all_since_it_began(
    answers: Answers, pauses: list[float]
) -> None:
    asked = answers(one_by_one(iter([events(), KeyboardInterrupt()])))  # type: ignore[arg-type]
    assert run("-f", "-n", "5").exit_code == 130
    assert asked[0].url.params["limit"] == "5"
    assert "limit" not in asked[1].url.params and asked[1].url.params["since"]


@pytest.mark.parametrize("fault", [httpx.ConnectError("away"), refused(401), refused(403)])
def test_following_does_not_wait_for_a_gateway_that_never_was_or_refuses(
    answers: Answers, pauses: list[float], fault: httpx.Response | Exception
) -> None:
    answers(one_by_one(iter([fault])))
    assert run("-f").exit_code in (1, 2)
    assert not pauses


def test_a_key_that_is_revoked_ends_following(answers: Answers, pauses: list[float]) -> None:
    answers(one_by_one(iter([events("one"), refused(401)])))
    shown = run("-f")
    assert shown.exit_code == 2
    assert "one" in shown.stdout


def test_the_command_is_found() -> None:
    assert isinstance(main.get_command(click.Context(main), "logs"), click.Command)
