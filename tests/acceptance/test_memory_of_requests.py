"""Clients that send halves and stand still: the gateway's memory is bounded and given back, and others are served."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from crowd import HOST, Crowd, allow_many_files, head
from harness import Gateway, eventually, handler, sum_of

from gateway.access.keys import create, parse_quota
from gateway.access.scopes import parse_scopes
from gateway.assembly.memory_bound import memory_bound
from gateway.assembly.settings import Settings

pytestmark = pytest.mark.engine

MIB = 2**20
BUDGET = 32 * MIB
SLACK = 24 * MIB
"""What the process may take beside the budget: code that runs for the first time, and the allocator's own."""
ECHO = "def handle(event, context):\n    return event\n"
SLOW = "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return 'done'\n"
LARGE = "def handle(event, context):\n    return 'x' * 250_000\n"


class Attacked:
    """A gateway with three keys, each for one way to use it."""

    def __init__(self, gateway: Gateway, keys: dict[str, str]) -> None:
        self.gateway = gateway
        self.keys = keys

    def head(self, target: bytes, length: int, key: str = "", *fields: bytes) -> bytes:
        """The head of a POST, with the key of this name."""
        return head(target, length, self.keys[key] if key else "", *fields)

    def call(self, function: str, payload: object) -> str:
        """A call of somebody who does no harm; what it answers."""
        answer = self.gateway.call(function, payload, headers={"x-hearth-key": self.keys["good"]})
        assert answer.status_code == 200, answer.text
        return answer.text

    def metric(self, name: str, **labels: str) -> float:
        page = self.gateway.http.get("/metrics", headers={"x-hearth-key": self.keys["admin"]})
        return sum_of(page.text, name, labels)

    def at_rest(self) -> bool:
        """Whether nothing of the budget is held."""
        return self.metric("hearth_body_memory_bytes") == 0


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacked]:
    allow_many_files()
    texts, lines = {}, []
    for name, scopes in (
        ("good", ["invoke:*"]),
        ("flood", ["invoke:*"]),
        ("weak", ["invoke:nothing"]),
        ("admin", ["admin"]),
    ):
        limits = parse_quota(None, None, "1" if name == "weak" else None)
        texts[name], _ = create(name, parse_scopes(scopes), limits, None, 0.0)
        lines.append(f"{texts[name]} {' '.join(scopes)} name={name}" + " concurrency=1" * (name == "weak"))
    functions = {
        "echo": handler(ECHO),
        "slow": handler(SLOW, max_instances=1, queue_timeout="1s"),
        "large": handler(LARGE, max_instances=1),
    }
    settings = {"body_memory": "32MiB", "api_keys": "\n".join(lines), "client_timeout": "5s"}
    with Gateway(tmp_path_factory.mktemp("memory"), functions, settings=settings) as gateway:
        found = Attacked(gateway, texts)
        for function in functions:
            found.call(function, 0)
        yield found


ATTACKS = {
    "bodies of no webhook": (800, lambda a: a.head(b"/hooks/x", MIB) + b"x" * (MIB - 1)),
    "half heads of one field": (900, lambda a: b"POST /invoke/echo" + HOST + b"X: " + b"y" * 60_000),
    "half heads of short fields": (
        900,
        lambda a: b"POST /invoke/echo" + HOST + b"a:b\r\n" * 250 + b"X: " + b"y" * 60_000,
    ),
    "bodies to be kept": (
        300,
        lambda a: a.head(b"/invoke/echo", 6 * MIB, "flood", b"Prefer: respond-async\r\n") + b"x" * (5 * MIB),
    ),
    "small bodies of calls": (900, lambda a: a.head(b"/invoke/echo", 64_000, "flood") + b"x" * 60_000),
    "bodies of jobs": (60, lambda a: a.head(b"/jobs", 8 * MIB, "flood") + b"x" * (7 * MIB)),
    "pipelined requests": (
        500,
        lambda a: (
            a.head(b"/invoke/slow", 1, "flood")
            + b"5"
            + (b"GET /healthz" + HOST + b"X: " + b"y" * 8000 + b"\r\n\r\n") * 15
        ),
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_halves_are_bounded_and_given_back(attacked: Attacked, attack: str) -> None:
    """By the budget, whatever is sent; a caller with another key is served meanwhile."""
    gateway = attacked.gateway
    before = gateway.memory()
    count, data_of = ATTACKS[attack]
    with Crowd(attacked.gateway) as crowd:
        crowd.come(count, data_of(attacked))
        for number in range(20):
            assert attacked.call("echo", f"call {number}") == f"call {number}"
            crowd.look()
        eventually(lambda: crowd.look() or crowd.answers()[b""] <= count // 2, 20)
        assert attacked.metric("hearth_body_memory_bytes") <= BUDGET
        assert attacked.call("echo", "all the same") == "all the same"
    bound = sum(part.size for part in memory_bound(Settings(body_memory="32MiB"), 1024, slots=3))
    assert crowd.peak < bound
    assert crowd.peak - before < BUDGET + SLACK, f"{(crowd.peak - before) / MIB:.0f} MiB more"
    eventually(attacked.at_rest, 20)
    eventually(lambda: gateway.memory() - before < SLACK, 30)


def test_a_weak_key_is_refused_before_its_body(attacked: Attacked) -> None:
    """With its head alone; nothing of the body is waited for, and nothing is reserved."""
    for target, fields in (
        (b"/jobs", ()),
        (b"/events", ()),
        (b"/invoke/echo", (b"Prefer: respond-async\r\n",)),
    ):
        with Crowd(attacked.gateway) as crowd:
            crowd.come(20, attacked.head(target, 5 * MIB, "weak", *fields))
            eventually(lambda: set(crowd.answers()) == {b"HTTP/1.1 403 Forbidden"})
    assert attacked.metric("hearth_body_memory_bytes") == 0


def test_answers_that_nobody_reads_are_bounded(attacked: Attacked) -> None:
    """Of 250 kB each: beyond the share of all answers, those who have stood still longest are cut off.

    The first flood grows the process once, for good; the second finds that room, and needs no more.
    """
    before = attacked.gateway.memory()
    leave_answers_unread(attacked, before)
    once = attacked.gateway.memory()
    leave_answers_unread(attacked, before)
    eventually(lambda: attacked.gateway.memory() - once < SLACK, 30)


def leave_answers_unread(attacked: Attacked, before: int) -> None:
    """Have 200 clients ask for 60 large answers each and read none, until nothing of them is held any more."""
    request = attacked.head(b"/invoke/large", 1, "flood") + b"0"
    with Crowd(attacked.gateway) as crowd:
        for _ in range(20):
            crowd.come(10, request * 60)
            assert attacked.call("echo", "one") == "one"
            crowd.look()
        eventually(lambda: attacked.metric("hearth_body_memory_bytes", holder="answers") > 0, 30)
        assert crowd.peak - before < BUDGET + SLACK
    eventually(attacked.at_rest, 30)
