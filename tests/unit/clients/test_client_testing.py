"""`hearth.testing.invoke`, beside what tests/acceptance/test_handler_cases.py compares with a real gateway."""

from __future__ import annotations

import asyncio
import io
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import hearth
from hearth.testing import invoke


def test_what_is_passed_is_the_event() -> None:
    for event in ({"a": [1]}, [], "text", b"\x00", None, 3, True):
        assert invoke(lambda event, context: repr(event), event).value == repr(event)


def test_a_query_may_be_a_mapping() -> None:
    assert invoke(lambda event, context: context.query, query={"a": "1 &"}).value == {"a": "1 &"}


def test_the_context_is_of_the_type_that_handlers_name() -> None:
    def handle(event: Any, context: hearth.Context) -> Any:
        return [isinstance(context, hearth.Context), context.function, context.version, context.invocation_id]

    response = invoke(handle, function="greet", version="v7")
    assert response.value == [True, "greet", "v7", response.invocation_id]
    assert invoke(handle).value[1:3] == ["handle", "test"]


def test_output_is_the_log_s_and_still_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(lambda event, context: print("hello")).log == "hello\n"
    assert capsys.readouterr().out == "hello\n"
    print("after")
    assert capsys.readouterr().out == "after\n"


def test_streams_that_others_put_in_place_meanwhile_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """As pytest does between two tests, while a handler of the first goes on."""
    let_go, theirs = threading.Event(), io.StringIO()
    assert invoke(lambda event, context: let_go.wait(10), timeout=0.05).status == 504
    monkeypatch.setattr(sys, "stdout", theirs)
    assert invoke(lambda event, context: print("hello")).log == "hello\n"
    let_go.set()
    assert theirs.getvalue() == "hello\n"


def test_calls_at_once_have_logs_of_their_own() -> None:
    meeting = threading.Barrier(4)

    async def handle(event: Any, context: Any) -> Any:
        print("begins", event)
        await asyncio.to_thread(meeting.wait, 10)
        print("ends", event)

    with ThreadPoolExecutor(4) as threads:
        logs = list(threads.map(lambda n: invoke(handle, n).log, range(4)))
    assert logs == [f"begins {n}\nends {n}\n" for n in range(4)]


def test_all_async_handlers_share_a_loop_as_in_an_instance() -> None:
    async def handle(event: Any, context: Any) -> Any:
        return id(asyncio.get_running_loop())

    assert invoke(handle).value == invoke(handle).value


async def test_it_works_inside_a_running_loop() -> None:
    async def handle(event: Any, context: Any) -> Any:
        return event

    assert invoke(handle, 1).value == 1


def test_an_exception_is_there_to_be_looked_at() -> None:
    def handle(event: Any, context: Any) -> Any:
        raise KeyError("no such pet")

    response = invoke(handle)
    assert isinstance(response.exception, KeyError)
    assert response.problem is not None
    assert (response.problem.slug, response.problem.blame) == ("handler-raised", "function")
    with pytest.raises(hearth.FunctionError, match="no such pet") as raised:
        response.result()
    assert raised.value.invocation_id == response.invocation_id


def test_a_status_of_the_function_s_own_is_no_silent_value() -> None:
    response = invoke(lambda event, context: ({"error": "gone"}, 410))
    assert (response.status, response.problem, response.value) == (410, None, {"error": "gone"})
    with pytest.raises(hearth.FunctionAnswered) as raised:
        response.result()
    assert (raised.value.status, raised.value.body) == (410, {"error": "gone"})


def test_a_handler_that_takes_too_long_is_left_alone() -> None:
    let_go, seen = threading.Event(), threading.Event()

    def handle(event: Any, context: hearth.Context) -> Any:
        assert 0 < context.remaining() <= 0.05
        let_go.wait(10)
        seen.set()

    response = invoke(handle, timeout=0.05)
    assert response.problem is not None
    assert (response.status, response.problem.slug, response.problem.blame) == (504, "timeout", "function")
    with pytest.raises(hearth.FunctionTimeout, match=r"handle ran past its timeout of 0\.05 s"):
        response.result()
    let_go.set()
    assert seen.wait(10)


def test_a_stream_that_takes_too_long_is_cut() -> None:
    let_go = threading.Event()

    def handle(event: Any, context: Any) -> Iterator[str]:
        yield "first"
        let_go.wait(10)
        yield "second"

    response = invoke(handle, timeout=0.5)
    let_go.set()
    assert (response.status, response.body, response.complete) == (200, b"first", False)
    with pytest.raises(hearth.ConnectionLost):
        response.result()


def test_a_handler_within_its_time_has_its_answer() -> None:
    assert invoke(lambda event, context: threading.current_thread().name, timeout=30).value != "MainThread"
    assert invoke(lambda event, context: threading.current_thread().name).value == "MainThread"


def test_ctrl_c_ends_the_test_and_not_the_call() -> None:
    def handle(event: Any, context: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        invoke(handle)


@pytest.mark.parametrize("headers", [{"a b": "c"}, {"a": "b\r\nc: d"}, {"": "x"}])
def test_a_header_that_http_cannot_carry_is_refused(headers: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="is not a header"):
        invoke(print, headers=headers)


def test_an_event_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError):
        invoke(print, {1, 2})
