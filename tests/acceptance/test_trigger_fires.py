"""Triggers on a real gateway: schedules over a kill, events and conditions, webhooks, chains; the whole surface."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from harness import Gateway, command, eventually, handler

from gateway.access.keys import create
from gateway.access.limits import UNLIMITED
from gateway.access.scopes import parse_scopes

pytestmark = pytest.mark.engine

ECHO = """
def handle(event, context):
    told = {k: v for k, v in context.headers.items() if k.startswith(("ce-", "x-hearth", "content-type"))}
    return {"event": event, "told": told}
"""
EMITS = """
def handle(event, context):
    return {"left": event["left"] - 1}, 200, {"ce-type": "chain"}
"""
STRUCTURED = {"content-type": "application/cloudevents+json"}
SECRET = "it is a secret"


def on(kind: str, function: str, **more: object) -> dict[str, object]:
    """A trigger by events of a type."""
    return {"events": {"filters": [{"exact": {"type": kind}}]}, "function": function, **more}


TRIGGERS: dict[str, dict[str, object]] = {
    "paid": on("paid", "echo"),
    "shell": on("shell", "shell"),
    "chain": on("chain", "emits"),
    "flow": {"events": {"filters": [{"exact": {"type": "flow"}}]}, "workflow": "two"},
    "batch": {"events": {"filters": [{"exact": {"type": "batch"}}]}, "job": "three"},
    "ended": {"events": {"filters": [{"suffix": {"type": ".ended"}}, {"exact": {"status": "succeeded"}}]}}
    | {"function": "echo"},
    "push": {
        "webhook": {
            "signature": "github",
            "secret_env": "HEARTH_TEST_HOOK",
            "max_body": "1KiB",
            "filters": [{"exact": {"type": "com.github.push"}}],
        },
        "function": "echo",
    },
    "dispatch": {
        "webhook": {"signature": "github", "secret_env": "HEARTH_TEST_HOOK", "once": "body"},
        "function": "echo",
    },
    "standard": {"webhook": {"signature": "standard", "secret_env": "HEARTH_TEST_HOOK"}, "function": "echo"},
    "each": {"events": {"filters": [{"exact": {"type": "each"}}]}, "job": "listed"},
    "yearly": {"schedule": "0 0 1 1 *", "timezone": "Europe/Berlin", "input": {"a": 1}, "function": "echo"},
}


def declare(gateway: Gateway, triggers: dict[str, dict[str, object]]) -> None:
    """Add triggers, a workflow and a job to functions.yaml."""
    content = json.loads(gateway.file.read_text())
    content["triggers"] = triggers
    content["workflows"] = {"two": ["echo", "echo"]}
    content["jobs"] = {"three": {"function": "echo", "count": 3}, "listed": {"function": "echo"}}
    gateway.write("functions.yaml", json.dumps(content, indent=1))


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        "echo": handler(ECHO),
        "emits": handler(EMITS),
        "shell": command("sh", "-c", 'echo "$HEARTH_TRIGGER"; cat'),
    }
    made = Gateway(tmp_path_factory.mktemp("triggers"), functions, settings={"test_hook": SECRET})
    declare(made, TRIGGERS)
    with made:
        yield made


def event(kind: str, id: str, **more: Any) -> dict[str, Any]:
    return {"specversion": "1.0", "id": id, "source": "/test", "type": kind, **more}


def publish(gateway: Gateway, *events: dict[str, Any]) -> list[dict[str, Any]]:
    """Publish events; what they have started."""
    if len(events) == 1:
        answer = gateway.http.post("/events", content=json.dumps(events[0]), headers=STRUCTURED)
    else:
        batch = {"content-type": "application/cloudevents-batch+json"}
        answer = gateway.http.post("/events", content=json.dumps(events), headers=batch)
    assert answer.status_code == 202, answer.text
    assert answer.json()["events"] == len(events)
    return list(answer.json()["started"])


def status(gateway: Gateway, url: str) -> str:
    """How what was started has ended."""
    return str(eventually(lambda: (r := gateway.http.get(url).json())["ended"] and r, 30)["status"])


def result(gateway: Gateway, started: dict[str, Any]) -> httpx.Response:
    """What was answered by the call that was started."""
    status(gateway, started["url"])
    return gateway.http.get(f"{started['url']}/result")


def fires(gateway: Gateway, trigger: str) -> list[dict[str, Any]]:
    return list(gateway.http.get(f"/triggers/{trigger}").json()["fires"])


# -- events and conditions --------------------------------------------------------------------------------------


def test_an_event_whose_condition_matches_starts_its_function_and_another_none(gateway: Gateway) -> None:
    (started,) = publish(gateway, event("paid", "1", subject="order 42", data={"order": 42}))
    assert (started["trigger"], started["outcome"]) == ("paid", "started")
    answer = result(gateway, started).json()
    assert answer["event"] == {"order": 42}
    told = answer["told"]
    assert (told["ce-type"], told["ce-source"], told["ce-id"]) == ("paid", "/test", "1")
    assert (told["ce-subject"], told["content-type"]) == ("order%2042", "application/json")
    assert told["x-hearth-trigger"] == "paid"
    assert publish(gateway, event("unpaid", "1")) == []


def test_the_same_event_starts_nothing_twice(gateway: Gateway) -> None:
    (first,) = publish(gateway, event("paid", "twice"))
    (again,) = publish(gateway, event("paid", "twice"))
    assert (again["outcome"], again["id"]) == ("known", first["id"])


def test_events_in_binary_mode_and_in_batches(gateway: Gateway) -> None:
    fields = {f"ce-{name}": value for name, value in event("paid", "binary").items()}
    answer = gateway.http.post(
        "/events", content=b"\x00\xff", headers={**fields, "content-type": "image/png"}
    )
    assert answer.status_code == 202 and len(answer.json()["started"]) == 1
    started = publish(gateway, event("paid", "b1"), event("other", "b2"), event("paid", "b3", data="x"))
    assert [fire["trigger"] for fire in started] == ["paid", "paid"]
    assert result(gateway, started[1]).json()["event"] == "x"


@pytest.mark.parametrize(
    ("content", "headers", "message"),
    [
        (b"{}", STRUCTURED, "'specversion' is missing"),
        (b"{", STRUCTURED, "not valid JSON"),
        (b"", {}, "ce-specversion is missing"),
        (json.dumps(event("x", "1", data_base64="?")).encode(), STRUCTURED, "base64"),
    ],
)
def test_what_is_no_event_has_a_400(
    gateway: Gateway, content: bytes, headers: dict[str, str], message: str
) -> None:
    answer = gateway.http.post("/events", content=content, headers=headers)
    assert answer.status_code == 400 and message in answer.json()["detail"]


def test_too_much_has_a_413(gateway: Gateway) -> None:
    answer = gateway.http.post("/events", content=b" " * (6 * 2**20 + 1), headers=STRUCTURED)
    assert answer.status_code == 413 and "6291456" in answer.json()["detail"]


def test_commands_are_told_their_trigger(gateway: Gateway) -> None:
    (started,) = publish(gateway, event("shell", "1", datacontenttype="text/plain", data="hello"))
    assert result(gateway, started).text == "shell\nhello"


def test_events_start_workflows_and_jobs_and_their_ends_are_events_too(gateway: Gateway) -> None:
    run, job = publish(gateway, event("flow", "1", data=[1]), event("batch", "1"))
    assert [status(gateway, started["url"]) for started in (run, job)] == ["succeeded"] * 2

    def told() -> set[str]:
        ended = [gateway.http.get(f"{fire['url']}/result") for fire in fires(gateway, "ended")]
        return {answer.json()["told"]["ce-source"] for answer in ended if answer.status_code == 200}

    eventually(lambda: told() >= {run["url"], job["url"]}, 30)


# -- chains -----------------------------------------------------------------------------------------------------


def test_a_chain_of_emitted_events_is_bounded(gateway: Gateway) -> None:
    publish(gateway, event("chain", "start", data={"left": 100}))
    eventually(lambda: "8 calls led here already" in gateway.log, 30)
    listed = gateway.http.get("/invocations", params={"function": "emits"}).json()["invocations"]
    assert len(listed) == 9, "the first, and eight that followed"
    left = [
        json.loads(result(gateway, {"url": f"/invocations/{call['id']}"}).text)["left"] for call in listed
    ]
    assert sorted(left) == list(range(91, 100))


def test_the_answer_of_a_direct_call_emits_nothing(gateway: Gateway) -> None:
    before = gateway.metric("hearth_trigger_fires_total", trigger="chain")
    answer = gateway.call("emits", {"left": 5})
    assert answer.headers["ce-type"] == "chain"
    assert gateway.metric("hearth_trigger_fires_total", trigger="chain") == before


# -- webhooks ---------------------------------------------------------------------------------------------------


def deliver(
    gateway: Gateway, body: bytes, signed: bytes | None = None, to: str = "push", **headers: str
) -> httpx.Response:
    digest = hmac.new(SECRET.encode(), body if signed is None else signed, hashlib.sha256).hexdigest()
    fields = {"x-hub-signature-256": f"sha256={digest}", "x-github-event": "push", "x-github-delivery": "1"}
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    return gateway.http.post(f"/hooks/{to}", content=body, headers={**fields, **given})


def test_a_webhook_with_a_good_signature_starts_its_function(gateway: Gateway) -> None:
    answer = deliver(gateway, b'{"ref": "main"}', content_type="application/json")
    assert answer.status_code == 202, answer.text
    (started,) = answer.json()["started"]
    shown = result(gateway, started).json()
    assert shown["event"] == {"ref": "main"}
    assert (shown["told"]["ce-type"], shown["told"]["ce-source"]) == ("com.github.push", "/hooks/push")
    (again,) = deliver(gateway, b'{"ref": "main"}', content_type="application/json").json()["started"]
    assert (again["outcome"], again["id"]) == ("known", started["id"])


def test_a_webhook_with_a_bad_signature_has_a_401_and_starts_nothing(gateway: Gateway) -> None:
    before = fires(gateway, "push")
    answer = deliver(gateway, b"{}", signed=b"[]", x_github_delivery="bad")
    assert answer.status_code == 401 and "www-authenticate" in answer.headers
    assert SECRET not in answer.text
    assert fires(gateway, "push") == before
    assert "webhook push refuses a message: X-Hub-Signature-256 is not" in gateway.log


@pytest.mark.parametrize(
    "body", [b"{}", b"x" * 1025, b"x" * (2**20 + 1)], ids=["short", "over one's limit", "over all limits"]
)
def test_strangers_cannot_tell_which_webhooks_there_are(gateway: Gateway, body: bytes) -> None:
    def answer(name: str) -> tuple[int, str, list[str]]:
        given = deliver(gateway, body, signed=b"not this", to=name)
        without = {"date", "content-length"}
        headers = [f"{key}: {value}" for key, value in given.headers.items() if key not in without]
        return given.status_code, given.text.replace(name, "NAME"), sorted(headers)

    nowhere = answer("nowhere")
    assert nowhere[0] == (413 if len(body) > 2**20 else 401)
    for name in ("push", "standard", "dispatch", "paid", "yearly"):
        assert answer(name) == nowhere, name


def test_a_message_is_known_by_its_body_where_that_is_wanted(gateway: Gateway) -> None:
    (first,) = deliver(gateway, b'{"n": 1}', to="dispatch").json()["started"]
    assert first["outcome"] == "started"
    for more in ({"x_github_delivery": "other"}, {"x_github_event": "release"}):
        (again,) = deliver(gateway, b'{"n": 1}', to="dispatch", **more).json()["started"]
        assert (again["outcome"], again["id"]) == ("known", first["id"])
    (other,) = deliver(gateway, b'{"n": 2}', to="dispatch").json()["started"]
    assert other["outcome"] == "started"
    by_id = [deliver(gateway, b'{"n": 1}', x_github_delivery=id).json()["started"][0] for id in ("a", "b")]
    assert [one["outcome"] for one in by_id] == ["started", "started"], "the same words twice are two events"


def test_a_webhook_takes_what_its_condition_says_and_no_more_than_its_max_body(gateway: Gateway) -> None:
    answer = deliver(gateway, b"{}", x_github_event="ping", x_github_delivery="2")
    assert (answer.status_code, answer.json()["started"]) == (202, [])
    assert deliver(gateway, b" " * 1025).status_code == 413


# -- looking and deciding ---------------------------------------------------------------------------------------


def test_a_trigger_is_listed_with_its_next_and_its_last_fire(gateway: Gateway) -> None:
    publish(gateway, event("paid", "listed"))
    listed = {trigger["name"]: trigger for trigger in gateway.http.get("/triggers").json()}
    assert set(listed) >= set(TRIGGERS)
    assert listed["paid"]["last"]["outcome"] == "started" and listed["paid"]["next"] is None
    assert listed["yearly"]["next"].endswith("-12-31T23:00:00Z") and listed["yearly"]["origin"] == "file"
    assert listed["yearly"]["definition"] == TRIGGERS["yearly"]


def test_a_trigger_is_fired_by_hand(gateway: Gateway) -> None:
    answer = gateway.http.post("/triggers/yearly/fire")
    assert answer.status_code == 202
    assert result(gateway, answer.json()).json()["event"] == {"a": 1}
    answer = gateway.http.post("/triggers/yearly/fire", json={"b": 2})
    assert result(gateway, answer.json()).json()["event"] == {"b": 2}
    assert fires(gateway, "yearly")[0]["cause"] == "hand"


def test_a_job_is_started_with_a_list_and_nothing_else(gateway: Gateway) -> None:
    for body in (b"[1, 2]", b"[" * 100_000, b"{}"):
        answer = gateway.http.post("/triggers/each/fire", content=body)
        assert answer.status_code == 202, answer.text
        assert answer.json()["outcome"] == ("started" if body.endswith(b"]") else "failed")
    assert "a JSON list of inputs" in fires(gateway, "each")[0]["detail"]


def test_a_trigger_rests_while_it_is_paused(gateway: Gateway) -> None:
    assert gateway.http.post("/triggers/paid/pause").json()["paused"] is True
    assert publish(gateway, event("paid", "paused")) == []
    assert gateway.http.post("/triggers/paid/resume").json()["paused"] is False
    assert len(publish(gateway, event("paid", "paused"))) == 1
    gateway.http.post("/triggers/push/pause")
    assert deliver(gateway, b"{}", x_github_delivery="paused").status_code == 409
    gateway.http.post("/triggers/push/resume")


def test_triggers_are_made_changed_and_removed_over_the_api(gateway: Gateway) -> None:
    put = gateway.http.put
    made = put("/triggers/mine", json=on("mine", "echo"))
    assert made.status_code == 200 and made.json()["origin"] == "api"
    assert [fire["trigger"] for fire in publish(gateway, event("mine", "1"))] == ["mine"]
    assert put("/triggers/mine", json=on("yours", "echo")).status_code == 200
    assert publish(gateway, event("mine", "2")) == []
    for name, keys, code, message in (
        ("mine", on("x", "nope"), 422, "there is no function 'nope'"),
        ("mine", {"schedule": "x", "function": "echo"}, 422, "schedule: 'x' is not a cron expression"),
        (
            "mine",
            {"webhook": {"signature": "github", "secret_file": "/etc/shadow"}},
            422,
            "functions.yaml only",
        ),
        ("mine", {"name": "other"}, 422, "stands in the path"),
        ("mine", [], 422, "JSON object"),
        ("mine", {"events": {"filters": [{"not": None}]}, "function": "echo"}, 422, "`not` is empty"),
        ("Mine", on("x", "echo"), 422, "to be a trigger's name"),
        ("paid", on("x", "echo"), 409, "declared in functions.yaml"),
    ):
        answer = put(f"/triggers/{name}", json=keys)
        assert (answer.status_code, message in answer.json()["detail"]) == (code, True), answer.text
    assert put("/triggers/mine", content=b"{").status_code == 400
    half = put("/triggers/mine", content=b'{"schedule": "* * * * *", "function": "echo", "input": "\\ud800"}')
    assert half.status_code == 400, half.text
    deep = b'{"schedule": "* * * * *", "function": "echo", "input": %b}' % (b"[" * 300 + b"]" * 300)
    assert put("/triggers/mine", content=deep).status_code == 422
    assert gateway.http.delete("/triggers/paid").status_code == 409
    assert gateway.http.delete("/triggers/mine").status_code == 204
    assert gateway.http.get("/triggers/mine").status_code == 404
    assert gateway.http.delete("/triggers/mine").status_code == 404


def test_a_name_that_vanishes_is_a_fault_of_the_trigger_alone(gateway: Gateway) -> None:
    declared = gateway.file.read_text()
    assert gateway.http.put("/triggers/lost", json=on("lost", "soon-gone")).status_code == 422
    content = json.loads(declared)
    content["functions"]["soon-gone"] = content["functions"]["echo"]
    gateway.write("functions.yaml", json.dumps(content))
    eventually(lambda: gateway.http.get("/functions/soon-gone").status_code == 200, 20)
    assert gateway.http.put("/triggers/lost", json=on("lost", "soon-gone")).status_code == 200
    gateway.write("functions.yaml", declared)
    eventually(lambda: gateway.http.get("/functions/soon-gone").status_code == 404, 20)
    assert "no function 'soon-gone'" in gateway.http.get("/triggers/lost").json()["fault"]
    (fire,) = publish(gateway, event("lost", "1"))
    assert (fire["outcome"], fire["url"]) == ("failed", None)
    assert fires(gateway, "lost")[0]["detail"] == "there is no function 'soon-gone'"
    gateway.http.delete("/triggers/lost")


def test_the_command_line(gateway: Gateway) -> None:
    def hearth(*words: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("hearth")
        return subprocess.run(
            [program, *words, "--url", gateway.url], capture_output=True, text=True, timeout=60
        )

    emitted = hearth("emit", "paid", "--source", "/cli", "--data", '{"order": 1}', "--json")
    (started,) = json.loads(emitted.stdout)["started"]
    assert result(gateway, started).json()["event"] == {"order": 1}
    nobody = hearth("emit", "nobody-cares")
    assert (nobody.returncode, nobody.stdout) == (0, "") and "No trigger matched" in nobody.stderr
    table = hearth("triggers").stdout
    assert "yearly" in table and "0 0 1 1 *" in table and "function echo" in table


# -- keys -------------------------------------------------------------------------------------------------------


def test_a_key_sees_and_starts_only_what_it_may_invoke(tmp_path: Path) -> None:
    scopes = {"one": "invoke:one", "deployer": "deploy invoke:one", "reader": "read", "admin": "admin"}
    texts = {
        n: create(n, parse_scopes(words.split()), UNLIMITED, None, 0.0)[0] for n, words in scopes.items()
    }
    settings = {
        "api_keys": "; ".join(f"{texts[n]} {scopes[n]} name={n}" for n in scopes),
        "test_hook": SECRET,
    }
    functions = {name: handler(ECHO) for name in ("one", "two")}
    made = Gateway(tmp_path, functions, settings=settings)
    content = json.loads(made.file.read_text())
    hook = {"webhook": {"signature": "github", "secret_env": "HEARTH_TEST_HOOK"}, "function": "two"}
    content["triggers"] = {"a": on("x", "one"), "b": on("x", "two"), "push": hook}
    made.write("functions.yaml", json.dumps(content))
    with made as gateway:

        def ask(name: str, method: str, path: str, **more: Any) -> httpx.Response:
            return gateway.http.request(
                method, path, headers={"authorization": f"Bearer {texts[name]}"}, **more
            )

        def started(name: str, id: str) -> list[str]:
            answer = ask(name, "POST", "/events", content=json.dumps([event("x", id)]))
            assert answer.status_code == 400, "without a content type it is in binary mode"
            fields = {f"ce-{key}": value for key, value in event("x", id).items()}
            bearer = {"authorization": f"Bearer {texts[name]}"}
            answer = gateway.http.post("/events", headers={**fields, **bearer})
            return [fire["trigger"] for fire in answer.json()["started"]]

        assert gateway.http.post("/events").status_code == 401
        for variable in ("PATH", "NOT_SET_7"):  # the one is there, the other not, and nobody is told
            foreign = {"webhook": {"signature": "github", "secret_env": variable}, "function": "one"}
            refused = ask("deployer", "PUT", "/triggers/guess", json=foreign).json()
            assert refused["detail"].startswith(
                f"webhook: {variable} is not among the variables that may be named"
            )
        assert started("one", "1") == ["a"]
        assert ask("reader", "POST", "/events").status_code == 403, "it could start nothing"
        assert started("admin", "3") == ["a", "b"]
        assert [t["name"] for t in ask("reader", "GET", "/triggers").json()] == ["a", "b", "push"]
        assert ask("one", "GET", "/triggers").status_code == 403
        assert ask("one", "POST", "/triggers/a/fire").status_code == 403
        assert ask("deployer", "POST", "/triggers/a/fire").status_code == 202
        assert ask("deployer", "POST", "/triggers/b/fire").status_code == 404, "it may not name two"
        assert ask("deployer", "PUT", "/triggers/mine", json=on("y", "two")).status_code == 403
        assert ask("deployer", "PUT", "/triggers/mine", json=on("y", "none")).status_code == 403
        assert ask("deployer", "PUT", "/triggers/mine", json=on("y", "one")).status_code == 200
        assert ask("admin", "PUT", "/triggers/admins", json=on("y", "two")).status_code == 200
        answer = ask("deployer", "PUT", "/triggers/admins", json=on("y", "one"))
        assert (answer.status_code, "two" in answer.text) == (409, False), "it may not take its place"
        assert deliver(gateway, b"{}").status_code == 202, "its signature is its key"


# -- restarts ---------------------------------------------------------------------------------------------------


def test_a_schedule_fires_over_kills_and_none_is_lost_or_doubled(tmp_path: Path) -> None:
    """Four kills at odd moments of a schedule of every second: each second has one call, and each call has ended."""
    made = Gateway(tmp_path, {"echo": handler(ECHO)})
    content = json.loads(made.file.read_text())
    each = {"schedule": "* * * * * *", "catch_up": "all", "overlap": "allow", "function": "echo"}
    content["triggers"] = {"each": each, "paused": {**each}}
    made.write("functions.yaml", json.dumps(content))
    with made as gateway:
        gateway.http.post("/triggers/paused/pause")
        resting = len(fires(gateway, "paused"))
        for number in range(4):
            count = len(fires(gateway, "each"))
            eventually(lambda: len(fires(gateway, "each")) > count, 20)  # noqa: B023
            time.sleep(0.27 * number)  # another moment of the second each time
            gateway.stop(signal.SIGKILL)
            gateway.launch()
            gateway.wait_until_ready()
        gateway.http.post("/triggers/each/pause")
        assert len(fires(gateway, "paused")) == resting, "it rests over restarts"
        done = fires(gateway, "each")
        assert len(done) < 100 and {fire["outcome"] for fire in done} == {"started"}
        seconds = sorted(int(datetime.fromisoformat(fire["scheduled"]).timestamp()) for fire in done)
        assert seconds == list(range(seconds[0], seconds[-1] + 1))
        calls = {fire["url"] for fire in done}
        assert len(calls) == len(done)
        assert {status(gateway, url) for url in calls} == {"succeeded"}
        listed = gateway.http.get("/invocations", params={"limit": 1000}).json()["invocations"]
        assert len(listed) == len(done) + resting, "nothing else was started"


def test_one_made_over_the_api_is_there_after_a_kill(tmp_path: Path) -> None:
    with Gateway(tmp_path, {"echo": handler(ECHO)}) as gateway:
        assert not (gateway.data / "calls.db").exists(), "nothing durable, no file"
        gateway.http.put("/triggers/mine", json=on("mine", "echo"))
        gateway.stop(signal.SIGKILL)
        gateway.launch()
        gateway.wait_until_ready()
        (started,) = publish(gateway, event("mine", "1"))
        assert result(gateway, started).json()["told"]["ce-type"] == "mine"
