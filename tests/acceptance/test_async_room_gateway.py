"""How much is kept of accepted calls, on a real gateway: on disk, in memory, and for whom."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from harness import Gateway, eventually, handler

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes

pytestmark = pytest.mark.engine

MIB = 2**20
SIZE = 64 * MIB
LOG = 48 * MIB
"""Bytes that the write-ahead log may have above that, and one commit's pages."""
MEMORY = 160 * MIB
"""Bytes that the gateway's memory may grow by: 64 answers of 256 KiB, some copies of each, SQLite's cache. The
answers of the test have four times as many."""
ANSWER = "def handle(event, context):\n    return bytes([event % 251]) * (event * 2**20)\n"
DIGEST = (
    "import hashlib\n\ndef handle(event, context):\n"
    "    data = event if isinstance(event, bytes) else str(event).encode()\n"
    "    return {'size': len(data), 'sha256': hashlib.sha256(data).hexdigest()}\n"
)
SLOW = "import time\n\ndef handle(event, context):\n    time.sleep(600)\n"
ASYNC = {"prefer": "respond-async"}
KEYS = {name: create(name, parse_scopes(["admin", "invoke:*"]), UNLIMITED, None, 0.0)[0] for name in "ab"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "answer": handler(ANSWER, max_response="40MiB", max_instances=8, memory="192MiB"),
        "digest": handler(DIGEST, max_body="40MiB", memory="192MiB"),
    }
    folder = tmp_path_factory.mktemp("room")
    with Gateway(folder, functions, settings={"async_size": f"{SIZE // MIB}MiB"}) as gateway:
        yield gateway


def on_disk(folder: Path) -> int:
    """Return the bytes that the store's files take."""
    return sum(file.stat().st_blocks * 512 for file in folder.glob("calls.db*"))


class Watch:
    """The most that was seen while the block ran."""

    def __init__(self, *looks: Callable[[], int]) -> None:
        self._looks = looks
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.most = [0 for _ in looks]

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.most = [max(most, look()) for most, look in zip(self.most, self._looks, strict=True)]


def accepted(gateway: Gateway, function: str, event: object) -> str:
    """Have a call accepted; return its id."""
    answer = gateway.call(function, event, headers=ASYNC)
    assert answer.status_code == 202, answer.text
    return answer.headers["x-invocation-id"]


def record(gateway: Gateway, id: str) -> dict[str, object]:
    """Return how a call stands."""
    return dict(gateway.http.get(f"/invocations/{id}").json())


def test_answers_fill_neither_disk_nor_memory(gateway: Gateway) -> None:
    gateway.call("answer", 1)
    before = gateway.memory()
    with Watch(lambda: on_disk(gateway.data), gateway.memory) as watch:
        ids = [accepted(gateway, "answer", 8 + number % 13) for number in range(40)]
        eventually(lambda: gateway.metric("hearth_async_backlog") == 0, 240, pause=0.2)
    disk, memory = watch.most
    print(f"at most {disk // MIB} MiB on disk, {(memory - before) // MIB} MiB more memory")
    assert disk <= SIZE + LOG
    assert memory - before <= MEMORY
    found = [gateway.http.get(f"/invocations/{id}") for id in ids]
    kept = [answer for answer in found if answer.status_code == 200]
    assert kept, "the latest are still there"
    for number, answer in enumerate(found):
        if answer.status_code != 200:
            continue  # forgotten, to make room
        stands = answer.json()
        result = gateway.http.get(f"/invocations/{ids[number]}/result")
        if stands["status"] == "succeeded":
            size = 8 + number % 13
            assert result.content == bytes([size]) * (size * MIB)
        else:
            assert (stands["status"], stands["error"]) == ("failed", "not-kept")
            assert (result.status_code, result.json()["type"]) == (507, "urn:hearth:problem:not-kept")
    assert gateway.metric("hearth_async_bytes", what="used") <= SIZE


def test_an_answer_over_all_that_may_be_kept_ends_its_call_with_a_named_error(gateway: Gateway) -> None:
    waited = gateway.call("answer", 36, headers={"prefer": "respond-async, wait=60"})
    assert waited.status_code == 507, "over half of the store: no one may have so much"
    stands = record(gateway, waited.headers["x-invocation-id"])
    assert (stands["status"], stands["error"], stands["attempts"]) == ("failed", "not-kept", 1)
    assert "HEARTH_ASYNC_SIZE" in str(stands["detail"])
    again = gateway.call("answer", 20, headers={"prefer": "respond-async, wait=60"})
    assert again.content == bytes([20]) * (20 * MIB), "the next one has room"


def test_a_kill_while_an_answer_comes_leaves_nothing_of_it(gateway: Gateway) -> None:
    id = accepted(gateway, "answer", 30)
    eventually(lambda: gateway.metric("hearth_async_bytes", what="unfinished") > 25 * MIB, 30, pause=0.005)
    gateway.stop(signal.SIGKILL)
    gateway.launch()
    gateway.wait_until_ready()
    eventually(lambda: record(gateway, id)["status"] == "succeeded", 60)
    assert gateway.http.get(f"/invocations/{id}/result").content == bytes([30]) * (30 * MIB)
    assert gateway.metric("hearth_async_bytes", what="unfinished") == 0
    assert gateway.metric("hearth_async_bytes", what="used") <= SIZE


def test_a_large_body_is_kept_as_it_comes_and_is_what_the_function_gets(gateway: Gateway) -> None:
    body = os.urandom(22 * MIB)
    headers = {"prefer": "respond-async, wait=60", "content-type": "application/octet-stream"}
    before = gateway.memory()

    def send(**more: str) -> httpx.Response:
        return gateway.http.post("/invoke/digest", content=body, headers=headers | more)

    with Watch(lambda: on_disk(gateway.data), gateway.memory) as watch, ThreadPoolExecutor(12) as threads:
        answers = list(threads.map(lambda _: send(), range(24)))
    disk, memory = watch.most
    print(f"at most {disk // MIB} MiB on disk, {(memory - before) // MIB} MiB more memory")
    done = [answer for answer in answers if answer.status_code == 200]
    assert done
    assert all(answer.json() == {"size": len(body), "sha256": sha256(body).hexdigest()} for answer in done)
    assert {answer.status_code for answer in answers} <= {200, 503}, "some had no room"
    assert disk <= SIZE + LOG
    assert memory - before <= MEMORY
    keyed = [send(**{"idempotency-key": "k"}) for _ in range(2)]
    assert len({answer.headers["x-invocation-id"] for answer in keyed}) == 1
    body = body[:-1] + b"?"
    assert send(**{"idempotency-key": "k"}).status_code == 422
    eventually(
        lambda: gateway.metric("hearth_async_bytes", what="unfinished") == 0, 30
    )  # nothing is left of it


def test_a_kill_while_a_body_comes_leaves_nothing_of_it(gateway: Gateway) -> None:
    def half() -> Iterator[bytes]:
        for _ in range(10):
            yield bytes(MIB)
        eventually(lambda: gateway.metric("hearth_async_bytes", what="unfinished") > 8 * MIB, 30)
        gateway.stop(signal.SIGKILL)
        yield bytes(MIB)

    with pytest.raises(httpx.TransportError):
        gateway.http.post("/invoke/digest", content=half(), headers=ASYNC)
    gateway.launch()
    gateway.wait_until_ready()
    eventually(lambda: gateway.metric("hearth_async_bytes", what="unfinished") == 0, 30)


def test_one_key_fills_its_share_and_stops_nobody(tmp_path: Path) -> None:
    functions = {
        "slow": handler(SLOW, max_instances=1, timeout="900s"),
        "echo": handler("def handle(e, c): return e"),
    }
    triggers = {
        "paid": {"events": {"filters": [{"exact": {"type": "paid"}}]}, "function": "echo"},
        "tick": {"schedule": "* * * * * *", "function": "echo"},
    }
    settings = {
        "async_size": "32MiB",
        "api_keys": "; ".join(f"{text} admin invoke:* name={name}" for name, text in KEYS.items()),
    }
    body = os.urandom(5 * MIB)

    def send(key: str, path: str = "/invoke/slow", **more: str) -> httpx.Response:
        headers = {"authorization": f"Bearer {KEYS[key]}", **ASYNC, **more}
        return gateway.http.post(path, content=body, headers=headers)

    with Gateway(tmp_path, functions, settings=settings, sections={"triggers": triggers}) as gateway:
        gateway.http.headers["authorization"] = f"Bearer {KEYS['b']}"
        with ThreadPoolExecutor(4) as threads:
            answers = list(threads.map(lambda _: send("a"), range(12)))
        refused = [answer for answer in answers if answer.status_code != 202]
        assert 2 <= 12 - len(refused) <= 3, "half of it, and no more"
        problem = refused[0].json()
        assert (refused[0].status_code, problem["type"]) == (503, "urn:hearth:problem:store-failed")
        assert (
            f"the key {KEYS['a'].split('_')[1]}" in problem["detail"]
            and "HEARTH_ASYNC_SIZE" in problem["detail"]
        )
        assert "retry-after" in refused[0].headers
        assert send("b").status_code == 202, "another key has its own share"
        event = {"ce-type": "paid", "ce-id": "1", "ce-source": "/x", "ce-specversion": "1.0"}
        assert send("b", "/events", **event).json()["started"][0]["outcome"] == "started"
        fired = gateway.metric("hearth_trigger_fires_total", trigger="tick", outcome="started")
        eventually(
            lambda: (
                gateway.metric("hearth_trigger_fires_total", trigger="tick", outcome="started") > fired + 1
            ),
            30,
        )
        waiting = gateway.http.get("/invocations", params={"function": "slow", "status": "queued"}).json()
        for each in waiting["invocations"]:
            gateway.http.delete(f"/invocations/{each['id']}")
        deadline = time.monotonic() + 30
        while send("a").status_code != 202:
            assert time.monotonic() < deadline, "room returns when calls have ended"
