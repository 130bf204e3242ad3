"""`hearth calls` without a gateway: what it asks for, and what it prints."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from typing import Any

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.cli import common, main
from gateway.cli.client import GatewayClient
from gateway.cli.commands.watching import calls as command
from gateway.cli.interruption import INTERRUPTED
from gateway.cli.tables import table_lines
from gateway.cli.watch.call_lines import BAR_CHARS, HEADINGS, picture, row_of, took

ID = "6f1d2c9ab04e4f7c8a3e5d7b90c1f2e4"
CALL: dict[str, Any] = {
    "id": ID,
    "kind": "sync",
    "function": "hello",
    "revision": "47e24e590c7e" + 52 * "0",
    "running": False,
    "status": 500,
    "outcome": "handler-raised",
    "blame": "function",
    "start": "cold",
    "cold_reason": "no instance of this revision was ready; it is its first call since the gateway started",
    "at": "2026-11-29T02:12:05Z",
    "queue": 0.0004,
    "start_seconds": 0.3,
    "exec": 0.1,
    "total": 0.4004,
    "key": "shop",
    "owner": None,
    "attempt": None,
    "error": {
        "slug": "handler-raised",
        "title": "The handler raised an exception",
        "detail": "KeyError: 'a\x1b[2J'",
    },
}
GOOD = CALL | {
    "id": "0" * 32,
    "status": 200,
    "outcome": "ok",
    "blame": "none",
    "error": None,
    "start": "warm",
}
FULL = f"""\
call {ID}
  function  hello, revision 47e24e590c7e
  kind      sync
  key       shop
  arrived   2026-11-29 02:12:05 UTC
  status    500
  error     The handler raised an exception (blame: function)
            KeyError: 'a\\x1b[2J'
  start     cold: no instance of this revision was ready; it is its first call since the gateway started

  queue   0.40ms  |█                                       |
  start    300ms  |██████████████████████████████          |
  exec     100ms  |                              ██████████|
  total    400ms

  its output: hearth logs {ID}
"""


class Record:
    """A gateway with a record of calls, and what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.calls = [CALL, GOOD]
        self.restarts = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.raw_path.decode())
        if request.url.path != "/calls":
            return httpx.Response(200, json=CALL)
        query = request.url.params
        if query.get("follow"):
            if self.restarts == 0:
                raise KeyboardInterrupt
            self.restarts -= 1
            events = (f"event: call\ndata: {json.dumps(call)}\n\n" for call in self.calls[::-1])
            return httpx.Response(200, text="retry: 1000\n\n:\n\n" + "".join(events))
        named = [call for call in self.calls if query.get("function") in (None, call["function"])]
        return httpx.Response(200, json={"calls": named})


@pytest.fixture(autouse=True)
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Record:
    fake = Record()
    monkeypatch.setattr(
        common, "GatewayClient", functools.partial(GatewayClient, transport=httpx.MockTransport(fake))
    )
    monkeypatch.setattr(command, "RECONNECT_SECONDS", 0.0)
    return fake


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["calls", *arguments])


def test_calls_come_newest_last(record: Record) -> None:
    result = run()
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ID", "0" * 32, ID]
    assert record.asked == ["/calls?limit=20"]


def test_filters_are_the_gateways(record: Record) -> None:
    run("hello", "--failed", "--slow", "1s", "--since", "10m", "-n", "5")
    assert record.asked == ["/calls?function=hello&slow=1s&since=10m&failed=true&limit=5"]


def test_one_call_is_shown_in_full_with_the_next_step(record: Record) -> None:
    assert run(ID[:8]).stdout == FULL
    assert record.asked == [f"/calls?function={ID[:8]}&limit=1", f"/calls/{ID[:8]}"]


def test_a_function_whose_name_could_be_an_id_goes_first(record: Record) -> None:
    record.calls = [CALL | {"function": "cafe"}]
    assert ID in run("cafe").stdout.splitlines()[1]
    assert "/calls/cafe" not in record.asked


def test_json_is_the_apis(record: Record) -> None:
    assert json.loads(run("--json").stdout) == [GOOD, CALL]
    assert json.loads(run("--json", ID).stdout) == CALL


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((), command.EMPTY),
        (("--failed",), command.EMPTY_FILTERED),
        (("--slow", "1h"), command.EMPTY_FILTERED),
    ],
)
def test_an_empty_list_says_what_to_do(record: Record, arguments: tuple[str, ...], told: str) -> None:
    record.calls = []
    result = run(*arguments)
    assert (result.stdout, result.stderr) == ("", f"{told}\n")


def test_following_goes_on_after_a_restart_and_shows_nothing_twice(record: Record) -> None:
    record.restarts = 2
    result = run("-f", "--failed")
    assert result.exit_code == INTERRUPTED
    assert "No longer following" in result.stderr
    assert len(result.stdout.splitlines()) == 5
    assert record.asked[0] == "/calls?failed=true&limit=20&follow=true"
    assert set(record.asked[1:]) == {"/calls?failed=true&limit=0&follow=true"}


def test_following_as_json_is_one_object_a_line(record: Record) -> None:
    record.restarts = 1
    assert [json.loads(line)["id"] for line in run("-f", "--json").stdout.splitlines()] == ["0" * 32, ID]


@pytest.mark.parametrize("width", [80, 120])
def test_the_table_fits_and_shows_the_error(width: int) -> None:
    lines = [click.unstyle(line) for line in table_lines(HEADINGS, [row_of(GOOD), row_of(CALL)], width)]
    assert max(map(len, lines)) <= width
    assert any(line.startswith(ID[:8]) for line in lines)
    assert any("handler-raised: KeyError: 'a\\x1b[2J'" in line for line in lines)


def test_each_phase_has_its_place_in_the_picture() -> None:
    queue, start, exec, _ = picture(CALL | {"queue": 0.1, "start_seconds": 0.1, "exec": 0.2, "total": 0.4})
    bars = [line.partition("|")[2][:BAR_CHARS] for line in (queue, start, exec)]
    assert [bar.count(" ") for bar in bars] == [30, 30, 20]
    assert "".join(max(column) for column in zip(*bars, strict=True)).count(" ") == 0, "no gap between them"


def test_a_call_that_took_no_time_has_a_picture() -> None:
    assert len(picture(CALL | {"queue": 0.0, "start_seconds": 0.0, "exec": 0.0, "total": 0.0})) == 4


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.00041, "0.41ms"), (0.0124, "12ms"), (1.8444, "1.84s"), (62.4, "62s")]
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert took(seconds) == text
