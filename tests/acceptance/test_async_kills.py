"""Accepted calls against SIGKILL: killed at random moments again and again, the gateway finishes every one.

`HEARTH_TEST_KILLS=100 HEARTH_TEST_CALLS=10000 pytest -s tests/acceptance/test_async_kills.py` looks longer.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest
from harness import Gateway, eventually, handler

KILLS = int(os.environ.get("HEARTH_TEST_KILLS", "6"))
CALLS = int(os.environ.get("HEARTH_TEST_CALLS", "600"))
pytestmark = [pytest.mark.engine, pytest.mark.timeout(600 + 60 * KILLS)]

COUNT = """
import time

def handle(event, context):
    time.sleep(event["seconds"])
    return [event["n"], int(context.headers["x-hearth-attempt"])]
"""


class Clients:
    """Threads that have calls accepted, so many in each life of the gateway, and note each that was said 202 to."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.accepted: dict[str, int] = {}
        self.numbers = iter(range(CALLS))
        self.allowed = 0
        self.lock = threading.Condition()
        self.threads = [threading.Thread(target=self.run) for _ in range(4)]

    def allow(self, share: float) -> None:
        """So much of all calls may have been sent."""
        with self.lock:
            self.allowed = round(share * CALLS)
            self.lock.notify_all()

    def next_number(self) -> int | None:
        with self.lock:
            number = next(self.numbers, None)
            self.lock.wait_for(lambda: number is None or number < self.allowed)
            return number

    def run(self) -> None:
        with httpx.Client(trust_env=False, timeout=10) as client:
            while (number := self.next_number()) is not None:
                self.send(client, number)

    def send(self, client: httpx.Client, number: int) -> None:
        """Have one call accepted, however often it takes."""
        body = {"n": number, "seconds": random.choice([0, 0, 0.02])}
        while True:
            try:
                answer = client.post(
                    f"{self.gateway.url}/invoke/{'fg'[number % 2]}",
                    json=body,
                    headers={"prefer": "respond-async"},
                )
            except httpx.TransportError:
                time.sleep(0.05)
                continue
            if answer.status_code == 202:
                break
            assert answer.status_code in (503, 404), answer.text
            time.sleep(0.05)
        with self.lock:
            self.accepted[answer.headers["x-invocation-id"]] = number


def test_what_was_accepted_is_finished_however_often_the_gateway_is_killed(tmp_path: Path) -> None:
    functions = {name: handler(COUNT, max_instances=4) for name in "fg"}
    with Gateway(tmp_path, functions, settings={"start_timeout": "30s"}) as gateway:
        clients = Clients(gateway)
        for thread in clients.threads:
            thread.start()
        interrupted = 0.0
        for kill in range(KILLS):
            clients.allow((kill + 1) / KILLS)
            pause = random.uniform(0.05, 0.8)
            print(f"killed {pause:.3f} s after it was ready")
            time.sleep(pause)
            interrupted += gateway.metric("hearth_async_interrupted_total")
            gateway.stop(signal.SIGKILL)
            gateway.launch()
            gateway.wait_until_ready()
        for thread in clients.threads:
            thread.join()
        eventually(lambda: gateway.metric("hearth_async_backlog") == 0, 300, pause=0.5)
        interrupted += gateway.metric("hearth_async_interrupted_total")

        assert len(clients.accepted) == CALLS
        records = {}
        query: dict[str, str | int] = {"limit": 1000}
        while True:
            page = gateway.http.get("/invocations", params=query).json()
            records |= {record["id"]: record for record in page["invocations"]}
            if page["cursor"] is None:
                break
            query["cursor"] = page["cursor"]
        assert set(clients.accepted) <= set(records), "a call was lost after its 202"
        assert Counter(record["status"] for record in records.values()) == {"succeeded": len(records)}
        assert len(records) - CALLS <= 4 * KILLS, "only a call whose 202 a kill has swallowed is there twice"
        repeated = sum(record["attempts"] - 1 for record in records.values())
        again = f"{repeated} runs more than calls, {interrupted:g} leases interrupted"
        print(f"{len(records)} calls for {CALLS} accepted, {again}")
        assert repeated <= interrupted + gateway.metric("hearth_async_retries_total") + 64 * KILLS
        for id in random.sample(sorted(clients.accepted), 50):
            number, attempt = gateway.http.get(f"/invocations/{id}/result").json()
            assert (number, attempt) == (clients.accepted[id], records[id]["attempts"])
        eventually(gateway.books_agree, 30)
