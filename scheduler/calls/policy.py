"""Decision after a run of an accepted call: succeeded, retried, or given up. Functions of the run's result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from pool.backoff import Backoff, jitter
from pool.clock import Clock
from pool.contracts import problem_slugs as slugs
from scheduler.calls.model import Claim, Ending, Result, Status
from scheduler.definitions.language.call_overrides import RetryPolicy

PLATFORM_SLUGS = frozenset({slugs.FUNCTION_FAILED, slugs.NO_SUCH_FUNCTION, slugs.NOT_READY})
"""Problems that count as failures of the platform: nothing was sent to the function, and they may go away."""
CRASHES = frozenset({slugs.INSTANCE_DIED, slugs.CONTRACT_BROKEN, slugs.COMMAND_FAILED, slugs.CONNECTION_LOST})
"""Problems of runs that came to no end of their own: the function may have done its work."""
NOT_RUN = frozenset({slugs.QUEUE_FULL, slugs.QUOTA_EXCEEDED})
SUCCEEDED = Status.SUCCEEDED  # once: each access to a member of an enum costs a call


class Verdict(NamedTuple):
    """Status of a call after a run. `due` is the wall time of the next run if it is QUEUED."""

    status: Status
    failures: int
    due: float = 0.0


@dataclass(frozen=True, slots=True)
class RunFailure:
    """The failure of a run. It is retried if the policy's `on` has any of these names."""

    names: frozenset[str]
    ran: bool
    """True if the function may have run: only such runs use up the policy's attempts."""


def find_failure(result: Result) -> RunFailure | None:
    """Return the failure of a run, or None if it succeeded."""
    slug = result.problem
    if slug is None and result.status < 400:
        return None
    if (
        slug == slugs.NOT_KEPT
    ):  # the answer would not fit next time either, and the function has done its work
        return RunFailure(frozenset(), ran=True)
    status = str(result.status)
    if slug is None:
        return RunFailure(frozenset({status, "5xx"} if result.status >= 500 else {status}), ran=True)
    if slug in NOT_RUN:
        return RunFailure(frozenset({"429"}), ran=False)
    if slug == slugs.TIMEOUT:
        return RunFailure(frozenset({"timeout", status}), ran=True)
    if slug in CRASHES:
        return RunFailure(frozenset({"crash", status}), ran=True)
    if result.blame == "platform" or slug in PLATFORM_SLUGS:
        return RunFailure(frozenset({"platform"}), ran=False)
    return RunFailure(frozenset({status, "5xx"} if result.status >= 500 else {status}), ran=True)


def judge(
    policy: RetryPolicy,
    result: Result,
    *,
    attempt: int,
    failures: int,
    since: float,
    now: float,
    jitter: float,
) -> Verdict:
    """Return the verdict on a call after a run. `failures` counts earlier ones; `jitter`, 0 to 1, shortens the pause.

    A run that never reached its function uses up no attempt. So an engine that is down for an hour delays calls, but
    ends none before its `max_event_age`.
    """
    failure = find_failure(result)
    if failure is None:
        return Verdict(Status.SUCCEEDED, failures)
    failures += failure.ran
    if not failure.names & policy.on:
        return Verdict(Status.TIMED_OUT if "timeout" in failure.names else Status.FAILED, failures)
    if failures >= policy.attempts:
        return Verdict(Status.DEAD, failures)
    due = now + pause_after(attempt, policy) * jitter
    if due >= since + policy.max_event_age:
        return Verdict(Status.EXPIRED, failures)
    return Verdict(Status.QUEUED, failures, due)


def pause_after(attempt: int, policy: RetryPolicy) -> float:
    """Return the seconds until the next run after `attempt` runs."""
    return Backoff(policy.backoff, policy.max_backoff).pause(attempt)


def has_expired(policy: RetryPolicy, since: float, now: float) -> bool:
    """Return whether it is too late to run a call at all."""
    return now >= since + policy.max_event_age


def ending_of(claim: Claim, policy: RetryPolicy, result: Result, clock: Clock) -> Ending:
    """Return the ending to record for a call after a run with this result."""
    if find_failure(result) is None:  # most runs: there is nothing to decide
        return Ending(claim.call.id, SUCCEEDED, claim.failures, result)
    verdict = judge(
        policy,
        result,
        attempt=claim.attempt,
        failures=claim.failures,
        since=claim.since,
        now=clock.wall(),
        jitter=jitter(),
    )
    error = result.problem
    if error is None and verdict.status is not SUCCEEDED:
        error = "function-error"
    blame = result.blame if result.problem or error is None else "function"
    return Ending(
        claim.call.id,
        verdict.status,
        verdict.failures,
        result,
        verdict.due,
        error,
        result.detail,
        blame,
    )
