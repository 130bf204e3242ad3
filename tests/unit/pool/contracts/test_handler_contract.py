"""Reports of a shim are read within bounds, since user code shares the shim's process."""

from __future__ import annotations

import pytest

from pool.contracts.handler import HANDLER, take_exec_seconds
from pool.engine.base import ContainerSpec
from pool.errors import AnswerFault, MalformedAnswer
from pool.instance import Instance
from pool.lease import Lease
from pool.transport.message import MAX_REPORT_BYTES, read_report
from pool.workload import Workload


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
    with pytest.raises(MalformedAnswer, match="is unreadable"):
        await read_report(Report(body))


async def test_a_report_without_an_end_is_not_kept() -> None:
    endless = Report(b"x" * 1024, times=10**9)
    with pytest.raises(MalformedAnswer, match="does not end"):
        await read_report(endless)
    assert 10**9 - endless.left <= MAX_REPORT_BYTES // 1024 + 1


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
    with pytest.raises(AnswerFault) as caught:
        await HANDLER.check_answer(report)
    assert (caught.value.slug, str(caught.value)) == (slug, "KeyError: x")


@pytest.mark.parametrize(
    ("value", "seconds"), [(b"0.25", 0.25), (b"-1", None), (b"inf", None), (b"nan", None), (b"soon", None)]
)
def test_what_the_shim_says_of_its_time(value: bytes, seconds: float | None) -> None:
    headers = [(b"content-type", b"text/plain"), (b"x-hearth-exec", value), (b"content-length", b"1")]
    assert take_exec_seconds(headers) == seconds
    assert headers == [(b"content-type", b"text/plain"), (b"content-length", b"1")]


def test_an_answer_that_does_not_say_how_long_it_took_is_left_as_it_is() -> None:
    headers = [(b"content-type", b"text/plain")]
    assert take_exec_seconds(headers) is None
    assert headers == [(b"content-type", b"text/plain")]


@pytest.mark.parametrize(
    ("fields", "silent"),
    [
        ([(b"content-length", b"1"), (b"x-hearth-silent", b"1"), (b"x-hearth-exec", b"0.5")], True),
        ([(b"content-length", b"1"), (b"x-hearth-exec", b"0.5")], False),
        ([(b"x-hearth-exec", b"0.5"), (b"content-length", b"1")], False),  # as shims before 0.2 answer
    ],
)
def test_only_a_shim_that_says_so_is_silent(fields: list[tuple[bytes, bytes]], silent: bool) -> None:
    container = ContainerSpec(name="", image="image")
    workload = Workload(function="f", version="1", contract=HANDLER, container=container)
    lease = Lease(Instance("i", "image", 1, workload, 0.0), workload, "1", 0.0, 0.0)
    report = Report(b"")
    report.headers = fields
    HANDLER.note_answer(lease, report)
    assert (lease.exec_seconds, lease.silent) == (0.5, silent)


async def test_an_answer_of_the_handler_s_own_is_no_report() -> None:
    own = Report(b'{"type":"KeyError","message":"x"}')
    own.headers = []
    await HANDLER.check_answer(own)
    assert own.left == 1, "its body was read"
