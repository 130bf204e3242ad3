"""A client sends a request again only where nothing of it was sent: real sockets that close at each point."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import hearth
from hearth import Client
from hearth.transport import HeadWatch
from tests.support.faulty_gateway import (
    ACCEPTED,
    OK,
    Act,
    FaultyGateway,
    answer_once_and_close,
    answering,
    close_after_the_head,
    close_after_the_request,
    close_in_the_answer_s_body,
    close_in_the_answer_s_head,
    reset_after_the_request,
)

AFTER_THE_HEAD = [
    close_after_the_head,
    close_after_the_request,
    reset_after_the_request,
    close_in_the_answer_s_head,
    close_in_the_answer_s_body,
]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("act", AFTER_THE_HEAD)
def test_a_call_whose_head_has_gone_out_is_never_sent_again(act: Act) -> None:
    with FaultyGateway(act) as gateway, Client(gateway.url) as client:
        with pytest.raises(hearth.ConnectionLost, match="may have done its work") as raised:
            client.call("greet", {"a": 1})
        assert (len(gateway.heads), gateway.connections) == (1, 1)
        assert raised.value.blame == "platform"


@pytest.mark.parametrize("act", AFTER_THE_HEAD)
async def test_nor_is_it_by_the_client_for_asyncio(act: Act) -> None:
    with FaultyGateway(act) as gateway:
        async with hearth.AsyncClient(gateway.url) as client:
            with pytest.raises(hearth.ConnectionLost):
                await client.call("greet", {"a": 1})
        assert (len(gateway.heads), gateway.connections) == (1, 1)


def test_a_call_is_sent_again_where_nobody_listened() -> None:
    port = free_port()

    def listen() -> None:
        time.sleep(0.1)
        with socket.create_server(("127.0.0.1", port)) as listener:
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(OK)

    thread = threading.Thread(target=listen)
    thread.start()
    with Client(f"http://127.0.0.1:{port}") as client:
        assert client.call("greet") == 42
    thread.join()


def test_a_gateway_that_is_not_there_is_named() -> None:
    with (
        Client(f"http://127.0.0.1:{free_port()}") as client,
        pytest.raises(
            hearth.GatewayAbsent, match=r"no gateway answers at http://127\.0\.0\.1:\d+; start one"
        ),
    ):
        client.call("greet")


@pytest.mark.parametrize("asking", ["call", "submit"])
def test_a_pooled_connection_that_was_closed_meanwhile_costs_nothing(asking: str) -> None:
    with FaultyGateway(answer_once_and_close, answering(ACCEPTED)) as gateway, Client(gateway.url) as client:
        assert client.call("greet") == 42
        assert gateway.closed.wait(10)
        getattr(client, asking)("greet")
        assert (len(gateway.heads), gateway.connections) == (2, 2)


async def test_nor_does_it_with_asyncio() -> None:
    with FaultyGateway(answer_once_and_close, answering(OK)) as gateway:
        async with hearth.AsyncClient(gateway.url) as client:
            assert await client.call("greet") == 42
            assert gateway.closed.wait(10)
            assert [await client.call("greet") for _ in range(2)] == [42] * 2
        assert (len(gateway.heads), gateway.connections) == (3, 2)


async def test_asyncio_sends_a_submit_again_with_the_same_key() -> None:
    with FaultyGateway(reset_after_the_request, answering(ACCEPTED)) as gateway:
        async with hearth.AsyncClient(gateway.url) as client:
            assert (await client.submit("greet")).id == "i-1"
        assert len(gateway.keys()) == 2 and len(set(gateway.keys())) == 1


def test_a_connection_that_fails_before_the_head_is_whole_is_one_of_which_nothing_was_sent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The gateway closes between the pool's look at the connection and the first byte: the network is cut there."""
    sockets: list[socket.socket] = []
    connect, note = socket.create_connection, HeadWatch.note

    def connecting(*arguments: Any, **more: Any) -> socket.socket:
        sockets.append(connect(*arguments, **more))
        return sockets[-1]

    def cutting(watch: HeadWatch, event: str) -> None:
        note(watch, event)
        if event == "http11.send_request_headers.started" and len(gateway.heads) == 1 == len(sockets):
            sockets[0].shutdown(socket.SHUT_RDWR)

    monkeypatch.setattr(socket, "create_connection", connecting)
    monkeypatch.setattr(HeadWatch, "note", cutting)
    with FaultyGateway(answering(OK)) as gateway, Client(gateway.url) as client:
        assert client.call("greet") == 42
        assert client.call("greet") == 42
        assert (len(gateway.heads), len(sockets)) == (2, 2)


@pytest.mark.parametrize("act", AFTER_THE_HEAD)
def test_an_accepted_call_is_sent_again_with_the_same_key(act: Act) -> None:
    with FaultyGateway(act, act, answering(ACCEPTED)) as gateway, Client(gateway.url) as client:
        assert client.submit("greet", {"a": 1}).id == "i-1"
        assert len(gateway.keys()) == 3 and len(set(gateway.keys())) == 1
        client.submit("greet", {"a": 1})
        assert len(set(gateway.keys())) == 2


@pytest.mark.parametrize(
    "start",
    [
        lambda client: client.submit("greet", key="mine"),
        lambda client: client.workflows.start("gallery", {}, key="mine"),
        lambda client: client.jobs.run("dice", count=2, key="mine"),
    ],
)
def test_a_start_may_have_a_key_of_the_caller_s(start: Callable[[Client], Any]) -> None:
    with FaultyGateway(answering(ACCEPTED)) as gateway, Client(gateway.url) as client:
        assert start(client).id == "i-1"
        assert gateway.keys() == [b"mine"]


def test_silence_is_not_waited_for_without_an_end() -> None:
    let_go = threading.Event()

    def silent(conversation: Any) -> None:
        conversation.read_request()
        let_go.wait(10)

    with FaultyGateway(silent) as gateway, Client(gateway.url) as client:
        with pytest.raises(hearth.NoAnswer):
            client.call("greet", timeout=0.1)
        let_go.set()
        assert len(gateway.heads) == 1


def test_a_stream_that_is_cut_raises_after_its_pieces() -> None:
    def cut(conversation: Any) -> None:
        conversation.read_request()
        conversation.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")

    with FaultyGateway(cut) as gateway, Client(gateway.url) as client:
        pieces: list[bytes] = []
        with pytest.raises(hearth.ConnectionLost):
            pieces.extend(client.stream("greet"))
        assert pieces == [b"abc"] and len(gateway.heads) == 1


def test_a_call_that_fails_gives_its_connection_back() -> None:
    with FaultyGateway(close_after_the_request, answering(OK)) as gateway, Client(gateway.url) as client:
        with pytest.raises(hearth.ConnectionLost):
            client.call("greet")
        assert [client.call("greet") for _ in range(3)] == [42] * 3
        assert gateway.connections == 2


def test_a_key_goes_beside_an_authorization_that_is_for_the_function(monkeypatch: pytest.MonkeyPatch) -> None:
    key = "hth_abcdefgh_abcdefghijklmnopqrstuvwxyz234567"
    with FaultyGateway(answering(OK)) as gateway:
        monkeypatch.setenv("HEARTH_URL", gateway.url)
        monkeypatch.setenv("HEARTH_API_KEY", key)
        with Client() as client:
            client.call("greet")
            client.call("greet", headers={"Authorization": "Basic dGVzdA=="})
        first, second = (head.lower().decode() for head in gateway.heads)
    assert f"authorization: bearer {key}\r\n" in first and "x-hearth-key" not in first
    assert f"x-hearth-key: {key}\r\n" in second and "authorization: basic dgvzda==\r\n" in second
    assert second.count("authorization") == 1


def test_cookies_of_one_function_are_not_sent_to_another() -> None:
    cookie = OK.replace(b"\r\n\r\n", b"\r\nset-cookie: session=secret; path=/\r\n\r\n")
    with FaultyGateway(answering(cookie)) as gateway, Client(gateway.url) as client:
        client.call("one")
        client.call("other")
        assert len(gateway.heads) == 2 and b"cookie" not in gateway.heads[1].lower()
