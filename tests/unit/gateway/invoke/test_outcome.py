"""The end of a call is counted and kept."""

from __future__ import annotations

import pytest

from gateway.invoke.invocation import Invocation
from gateway.invoke.outcome import CLIENT_GONE, EndedCounts, Outcomes
from gateway.invoke.recent_calls import RecentCalls
from pool.clock import VirtualClock
from pool.observe.metrics import Metrics
from tests.support.warm_call_loop import ANSWER, REQUEST, WarmCall


@pytest.mark.parametrize(("status", "failed"), [(200, False), (302, False), (404, True), (503, True)])
async def test_an_answer_from_400_on_is_a_failure(status: int, failed: bool) -> None:
    call = WarmCall()
    await call.start()
    call.protocol.data_received(REQUEST % b"")
    call.link.connection.data_received(ANSWER.replace(b"200", b"%d" % status))
    (seen,) = call.recent.calls()
    assert (seen.facts.function, seen.facts.status) == ("hello", status)
    assert (seen.failure is not None) is failed
    await call.close()


async def test_a_warm_call_is_kept_with_its_facts_and_keeps_nothing_of_its_connection() -> None:
    call = WarmCall()
    await call.start()
    call()
    response = call()
    _, seen = call.recent.calls()
    assert b"x-invocation-id: " + seen.facts.id.encode() in response
    assert (seen.facts.revision, seen.facts.start, seen.facts.status) == ("1", "warm", 200)
    assert not seen.running
    assert {type(fact) for fact in seen.facts} <= {str, float, int, type(None), type(seen.facts.admission)}
    await call.close()


async def test_a_call_is_listed_while_it_runs() -> None:
    call = WarmCall()
    await call.start()
    call.protocol.data_received(REQUEST % b"")
    (seen,) = call.recent.calls()
    assert seen.running and seen.facts.function == "hello"
    call.link.connection.data_received(ANSWER)
    assert [seen.running for seen in call.recent.calls()] == [False]
    await call.close()


async def test_a_caller_who_left_is_in_the_record() -> None:
    clock = VirtualClock()
    outcomes = Outcomes(Metrics(), RecentCalls(clock))
    left = Invocation(clock.now(), "hello", "1")
    await clock.advance(2.0)
    outcomes.ended(left, CLIENT_GONE)
    (seen,) = outcomes.recent.calls()
    assert seen.failure == CLIENT_GONE
    assert (seen.facts.status, seen.facts.total_seconds) == (0, 2.0)


async def test_ended_and_failed_calls_are_counted_by_function() -> None:
    call = WarmCall()
    await call.start()
    for status in (200, 404, 503):
        call.protocol.data_received(REQUEST % b"")
        call.link.connection.data_received(ANSWER.replace(b"200", b"%d" % status))
    outcomes = Outcomes(call.metrics, call.recent)
    outcomes.ended(Invocation(0.0, "hello"), CLIENT_GONE)
    assert outcomes.counts() == {"hello": EndedCounts(4, 2)}, (
        "as the metrics have it: a 404 is the function's answer"
    )
    await call.close()
