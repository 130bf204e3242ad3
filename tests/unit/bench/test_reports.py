"""What a shim reports of a failure: read within bounds, since user code shares the shim's process."""

from __future__ import annotations

import pytest

from gateway.http.problems import Problem
from gateway.invoke.outcome import check_outcome, exec_seconds_of
from pool.errors import Nonsense
from pool.transport.message import MOST_OF_A_REPORT, read_report


class Report:
    """An answer whose body is `piece`, `times` times."""

    complete = False

    def __init__(self, piece: bytes, times: int = 1, outcome: bytes = b"raised", status: int = 500) -> None:
        self.status = status
        self.headers = [(b"x-hearth-outcome", outcome)]
        self._piece = piece
        self.left = times

    def take(self) -> bytes:
        return b""

    async def read(self) -> bytes:
        if not self.left:
            return b""
        self.left -= 1
        return self._piece


async def test_a_report_is_read() -> None:
    assert await read_report(Report(b'{"type":"ValueError","message":"no"}')) == ("ValueError", "no")


@pytest.mark.parametrize("body", [b"", b"not json", b"[]", b'{"type":"ValueError"}', b"\xff"])
async def test_a_report_that_is_none(body: bytes) -> None:
    with pytest.raises(Nonsense, match="is unreadable"):
        await read_report(Report(body))


async def test_a_report_without_an_end_is_not_kept() -> None:
    endless = Report(b"x" * 1024, times=10**9)
    with pytest.raises(Nonsense, match="does not end"):
        await read_report(endless)
    assert 10**9 - endless.left <= MOST_OF_A_REPORT // 1024 + 1


@pytest.mark.parametrize(
    ("outcome", "status", "slug"),
    [
        (b"raised", 500, "handler-raised"),
        (b"bad-json", 400, "bad-request"),
        (b"bad-result", 500, "contract-broken"),
    ],
)
async def test_outcomes_are_problems(outcome: bytes, status: int, slug: str) -> None:
    report = Report(b'{"type":"KeyError","message":"x"}', outcome=outcome, status=status)
    with pytest.raises(Problem) as caught:
        await check_outcome(report)
    assert (caught.value.slug, caught.value.detail) == (slug, "KeyError: x")


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"0.25", 0.25), (b"-1", None), (b"inf", None), (b"nan", None), (b"soon", None)]
)
def test_what_the_shim_says_of_its_time(value: bytes, seconds: float | None) -> None:
    report = Report(b"")
    report.headers = [(b"x-hearth-exec", value)]
    assert exec_seconds_of(report) == seconds
