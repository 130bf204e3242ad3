"""hearth-client against a real gateway, and the same calls against the one in memory."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import aclosing, closing
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from harness import Gateway, handler

import hearth
from hearth import AsyncClient, Client
from hearth.in_memory import InMemoryGateway

pytestmark = pytest.mark.engine

CODE = '''
import time
from hearth import Context

def handle(event, context: Context):
    """Do what the event says; print it first."""
    print("got", event)
    match event:
        case {"status": int(status)}:
            return {"error": "as asked"}, status
        case {"raise": text}:
            raise KeyError(text)
        case {"sleep": seconds}:
            time.sleep(seconds)
        case {"count": int(count)}:
            return ({"n": n} for n in range(count))
        case {"events": int(count)}:
            events = (f"event: tick\\nid: {n}\\ndata: {n}\\n\\n" for n in range(count))
            return events, 200, {"content-type": "text/event-stream"}
        case {"cut": text}:
            return cut(text)
        case b"headers":
            return {name: context.headers.get(name) for name in ("authorization", "x-hearth-key", "x-own")}
    return event

def cut(text):
    yield text
    time.sleep(0.2)
    raise RuntimeError("in the middle")
'''
SECOND = {"function": "do", "input": "{n: steps.one.output.n}", "needs": ["one"]}
WORKFLOW = {"steps": {"one": {"function": "do"}, "two": SECOND}}
SECTIONS = {
    "workflows": {"pipe": WORKFLOW},
    "jobs": {"batch": {"function": "do", "count": 2}},
    "triggers": {
        "paid": {"events": {"filters": [{"exact": {"type": "com.example.paid"}}]}, "function": "do"}
    },
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    functions = {
        # One call at a time in an instance: output of several at once would belong to none of them.
        "do": handler(CODE, max_instances=2, retries={"attempts": 1}),
        "slow": handler("import time\n\ndef handle(e, c): time.sleep(e)", timeout="200ms"),
    }
    with Gateway(tmp_path_factory.mktemp("client"), functions, sections=SECTIONS) as running:
        yield running


@pytest.fixture(scope="module", params=["real", "in memory"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    if request.param == "real":
        made = Client(request.getfixturevalue("gateway").url)
    else:
        space: dict[str, Any] = {}
        exec(CODE, space)
        made = InMemoryGateway({"do": space["handle"]}).client()
    with made:
        yield made


@pytest.mark.parametrize("data", [{"a": [1]}, [1], "text", b"\x00\xff", 3, None, "", False])
def test_a_value_comes_back_as_it_was_sent(client: Client, data: Any) -> None:
    assert client.call("do", data) == data


def test_the_whole_answer_has_id_start_and_timing(client: Client) -> None:
    response = client.invoke("do", {"a": 1}, query={"b": "c d"})
    assert (response.status, response.value, response.ok) == (200, {"a": 1}, True)
    assert response.start in ("warm", "prewarmed", "cold")
    assert set(response.timing) == {"queue", "start", "exec"}
    assert response.invocation_id is not None
    assert client.output(response.invocation_id) == "got {'a': 1}\n"


def test_errors_have_a_class_a_blame_and_an_id(client: Client) -> None:
    with pytest.raises(hearth.FunctionError) as raised:
        client.call("do", {"raise": "no such pet"})
    assert (raised.value.slug, raised.value.blame) == ("handler-raised", "function")
    assert "KeyError: 'no such pet'" in str(raised.value)
    assert raised.value.invocation_id is not None
    assert "KeyError" in client.output(raised.value.invocation_id)
    with pytest.raises(hearth.NotFound, match="no function 'nope'") as missing:
        client.call("nope")
    assert missing.value.blame == "caller"
    with pytest.raises(hearth.BadInput, match="answers POST only"):
        client.invoke("do", method="GET")


def test_a_status_of_the_function_s_own_is_raised_or_returned(client: Client) -> None:
    with pytest.raises(hearth.FunctionAnswered) as raised:
        client.call("do", {"status": 418})
    assert (raised.value.status, raised.value.body) == (418, {"error": "as asked"})
    assert raised.value.invocation_id == raised.value.response.invocation_id is not None
    assert client.invoke("do", {"status": 418}).status == 418


def test_streams(client: Client) -> None:
    assert list(client.stream("do", {"count": 3}).values()) == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert b"".join(client.stream("do", {"count": 1})) == b'{"n":0}\n'
    with client.stream("do", {"events": 2}) as stream:
        assert stream.head.status == 200 and stream.invocation_id
        assert list(stream.events()) == [
            hearth.ServerEvent(str(n), event="tick", id=str(n)) for n in range(2)
        ]
    with client.stream("do", {"count": 10**6}) as stream:
        assert next(stream.values()) == {"n": 0}  # the rest is left
    assert client.call("do", 1) == 1


def test_a_stream_that_fails_raises(client: Client) -> None:
    pieces: list[bytes] = []
    with pytest.raises(hearth.ConnectionLost):
        pieces.extend(client.stream("do", {"cut": "first"}))
    with pytest.raises(hearth.FunctionAnswered):
        list(client.stream("do", {"status": 404}))
    with pytest.raises(hearth.FunctionError, match="early"):
        list(client.stream("do", {"raise": "early"}))


def test_map_keeps_the_order(client: Client) -> None:
    assert list(client.map("do", range(40), concurrency=4)) == list(range(40))
    items = [1, {"raise": "x"}, 3]
    values = list(client.map("do", items, errors="return"))
    assert values[::2] == [1, 3] and isinstance(values[1], hearth.FunctionError)
    with pytest.raises(hearth.FunctionError):
        list(client.map("do", items))


def test_an_accepted_call_is_a_future(client: Client) -> None:
    future = client.submit("do", {"a": 1})
    assert future.result(timeout=20) == {"a": 1}
    assert (future.done(), future.status()) == (True, "succeeded")
    assert future.logs() == "got {'a': 1}\n"
    assert future.cancel() is False
    again = client.future(future.id)
    assert again.response().value == {"a": 1}
    assert again.response().invocation_id == future.id
    with pytest.raises(hearth.NotFound):
        client.future("0" * 32).result()


def test_the_same_key_is_the_same_call(client: Client) -> None:
    first = client.submit("do", "once", key="a key")
    assert client.submit("do", "once", key="a key").id == first.id
    other = client.submit("do", "once")
    assert other.id != first.id
    assert first.result(20) == other.result(20) == "once"


def test_a_call_that_fails_later_raises_when_its_result_is_asked(client: Client) -> None:
    failed = client.submit("do", {"raise": "later"})
    with pytest.raises(hearth.FunctionError, match="later"):
        failed.result(timeout=20)
    answered = client.submit("do", {"status": 422})
    with pytest.raises(hearth.FunctionAnswered):
        answered.result(timeout=20)
    assert answered.response().status == 422


def test_what_has_ended_can_be_run_again(gateway: Gateway) -> None:
    with Client(gateway.url) as client:
        future = client.submit("do", {"status": 400})
        future.wait(20)
        future.retry()
        assert future.wait(20)["attempts"] == 2
        run = client.workflows.start("pipe", {"status": 400})
        assert run.wait(20)["status"] == "failed"
        run.resume()
        assert run.wait(20)["status"] == "failed"
        job = client.jobs.run({"function": "do", "inputs": [{"status": 400}]})
        assert job.wait(20)["status"] == "failed"
        job.retry()
        assert job.wait(20)["tasks"]["failed"] == 1
        with pytest.raises(hearth.Conflict):
            client.submit("do", {"sleep": 0.5}).retry()


def test_a_call_that_has_not_ended_can_be_waited_for_and_cancelled(client: Client) -> None:
    future = client.submit("do", {"sleep": 30})
    with pytest.raises(hearth.NotFinished, match="it goes on"):
        future.result(timeout=0.05)
    assert future.done() is False
    assert future.cancel() is True
    assert future.wait(20)["status"] == "cancelled"
    with pytest.raises(hearth.CallEnded, match="is cancelled and has no answer"):
        future.result()


async def test_the_client_for_asyncio_does_the_same(gateway: Gateway) -> None:
    async with AsyncClient(gateway.url) as client:
        assert await client.call("do", {"a": 1}) == {"a": 1}
        assert [value async for value in client.stream("do", {"count": 2}).values()] == [{"n": 0}, {"n": 1}]
        events = [event.data async for event in client.stream("do", {"events": 2}).events()]
        assert events == ["0", "1"]
        with pytest.raises(hearth.FunctionAnswered):
            async with client.stream("do", {"status": 404}):
                pass
        assert [value async for value in client.map("do", range(40), concurrency=4)] == list(range(40))
        with pytest.raises(hearth.FunctionError):
            [value async for value in client.map("do", [1, {"raise": "x"}])]
        future = await client.submit("do", {"a": 2})
        assert await future.result(20) == {"a": 2}
        assert await future.status() == "succeeded" and await future.done()
        assert await future.logs() == "got {'a': 2}\n"
        running = await client.submit("do", {"sleep": 30})
        assert await running.cancel() is True
        assert {function["name"] for function in await client.functions()} == {"do", "slow"}
        run = await client.workflows.start("pipe", {"n": 1})
        assert await run.output(20) == {"n": 1}
        job = await client.jobs.run("batch", count=3)
        assert (await job.wait(20))["status"] == "succeeded"
        assert [task["index"] for task in await job.tasks()] == [0, 1, 2]
        assert (await client.emit("com.example.paid", {"a": 1}))["events"] == 1


async def test_leaving_a_map_leaves_no_task(gateway: Gateway) -> None:
    async with AsyncClient(gateway.url) as client:
        mapping = client.map("do", ({"sleep": 0.01} for _ in range(1000)), concurrency=2)
        assert await anext(mapping) == {"sleep": 0.01}
        await mapping.aclose()
        assert len(asyncio.all_tasks()) == 1


def test_workflows_jobs_and_events(gateway: Gateway) -> None:
    with Client(gateway.url) as client:
        run = client.workflows.start("pipe", {"n": 1})
        assert run.output(20) == {"n": 1}
        assert (run.status(), run.cancel()) == ("succeeded", False)
        with pytest.raises(hearth.CallEnded, match="is failed"):
            client.workflows.start("pipe", {"status": 400}).output(20)
        job = client.jobs.run({"function": "do"}, inputs=["a", {"status": 400}])
        assert job.wait(20)["status"] == "failed"
        assert [task["index"] for task in job.tasks("succeeded")] == [0]
        assert client.future(job.tasks()[0]["invocation"]).result() == "a"
        assert job.cancel() is False
        event = {"type": "com.example.paid", "source": "/shop", "id": "42", "data": {"order": 42}}
        assert [start["outcome"] for start in client.emit(event)["started"]] == ["started"]
        assert [start["outcome"] for start in client.emit(event)["started"]] == ["known"]
        started = client.emit("com.example.paid", b"\x00", source="/shop", subject="42")["started"]
        assert client.future(started[0]["id"]).result(20) == b"\x00"


def test_lines_of_output(gateway: Gateway) -> None:
    with Client(gateway.url) as client:
        response = client.invoke("do", "a line to be found")
        with closing(client.logs("do", grep="to be found", follow=True)) as lines:
            line = next(lines)
            assert (line.text, line.function, line.invocation) == (
                "got a line to be found",
                "do",
                response.invocation_id,
            )
            assert line.time.tzinfo is not None and abs(datetime.now(UTC) - line.time) < timedelta(minutes=5)
            again = client.invoke("do", "another to be found")
            assert next(lines).invocation == again.invocation_id
        found = client.logs(since="5m", grep="to be found", limit=1)
        assert [line.text for line in found] == ["got another to be found"]
        with pytest.raises(hearth.BadInput, match="since"):
            list(client.logs(since="yesterday"))


async def test_lines_of_output_with_asyncio(gateway: Gateway) -> None:
    async with AsyncClient(gateway.url) as client:
        response = await client.invoke("do", "an async line")
        async with aclosing(client.logs(invocation=response.invocation_id, follow=True)) as lines:
            assert (await anext(lines)).text == "got an async line"


def test_a_function_that_runs_too_long_is_a_timeout(gateway: Gateway) -> None:
    with Client(gateway.url) as client, pytest.raises(hearth.FunctionTimeout) as raised:
        client.call("slow", 5)
    assert isinstance(raised.value, TimeoutError) and raised.value.blame == "function"


def test_threads_share_a_client_and_its_connections(gateway: Gateway) -> None:
    with Client(gateway.url) as client:
        results: list[Any] = []
        threads = [
            threading.Thread(target=lambda n=n: results.append(client.call("do", n))) for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(results) == list(range(16))
