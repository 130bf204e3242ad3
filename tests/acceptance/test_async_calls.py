"""Calls that are accepted to be run later, on a real gateway: the whole surface of docs/async.md."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Gateway, command, eventually, handler, in_parallel

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes

pytestmark = pytest.mark.engine

ASYNC = {"prefer": "respond-async"}
ECHO = """
def handle(event, context):
    print("attempt", context.headers.get("x-hearth-attempt"))
    if event and event.get("status"):
        return {"no": event["status"]}, event["status"]
    return {"event": event, "attempt": context.headers.get("x-hearth-attempt"), "id": context.invocation_id}
"""
FLAKY = """
def handle(event, context):
    attempt = int(context.headers["x-hearth-attempt"])
    print("run", attempt)
    if attempt < event["fails"] + 1:
        raise ValueError(f"attempt {attempt}")
    return attempt
"""
SLEEP = "import time\n\ndef handle(event, context):\n    time.sleep(event)\n    return event\n"
FAST = {"attempts": 3, "backoff": "10ms", "max_backoff": "50ms"}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "echo": handler(ECHO),
        "flaky": handler(FLAKY, retries=FAST),
        "sleep": handler(SLEEP, max_instances=1),
        "late": handler("def handle(event, context):\n    raise ValueError\n", max_event_age="1s"),
        "told": handler("def handle(event, context):\n    print(event)\n"),
        "first": handler(FLAKY, retries=FAST, on_success="told", on_failure="told"),
        "shell": command("sh", "-c", "echo attempt $HEARTH_ATTEMPT; cat"),
    }
    with Gateway(tmp_path_factory.mktemp("async"), functions) as made:
        yield made


def accept(gateway: Gateway, function: str, payload: object = None, **headers: str) -> str:
    """Have a call accepted; its address."""
    answer = gateway.call(function, payload, headers={**ASYNC, **headers})
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == "respond-async"
    return str(answer.headers["location"])


def record(gateway: Gateway, place: str) -> dict[str, Any]:
    return dict(gateway.http.get(place).json())


def ended(gateway: Gateway, place: str) -> dict[str, Any]:
    """The record of a call, when it has ended."""
    return eventually(lambda: (r := record(gateway, place))["ended"] and r, 30)


def slug(answer: httpx.Response) -> str:
    assert answer.headers["content-type"] == "application/problem+json"
    return str(answer.json()["type"]).removeprefix("urn:hearth:problem:")


def test_a_call_is_accepted_run_and_its_answer_read(gateway: Gateway) -> None:
    place = accept(gateway, "echo", {"a": 1})
    shown = ended(gateway, place)
    assert (shown["status"], shown["attempts"], shown["error"]) == ("succeeded", 1, None)
    answer = gateway.http.get(shown["result"])
    id = place.rpartition("/")[2]
    assert answer.json() == {"event": {"a": 1}, "attempt": "1", "id": id}
    assert answer.headers["x-invocation-id"] == id and "server-timing" in answer.headers
    phases = shown["phases"]
    assert phases["start_kind"] == answer.headers["x-hearth-start"]
    told = "queue;dur={queue:.2f}, start;dur={start:.2f}, exec;dur={exec:.2f}".format(**phases)
    assert answer.headers["server-timing"] == told and phases["exec"] > 0
    assert gateway.http.get(f"{place}/logs").text == "attempt 1\n"


def test_a_status_of_the_functions_own_is_kept_and_a_4xx_is_not_tried_again(gateway: Gateway) -> None:
    shown = ended(gateway, accept(gateway, "echo", {"status": 404}))
    assert (shown["status"], shown["attempts"], shown["error"]) == ("failed", 1, "function-error")
    answer = gateway.http.get(shown["result"])
    assert (answer.status_code, answer.json()) == (404, {"no": 404})


def test_commands_are_told_their_attempt(gateway: Gateway) -> None:
    answer = gateway.call("shell", content=b"in", headers={"prefer": "respond-async, wait=30"})
    assert (answer.status_code, answer.text) == (200, "attempt 1\nin")


def test_with_wait_it_is_answered_like_a_direct_call_if_it_ends_in_time(gateway: Gateway) -> None:
    answer = gateway.call("echo", {"a": 2}, headers={"prefer": "respond-async, wait=30"})
    assert answer.status_code == 200 and answer.json()["event"] == {"a": 2}
    assert answer.headers["preference-applied"] == "respond-async, wait=30"
    answer = gateway.call("sleep", 2, headers={"prefer": "respond-async, wait=0"})
    assert answer.status_code == 202
    ended(gateway, answer.headers["location"])


def test_what_is_wrong_with_a_call_is_told_at_once(gateway: Gateway) -> None:
    before = gateway.metric("hearth_async_accepted_total")
    for answer, expected in (
        (gateway.call("nobody", headers=ASYNC), "no-such-function"),
        (gateway.http.get("/invoke/echo", headers=ASYNC), "method-not-allowed"),
        (gateway.call("echo/path", headers=ASYNC), "method-not-allowed"),
        (gateway.call("echo", content=b"x" * (6 * 2**20 + 1), headers=ASYNC), "body-too-large"),
        (gateway.call("echo", headers={**ASYNC, "idempotency-key": ""}), "bad-request"),
        (gateway.http.get("/invocations/0"), "not-found"),
        (gateway.http.get("/invocations/0/result"), "not-found"),
        (gateway.http.delete("/invocations/0"), "not-found"),
        (gateway.http.post("/invocations/0/retry"), "not-found"),
        (gateway.http.get("/invocations", params={"cursor": "x"}), "invalid-input"),
        (gateway.http.get("/invocations", params={"status": "lost"}), "invalid-input"),
    ):
        assert slug(answer) == expected
    assert gateway.metric("hearth_async_accepted_total") == before


def test_the_same_key_gives_the_same_call_and_another_request_is_refused(gateway: Gateway) -> None:
    key = {"idempotency-key": "order 17"}
    places = in_parallel(lambda _: accept(gateway, "echo", {"order": 17}, **key), 8)
    assert len(set(places)) == 1
    ended(gateway, places[0])
    assert accept(gateway, "echo", {"order": 17}, **key) == places[0]
    again = gateway.call("echo", {"order": 17}, headers={"prefer": "respond-async, wait=5", **key})
    assert again.status_code == 200 and again.headers["x-invocation-id"] == places[0].rpartition("/")[2]
    refused = gateway.call("echo", {"order": 18}, headers={**ASYNC, **key})
    assert (refused.status_code, slug(refused)) == (422, "key-reused")
    assert accept(gateway, "flaky", {"fails": 0}, **key) != places[0]


def test_a_failing_call_is_tried_again_and_told_which_attempt_it_is(gateway: Gateway) -> None:
    shown = ended(gateway, place := accept(gateway, "flaky", {"fails": 2}))
    assert (shown["status"], shown["attempts"]) == ("succeeded", 3)
    assert gateway.http.get(f"{place}/result").json() == 3
    log = gateway.http.get(f"{place}/logs").text
    assert [line for line in log.splitlines() if line.startswith("run")] == ["run 1", "run 2", "run 3"]


def test_a_call_that_always_fails_is_a_dead_letter_until_it_is_redriven_or_purged(gateway: Gateway) -> None:
    def dead() -> list[str]:
        shown = gateway.http.get("/dead-letters", params={"function": "flaky"}).json()
        return [f"/invocations/{i['id']}" for i in shown["invocations"]]

    shown = ended(gateway, place := accept(gateway, "flaky", {"fails": 4}))
    assert (shown["status"], shown["attempts"]) == ("dead", 3)
    assert (shown["error"], shown["blame"]) == ("handler-raised", "function")
    assert "attempt 3" in gateway.http.get(f"{place}/result").json()["detail"]
    assert place in dead()
    assert gateway.http.post("/dead-letters/redrive", params={"function": "echo"}).json() == {"count": 0}
    assert gateway.http.post("/dead-letters/redrive", params={"function": "flaky"}).json() == {"count": 1}
    shown = ended(gateway, place)
    assert (shown["status"], shown["attempts"]) == ("succeeded", 5)
    gone = accept(gateway, "flaky", {"fails": 1000})
    ended(gateway, gone)
    assert gateway.http.delete("/dead-letters", params={"function": "flaky"}).json() == {"count": 1}
    assert gateway.http.get(gone).status_code == 404 and dead() == []


def test_a_call_that_grows_too_old_has_expired(gateway: Gateway) -> None:
    shown = ended(gateway, accept(gateway, "late"))
    assert shown["status"] == "expired" and shown["attempts"] < 3


def test_a_call_that_has_ended_is_run_again_when_asked_for(gateway: Gateway) -> None:
    place = accept(gateway, "echo", {"a": 1})
    ended(gateway, place)
    answer = gateway.http.post(f"{place}/retry")
    assert answer.status_code == 202
    shown = ended(gateway, place)
    assert (shown["status"], shown["attempts"]) == ("succeeded", 2)
    assert gateway.http.get(f"{place}/result").json()["attempt"] == "2"


def test_a_waiting_call_is_cancelled_and_never_runs_and_a_running_one_is_interrupted(
    gateway: Gateway,
) -> None:
    running = accept(gateway, "sleep", 60)
    eventually(lambda: gateway.pool("sleep")["instances"].get("busy"), 20)
    waiting = accept(gateway, "sleep", 0)
    assert record(gateway, waiting)["status"] == "queued", "one slot, one call at a time"
    assert slug(gateway.http.get(f"{waiting}/result")) == "conflict"
    assert slug(gateway.http.post(f"{waiting}/retry")) == "conflict"
    assert gateway.http.delete(waiting).json()["status"] == "cancelled"
    begin = time.monotonic()
    assert gateway.http.delete(running).json()["status"] == "cancelled"
    assert time.monotonic() - begin < 10
    assert slug(gateway.http.delete(running)) == "conflict"
    assert record(gateway, waiting)["attempts"] == 0
    assert slug(gateway.http.get(f"{waiting}/result")) == "not-found"
    eventually(lambda: not gateway.pool("sleep")["instances"].get("busy"), 10)
    assert gateway.call("sleep", 0).status_code == 200


def test_destinations_are_called_with_what_became_of_a_call(gateway: Gateway) -> None:
    for fails, status in ((0, "succeeded"), (9, "dead")):
        place = accept(gateway, "first", {"fails": fails})
        ended(gateway, place)
        latest = gateway.http.get("/invocations", params={"function": "told", "limit": 1}).json()
        follow = f"/invocations/{latest['invocations'][0]['id']}"
        ended(gateway, follow)
        log = gateway.http.get(f"{follow}/logs").text
        assert f"'status': '{status}'" in log and place.rpartition("/")[2] in log


def test_lists_go_from_new_to_old_in_pages(gateway: Gateway) -> None:
    places = [accept(gateway, "told", {"n": n}) for n in range(5)]
    for place in places:
        ended(gateway, place)
    found: list[str] = []
    query = {"function": "told", "status": "succeeded", "limit": "2"}
    while len(found) < 5:
        page = gateway.http.get("/invocations", params=query).json()
        found += [f"/invocations/{i['id']}" for i in page["invocations"]]
        query["cursor"] = page["cursor"]
    assert found[:5] == places[::-1]
    nothing = gateway.http.get("/invocations", params={"since": "2100-01-01T00:00:00Z"}).json()
    assert nothing == {"invocations": [], "cursor": None}


def test_direct_calls_write_nothing_and_bodies_are_in_no_log(gateway: Gateway) -> None:
    gateway.call("echo", {"a": 1})
    file = gateway.data / "calls.db-wal"
    eventually(lambda: gateway.metric("hearth_async_backlog") == 0, 20)
    before = (file.stat().st_size, file.stat().st_mtime_ns)
    for n in range(50):
        assert gateway.call(
            "echo", {"secret": f"s3cret-{n}"}, headers={"prefer": "return=minimal"}
        ).is_success
    assert (file.stat().st_size, file.stat().st_mtime_ns) == before
    ended(gateway, accept(gateway, "echo", {"secret": "s3cret-kept"}))
    assert "s3cret" not in gateway.log


def test_a_gateway_that_accepted_nothing_has_no_store(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"echo": handler(ECHO)}) as gateway:
        gateway.call("echo", {"a": 1})
        assert gateway.http.get("/invocations").json() == {"invocations": [], "cursor": None}
        assert gateway.http.delete("/dead-letters").json() == {"count": 0}
        assert not (gateway.data / "calls.db").exists()


def test_a_damaged_store_takes_nothing_and_direct_calls_go_on(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, {"echo": handler(ECHO)})
    gateway.data.mkdir()
    (gateway.data / "calls.db").write_bytes(b"no database at all" * 1000)
    with gateway:
        assert gateway.call("echo", {"a": 1}).status_code == 200
        refused = gateway.call("echo", {"a": 1}, headers=ASYNC)
        assert (refused.status_code, slug(refused)) == (503, "store-failed")
        assert slug(gateway.http.get("/invocations")) == "store-failed"
        assert gateway.http.get("/metrics").status_code == 200


def test_a_stop_keeps_what_was_accepted_and_the_next_start_runs_it(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"sleep": handler(SLEEP, max_instances=1)}) as gateway:
        places = [accept(gateway, "sleep", 0.2) for _ in range(12)]
        assert gateway.stop() == 0
        assert gateway.leftovers() == []
        gateway.launch()
        gateway.wait_until_ready()
        for place in places:
            assert ended(gateway, place)["status"] == "succeeded"
        assert gateway.metric("hearth_async_interrupted_total") == 0


def test_keys_see_and_cancel_the_calls_of_their_functions_only(tmp_path: Path) -> None:
    scopes = {"echo": "invoke:echo", "told": "invoke:told", "reader": "read"}
    texts = {n: create(n, parse_scopes([s]), UNLIMITED, None, 0.0)[0] for n, s in scopes.items()}
    settings = {"api_keys": "; ".join(f"{texts[n]} {scopes[n]} name={n}" for n in scopes)}
    with Gateway(tmp_path, {name: handler(ECHO) for name in ("echo", "told")}, settings=settings) as gateway:
        headers = {name: {"authorization": f"Bearer {text}"} for name, text in texts.items()}

        def statuses(method: str, path: str) -> dict[str, int]:
            return {
                name: gateway.http.request(method, path, headers=given).status_code
                for name, given in headers.items()
            }

        place = accept(gateway, "echo", {"a": 1}, **headers["echo"])
        eventually(lambda: gateway.http.get(place, headers=headers["echo"]).json()["ended"], 30)
        assert statuses("GET", place) == {"echo": 200, "told": 404, "reader": 200}
        assert statuses("GET", f"{place}/result") == {"echo": 200, "told": 404, "reader": 200}
        assert statuses("DELETE", place) == {"echo": 409, "told": 404, "reader": 403}
        assert statuses("POST", f"{place}/retry") == {"echo": 202, "told": 404, "reader": 403}
        assert set(statuses("GET", "/dead-letters").values()) == {403, 200}
        assert set(statuses("DELETE", "/dead-letters").values()) == {403}
        assert gateway.http.get(place).status_code == 401
        listed = gateway.http.get("/invocations", headers=headers["told"]).json()["invocations"]
        assert listed == []
        assert texts["echo"].encode() not in (gateway.data / "calls.db-wal").read_bytes()


def test_a_long_backlog_keeps_others_waiting_for_one_call_at_most(gateway: Gateway) -> None:
    for _ in range(40):
        accept(gateway, "sleep", 0.3)
    begin = time.monotonic()
    answer = gateway.call("echo", {"a": 1}, headers={"prefer": "respond-async, wait=30"})
    assert answer.status_code == 200
    direct = gateway.call("sleep", 0)
    took = time.monotonic() - begin
    left = gateway.metric("hearth_async_backlog", function="sleep")
    assert direct.status_code == 200 and left > 10, f"{left:g} calls were left after {took:.1f} s"
    for shown in gateway.http.get("/invocations", params={"function": "sleep", "limit": 1000}).json()[
        "invocations"
    ]:
        gateway.http.delete(f"/invocations/{shown['id']}")
