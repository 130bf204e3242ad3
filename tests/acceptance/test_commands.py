"""Commands on a real engine: fresh containers that were started ahead, many runs in one, streams, and every end."""

from __future__ import annotations

import asyncio
import http.client
import io
import signal
import socket
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import BUSYBOX_IMAGE, EngineView, Gateway, command, eventually, in_parallel

from pool.clock import LoopClock
from pool.engine.docker import DockerEngine
from pool.host import cgroup
from pool.observe.metrics import Metrics

pytestmark = pytest.mark.engine

STATIC_IMAGE = "hearth-test/static:latest"
PIECE = bytes(range(256)) * 256
TOGETHER = {"reuse": True, "concurrency": 4, "max_instances": 1}


def sh(text: str, **keys: object) -> dict[str, object]:
    """A command that runs lines of shell."""
    return command("sh", "-c", text, **keys)


@pytest.fixture(scope="module")
def static_image() -> Iterator[str]:
    """An image with one static program, no shell and no library; ENTRYPOINT, CMD, USER, WORKDIR and ENV."""
    dockerfile = f"""\
FROM {BUSYBOX_IMAGE} AS tools
FROM scratch
COPY --from=tools /bin/busybox /busybox
ENV GREETING=hello
WORKDIR /srv/here
USER 1234:99
ENTRYPOINT ["/busybox", "env"]
CMD ["/busybox", "pwd"]
"""
    context = io.BytesIO()
    with tarfile.open(fileobj=context, mode="w") as tar:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        tar.addfile(info, io.BytesIO(dockerfile.encode()))

    async def build() -> None:
        engine = DockerEngine(None, Metrics(), LoopClock())
        try:
            await engine.build(context.getvalue(), STATIC_IMAGE, {})
        finally:
            await engine.close()

    asyncio.run(build())
    yield STATIC_IMAGE
    EngineView().request("DELETE", f"/images/{STATIC_IMAGE}", force="true")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, static_image: str) -> Iterator[Gateway]:
    functions = {
        "fresh": sh("cat /tmp/mark; echo used | tee /tmp/mark"),
        "ahead": command("true", min_instances=2),
        "kept": sh("cat /tmp/mark; echo used | tee /tmp/mark", reuse=True),
        "children": sh("pidof sleep | wc -w; sleep 1000 & sleep 1000 & exit 0", reuse=True),
        "count": command("wc", "-c", **TOGETHER),
        "status": sh("read n; echo one >&2; echo last line >&2; exit $n", reuse=True),
        "signal": sh("kill -SEGV $$", reuse=True),
        "greedy": sh("x=$(head -c 60m /dev/zero | tr '\\0' a); echo no", memory="16MiB", reuse=True),
        "slow": command("sleep", "60", timeout="300ms", reuse=True),
        "missing": command("no-such-program"),
        "echo": command("cat", stream=True, max_body="1GiB", max_response="1GiB", timeout="60s"),
        "late": command("cat", max_body="1GiB", max_response="1GiB", timeout="60s"),
        "steps": sh("head -c 100000 | wc -c; wc -c", stream=True, content_type="text/plain"),
        "breaks": sh("head -c 3000000 /dev/zero; exit 3"),
        "bytes": sh('printf %s "$HTTP_X_TAG" | od -An -tx1'),
        "static": {"image": static_image, "user": "image"},
        "static-own": {"image": static_image, "command": ["/busybox", "id", "-u"]},
    }
    with Gateway(tmp_path_factory.mktemp("commands"), functions) as running:
        yield running


def detail(gateway: Gateway, function: str, **more: object) -> str:
    """Why a call failed."""
    answer = gateway.call(function, **more)
    assert (answer.status_code, answer.json()["type"]) == (502, "urn:hearth:problem:command-failed"), (
        answer.text
    )
    return str(answer.json()["detail"])


def test_each_call_has_a_container_that_nobody_has_used(gateway: Gateway):
    assert [gateway.call("fresh").text for _ in range(3)] == ["used\n"] * 3
    assert gateway.pool("fresh")["starts"]["warm"] == 0


def test_a_container_that_was_started_ahead_serves_at_once(gateway: Gateway):
    for _ in range(3):
        eventually(lambda: [i["state"] for i in gateway.instances("ahead")] == ["idle", "idle"])
        assert gateway.call("ahead").headers["x-hearth-start"] == "prewarmed"


def test_reuse_keeps_the_container_and_what_is_in_it(gateway: Gateway):
    assert gateway.call("kept").text == "used\n"
    assert gateway.call("kept").text == "used\nused\n"
    assert gateway.pool("kept")["starts"]["warm"] == 1
    assert len(gateway.instances("kept")) == 1


def test_nothing_that_a_run_has_started_lives_on(gateway: Gateway):
    assert [gateway.call("children").text for _ in range(4)] == ["0\n"] * 4


def test_a_thousand_runs_in_one_container_leave_nothing_behind(gateway: Gateway):
    def run(number: int) -> bool:
        return gateway.call("count", content=b"x" * number).text == f"{number}\n"

    assert run(1)
    (instance,) = gateway.instances("count")
    pid = gateway.engine.request("GET", f"/containers/{instance['container']}/json")["State"]["Pid"]
    found = cgroup.find(pid)
    assert found is not None
    before = open_files(pid)
    assert all(in_parallel(run, 1000, clients=8))
    assert [i["id"] for i in gateway.instances("count")] == [instance["id"]]
    assert gateway.pool("count")["starts"]["cold"] == 1
    eventually(lambda: found.processes() == 1)
    assert open_files(pid) == before
    assert found.memory_in_use() < 2**20


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_the_status_and_the_last_line_are_in_the_problem(gateway: Gateway):
    assert detail(gateway, "status", content=b"3") == "the command ended with exit status 3: last line"
    answer = gateway.call("status", content=b"0")
    assert answer.status_code == 200
    assert gateway.logs(answer) == "one\nlast line\n"
    assert gateway.call("status", content=b"0").headers["x-hearth-start"] == "warm", (
        "a failure ends no container"
    )


def test_a_signal_and_a_want_of_memory_are_told(gateway: Gateway):
    for _ in range(2):
        assert detail(gateway, "signal") == "the command was ended by signal 11 (SIGSEGV)"
    for _ in range(2):
        assert detail(gateway, "greedy").startswith("the command was killed for want of memory (16 MiB)")


def test_a_run_that_takes_too_long_is_ended(gateway: Gateway):
    answer = gateway.call("slow")
    assert (answer.status_code, answer.json()["type"]) == (504, "urn:hearth:problem:timeout")
    eventually(lambda: gateway.instances("slow") == [])


def test_a_program_that_is_not_there_is_told(gateway: Gateway):
    assert detail(gateway, "missing").startswith("the command cannot be run: ")
    assert "no-such-program" in detail(gateway, "missing")


def test_much_goes_both_ways_at_once(gateway: Gateway):
    """The client reads while it sends, and 100 MiB are nowhere whole."""
    count = 1600
    connection = gateway.raw()
    connection.putrequest("POST", "/invoke/echo")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()

    def send() -> None:
        for _ in range(count):
            connection.send(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
        connection.send(b"0\r\n\r\n")

    sending = threading.Thread(target=send)
    sending.start()
    response = connection.getresponse()
    memory = gateway.memory()
    most = memory
    for _ in range(count):
        assert response.read(len(PIECE)) == PIECE
        most = max(most, gateway.memory()) if _ % 100 == 0 else most
    assert response.read() == b""
    sending.join()
    connection.close()
    assert most < memory + 32 * 2**20


def test_a_client_may_send_everything_before_it_reads(gateway: Gateway):
    body = PIECE * 640
    answer = gateway.call("late", content=body)
    assert answer.status_code == 200
    assert answer.content == body


def test_a_stream_comes_as_the_program_writes(gateway: Gateway):
    connection, response = first_step(gateway)
    assert (response.status, response.getheader("content-type")) == (200, "text/plain")
    connection.send(b"3\r\ngo!\r\n0\r\n\r\n")
    assert response.read() == b"3\n"
    connection.close()


def first_step(gateway: Gateway) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A call whose program has read the first of its input, has said so, and waits for more."""
    connection = gateway.raw()
    connection.putrequest("POST", "/invoke/steps")
    connection.putheader("transfer-encoding", "chunked")
    connection.endheaders()
    connection.send(b"%x\r\n%b\r\n" % (100_000, bytes(100_000)))
    response = connection.getresponse()
    assert response.readline() == b"100000\n"
    return connection, response


def test_a_failure_after_much_output_breaks_the_answer_off(gateway: Gateway):
    connection = gateway.raw()
    connection.request("POST", "/invoke/breaks")
    response = connection.getresponse()
    assert response.status == 200
    with pytest.raises(http.client.IncompleteRead):
        response.read()
    connection.close()
    id = response.getheader("x-invocation-id")
    (record,) = [call for call in gateway.http.get("/calls").json()["calls"] if call["id"] == id]
    assert record["outcome"] == "command-failed"


def test_a_client_that_leaves_ends_the_program(gateway: Gateway):
    connection, _ = first_step(gateway)
    connection.sock.shutdown(socket.SHUT_RDWR)
    connection.close()
    eventually(lambda: not any(i["state"] == "busy" for i in gateway.instances("steps")))


def test_a_field_arrives_byte_by_byte(gateway: Gateway):
    connection = gateway.raw()
    connection.putrequest("POST", "/invoke/bytes")
    connection.putheader("x-tag", "Zoë 100 %".encode())
    connection.putheader("content-length", "0")
    connection.endheaders()
    assert bytes.fromhex(connection.getresponse().read().decode()) == "Zoë 100 %".encode()
    connection.close()


def test_an_image_with_nothing_but_one_static_program(gateway: Gateway):
    assert gateway.call("static").text == "/srv/here\n"
    assert gateway.call("static-own").text.strip() not in ("", "0", "1234")


def test_kept_containers_are_adopted_and_others_are_not(tmp_path: Path):
    functions = {
        "kept": sh("cat /tmp/mark; echo used | tee /tmp/mark", reuse=True, concurrency=2),
        "ahead": command("true", min_instances=1),
        "busy": command("sleep", "60", reuse=True, timeout="60s"),
    }
    with Gateway(tmp_path, functions) as gateway:
        assert gateway.call("kept").text == "used\n"
        threading.Thread(target=lambda: call_that_is_lost(gateway), daemon=True).start()
        eventually(lambda: [i["state"] for i in gateway.instances("busy")] == ["busy"])
        eventually(lambda: [i["state"] for i in gateway.instances("ahead")] == ["idle"])
        before = {i["function"]: i["container"] for i in gateway.instances()}
        gateway.stop(signal.SIGKILL)
        gateway.launch()
        gateway.wait_until_ready()
        assert gateway.call("kept").text == "used\nused\n"
        after = {i["function"]: i["container"] for i in gateway.instances()}
        assert after["kept"] == before["kept"]
        assert after.get("ahead") != before["ahead"]
        if "busy" in after:  # init has ended the run of the process that was killed
            assert after["busy"] == before["busy"]
            top = gateway.engine.request("GET", f"/containers/{after['busy']}/top")
            assert len(top["Processes"]) == 1


def call_that_is_lost(gateway: Gateway) -> None:
    connection = gateway.raw()
    try:
        connection.request("POST", "/invoke/busy")
        connection.getresponse()
    except (OSError, http.client.HTTPException):
        pass
    finally:
        connection.close()
