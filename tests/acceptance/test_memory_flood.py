"""A flood of one function on a memory budget of four instances, on a real gateway: others are served all the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from harness import Gateway, handler, in_parallel

pytestmark = pytest.mark.engine

SLEEP = "import time\n\ndef handle(event, context):\n    time.sleep(0.2)\n    return event\n"
ECHO = "def handle(event, context):\n    return event\n"
COLD = [f"cold{number}" for number in range(4)]
MIB = 2**20


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "flood": handler(SLEEP, max_instances=16, queue_timeout="60s", queue_size=10_000),
        **{name: handler(ECHO) for name in (*COLD, *(f"{name}-async" for name in COLD))},
    }
    settings = {"memory_budget": f"{4 * 128}MiB"}
    with Gateway(tmp_path_factory.mktemp("flood"), functions, settings=settings) as running:
        yield running


def declared(gateway: Gateway, function: str) -> int:
    """Memory of a function's instances, MiB."""
    return sum(instance["memory"] for instance in gateway.instances(function)) // MIB


@contextmanager
def flooded(gateway: Gateway, clients: int, **keys: object) -> Iterator[list[int]]:
    """Have so many clients call the flooded function; gives the statuses that they have got so far."""
    statuses: list[int] = []
    over = threading.Event()

    def client(number: int) -> None:
        while not over.is_set():
            statuses.append(gateway.call("flood", number, **keys).status_code)

    with ThreadPoolExecutor(clients) as threads:
        for number in range(clients):
            threads.submit(client, number)
        try:
            yield statuses
        finally:
            over.set()


def wait_until_full(gateway: Gateway) -> None:
    began = time.monotonic()
    while declared(gateway, "flood") < 4 * 128:
        assert time.monotonic() - began < 30, gateway.instances()
        time.sleep(0.1)


def serve_cold_functions(gateway: Gateway, names: list[str]) -> None:
    answers = in_parallel(lambda number: gateway.call(names[number], number), len(names))
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]
    assert [answer.json() for answer in answers] == [0, 1, 2, 3]


def test_cold_functions_are_served_while_another_floods_the_memory(gateway: Gateway) -> None:
    with flooded(gateway, 40) as statuses:
        wait_until_full(gateway)
        serve_cold_functions(gateway, COLD)
        before = len(statuses)
        serve_cold_functions(gateway, COLD)
        while len(statuses) < before + 10:  # the flood goes on
            time.sleep(0.05)
    assert set(statuses) == {200}
    given_up = gateway.metric("hearth_removals_total", reason="fair-share")
    assert 1 <= given_up <= 8, "one for each cold call at most"


def test_so_they_are_while_accepted_calls_do(gateway: Gateway) -> None:
    """Half of 16 slots are for accepted calls: twice as many as there is memory for."""
    later = {"prefer": "respond-async"}
    accepted = in_parallel(lambda number: gateway.call("flood", number, headers=later), 400, clients=8)
    assert {answer.status_code for answer in accepted} == {202}
    wait_until_full(gateway)
    names = [f"{name}-async" for name in COLD]
    answers = in_parallel(
        lambda number: gateway.call(names[number], number, headers={"prefer": "respond-async, wait=30"}), 4
    )
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]
    serve_cold_functions(gateway, names)
    assert gateway.metric("hearth_async_backlog", function="flood") > 0, "the flood was over before"
