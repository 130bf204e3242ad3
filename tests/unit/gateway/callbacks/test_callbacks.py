"""Callbacks: where they may go, how they are signed, and when they are tried again (virtual time, real store)."""

from __future__ import annotations

import asyncio
import ipaddress
import stat
from base64 import b64decode, b64encode
from collections import Counter, deque
from pathlib import Path

import pytest

from gateway.callbacks.deliverer import MAX_AT_ONCE, MAX_PER_HOST, Deliverer
from gateway.callbacks.sender import Sender, SendResult
from gateway.callbacks.signing import load_or_create_secret, parse_secret, signed_headers
from pool.clock import LoopClock
from scheduler.calls.callbacks import (
    CALLBACK_RETRY,
    MAX_ATTEMPTS,
    Callbacks,
    CallbackStatus,
    Delivery,
)
from scheduler.definitions.language.call_overrides import (
    CallOverrides,
    RetryPolicy,
    overrides_from_json,
    overrides_to_json,
)
from scheduler.definitions.language.callback_allow import Allowed, is_public, parse_callback
from scheduler.store.sqlite.callbacks import SqliteCallbackStore
from tests.support.lease_owners import take_all_leases
from tests.support.virtual_worker import FAILED, RETENTION, World

URL = "https://hooks.example.com/done?key=k"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("ftp://a.example/", "must begin with"),
        ("//a.example/", "must begin with"),
        ("https:///path", "must have a host"),
        ("https://user:word@a.example/", "must not hold a user name"),
        ("https://a.example/#part", "must not have a fragment"),
        ("https://a.example/a b", "without spaces"),
        ("https://a.example/\r\nx: y", "without spaces"),
        ("https://ä.example/", "without spaces"),
        ("https://a.example:99999/", "is not a URL"),
        ("https://[::1/", "is not a URL"),
        ("https://[v1.a.example]/", "must have a host"),
        ("https://a.example\\@b.example/", "must begin with"),
        ("http://127.1/", "must have a host"),
        ("http://0x7f000001/", "must have a host"),
        ("http://2130706433/", "must have a host"),
        ("https://a.example/" + "x" * 2000, "at most 2000"),
    ],
)
def test_a_url_that_cannot_be_a_callbacks_says_why(url: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_callback(url)
    assert "the callback" in (Allowed(["*", "0.0.0.0/0"]).fault_of(url) or "")


def test_nothing_is_allowed_but_what_is_listed() -> None:
    assert "HEARTH_CALLBACK_ALLOW has nothing" in (Allowed().fault_of(URL) or "")
    names = Allowed(["Hooks.Example.com", "*.corp.example"])
    for url in (URL, "http://HOOKS.example.com.:81/", "https://a.b.corp.example/"):
        assert names.fault_of(url) is None
    for url in (
        "https://example.com/",
        "https://corp.example/",
        "https://xcorp.example/",
        "http://10.0.0.1/",
    ):
        assert "is not allowed" in (names.fault_of(url) or "")
    numbers = Allowed(["10.0.0.0/24", "[::1]"])
    assert numbers.fault_of("http://10.0.0.9/") is None and numbers.fault_of("http://[::1]:5/") is None
    assert numbers.fault_of("http://[::ffff:10.0.0.9]/") is None
    for url in ("http://10.0.1.9/", "http://169.254.169.254/", "http://93.184.216.34/", URL):
        assert numbers.fault_of(url) is not None
    assert Allowed(["*"]).fault_of("http://127.0.0.1/") is not None, "an address is no name"
    for entry in ("https://a.example", "a b", "*.*.example", "10.0.0.1/24", ""):
        with pytest.raises(ValueError, match="write a name like"):
            Allowed([entry])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1",
        "fec0::1", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "::ffff:169.254.169.254",
    ],
)  # fmt: skip
def test_a_name_leads_to_no_address_that_is_not_public_unless_it_is_listed(address: str) -> None:
    place = parse_callback(URL)
    assert not is_public(ipaddress.ip_address(address))
    assert Allowed(["*"]).usable(place, [address]) is None
    assert Allowed(["*"]).usable(place, [address, "93.184.216.34"]) == "93.184.216.34"
    assert Allowed(["*", address]).usable(place, [address]) == address


def test_secrets_are_made_once_for_their_owner_only(tmp_path: Path) -> None:
    made = load_or_create_secret(tmp_path)
    file = tmp_path / "callback-secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_or_create_secret(tmp_path) == made == parse_secret(file.read_text()) and len(made) == 32
    assert [f.name for f in tmp_path.iterdir()] == [file.name]
    for text in (
        "",
        "whsec_",
        "whsec_!",
        b64encode(bytes(32)).decode(),
        "whsec_" + b64encode(b"short").decode(),
    ):
        with pytest.raises(ValueError, match="must be whsec_"):
            parse_secret(text)
    file.write_text("nonsense")
    with pytest.raises(OSError, match="callback-secret must be whsec_"):
        load_or_create_secret(tmp_path)


def test_the_signature_is_that_of_standard_webhooks() -> None:
    # The example of its specification.
    secret = b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_terms_remember_their_callback() -> None:
    overrides = CallOverrides(callback=URL)
    assert overrides_from_json(overrides_to_json(overrides)) == overrides
    assert overrides_from_json('{"policy": null, "timeout": null, "context": []}').callback is None


def test_pauses_grow_up_to_a_bound() -> None:
    assert [CALLBACK_RETRY.pause(n) for n in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert CALLBACK_RETRY.pause(MAX_ATTEMPTS) == CALLBACK_RETRY.pause(10**6) == CALLBACK_RETRY.longest


async def test_the_connection_goes_to_the_address_that_was_checked_and_no_redirect_is_followed() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        place = b"location: http://127.0.0.1:1/\r\n"
        writer.write(b"HTTP/1.1 %b\r\n%bcontent-length: 0\r\n\r\n" % (answers.pop(0), place))
        await writer.drain()
        writer.close()

    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["169.254.169.254", "127.0.0.1"]

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    answers = [b"204 No Content", b"302 Found", b"410 Gone"]
    url = f"http://inside.example:{port}/a?b=c"
    delivery = Delivery("msg_1", url, "inside.example", b"{}", 0)
    sender = Sender(Allowed(["inside.example", "127.0.0.1"]), bytes(32), LoopClock(), resolve)
    refused = Sender(Allowed(["inside.example"]), bytes(32), LoopClock(), resolve)
    nowhere = Sender(Allowed(["x.invalid"]), bytes(32), LoopClock())
    try:
        assert await sender(delivery) == SendResult()
        assert await sender(delivery) == SendResult("answered with status 302")
        assert await sender(delivery) == SendResult("answered with status 410", final=True)
        assert asked == ["inside.example"] * 3, "one look-up for each attempt"
        assert seen[0].startswith(b"POST /a?b=c HTTP/1.1\r\n")
        assert f"host: inside.example:{port}\r\n".encode() in seen[0].lower()
        attempt = await refused(delivery)
        assert "no address that callbacks may go to" in (attempt.fault or "") and not attempt.final
        assert "169.254" not in (attempt.fault or ""), "it is shown to whoever has asked for the callback"
        assert len(seen) == 3
        attempt = await nowhere(Delivery("msg_2", "http://x.invalid/", "x.invalid", b"{}", 0))
        assert "cannot look up the name" in (attempt.fault or "")
        attempt = await nowhere(delivery)
        assert "is not allowed" in (attempt.fault or "") and attempt.final
    finally:
        await sender.close()
        server.close()
        await server.wait_closed()


class Receiver:
    """Is sent callbacks; fails as often as it is told to."""

    def __init__(self, world: World, fails: int = 0) -> None:
        self.world = world
        self.fails = fails
        self.seen: list[tuple[float, str]] = []
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.seconds = 0.0

    async def __call__(self, delivery: Delivery) -> SendResult:
        self.seen.append((self.world.clock.now(), delivery.message))
        self.running[delivery.host] += 1
        self.most[delivery.host] = max(self.most[delivery.host], self.running[delivery.host])
        try:
            await self.world.clock.sleep(self.seconds)
        finally:
            self.running[delivery.host] -= 1
        self.fails -= 1
        return SendResult("no" if self.fails >= 0 else None)

    def deliverer(self, allowed: tuple[str, ...] = ("hooks.example.com",)) -> Deliverer:
        """Put between the worker of the world and this."""
        world = self.world
        world.worker.followers.append(Callbacks(world.plan_of, Allowed(allowed)))
        made = Deliverer(
            SqliteCallbackStore(world.writer), world.clock, world.metrics, self, world.settings.leases
        )
        world.worker.on_followed.append(made.begun)
        made.start(world.supervisor)
        return made


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "calls.db")


async def close(world: World, deliverer: Deliverer) -> None:
    await world.worker.close()
    await deliverer.close()
    await world.store.close()


async def test_a_callback_is_tried_again_until_it_is_delivered_also_by_the_next_process(world: World) -> None:
    receiver = Receiver(world, fails=3)
    deliverer = receiver.deliverer()
    (id,) = await world.accept(overrides=CallOverrides(callback=URL))
    await world.start()
    await world.advance(2.5)
    assert len(receiver.seen) == 2, "at its end, and about a second later"
    await deliverer.close()
    await world.kill()

    deliverer = receiver.deliverer()
    await world.start()
    await world.advance(60)
    assert len(receiver.seen) == 4 and len({message for _, message in receiver.seen}) == 1
    record = await SqliteCallbackStore(world.writer).of(id)
    assert record is not None and (record.status, record.attempts) == (CallbackStatus.DELIVERED, 4)
    await close(world, deliverer)


async def test_a_callback_that_is_never_taken_is_given_up_and_its_call_kept_until_then(world: World) -> None:
    receiver = Receiver(world, fails=1000)
    deliverer = receiver.deliverer()
    (id,) = await world.accept(overrides=CallOverrides(callback=URL))
    await world.start()
    store = SqliteCallbackStore(world.writer)
    await world.advance(1.2 * RETENTION)
    record = await store.of(id)
    assert record is not None and (record.status, record.fault) == (CallbackStatus.PENDING, "no")
    await world.advance(2 * 3600)
    assert len(receiver.seen) == MAX_ATTEMPTS
    assert await world.store.show(id) is None, "forgotten at last"
    await close(world, deliverer)


async def test_who_asks_for_none_has_none_and_what_is_not_allowed_any_more_is_not_sent(world: World) -> None:
    receiver = Receiver(world)
    deliverer = receiver.deliverer(allowed=())
    ids = [*await world.accept(overrides=CallOverrides(callback=URL)), *await world.accept()]
    ids += await world.accept(overrides=CallOverrides(callback=URL), owner="job:1", part="1")
    await world.start()
    await world.advance(10)
    store = SqliteCallbackStore(world.writer)
    records = [await store.of(id) for id in ids]
    assert records[1:] == [None, None] and receiver.seen == []
    assert records[0] is not None and records[0].status is CallbackStatus.GIVEN_UP
    assert "is not allowed" in (records[0].fault or "")
    await close(world, deliverer)


async def test_a_host_that_hangs_holds_no_other_up(world: World) -> None:
    receiver = Receiver(world)
    receiver.seconds = 100.0
    deliverer = receiver.deliverer(allowed=("*",))
    for n in range(3 * MAX_PER_HOST):
        await world.accept(overrides=CallOverrides(callback=f"https://slow.example/{n}"))
    await world.accept(overrides=CallOverrides(callback="https://z.example/"))
    await world.start()
    await world.advance(50)
    assert receiver.most == {"slow.example": MAX_PER_HOST, "z.example": 1}
    await world.advance(400)
    assert receiver.most["slow.example"] == MAX_PER_HOST and len(receiver.seen) == 3 * MAX_PER_HOST + 1
    await close(world, deliverer)


async def test_many_hosts_that_hang_hold_no_other_up(world: World) -> None:
    receiver = Receiver(world)
    receiver.seconds = 100.0
    deliverer = receiver.deliverer(allowed=("*",))
    for host in range(MAX_AT_ONCE // MAX_PER_HOST):
        for n in range(3 * MAX_PER_HOST):
            await world.accept(overrides=CallOverrides(callback=f"https://a{host}.example/{n}"))
    await world.start()
    await world.advance(90)
    assert receiver.running.total() == MAX_AT_ONCE
    await world.accept(overrides=CallOverrides(callback="https://z.example/"))
    world.worker.notify()
    await world.advance(120)
    assert receiver.most["z.example"] == 1, "it has the first place that is free"
    await close(world, deliverer)


async def test_a_call_that_ends_again_is_told_again(world: World) -> None:
    receiver = Receiver(world)
    deliverer = receiver.deliverer()
    world.answers.setdefault("f", deque([FAILED]))
    (id,) = await world.accept(overrides=CallOverrides(policy=RetryPolicy(attempts=1), callback=URL))
    await world.start()
    await world.advance(10)
    assert await world.store.run_again(id, world.clock.wall()) is not None
    world.worker.notify()
    await world.advance(10)
    assert len({message for _, message in receiver.seen}) == len(receiver.seen) == 2
    await close(world, deliverer)


async def test_a_process_that_was_taken_for_dead_delivers_again_and_records_once(world: World) -> None:
    receiver = Receiver(world)
    receiver.seconds = 5.0
    deliverer = receiver.deliverer()
    (id,) = await world.accept(overrides=CallOverrides(callback=URL))
    await world.start()
    await world.advance(2.0)
    assert len(receiver.seen) == 1
    before = world.settings.leases.owner
    await take_all_leases(world.writer)
    await world.advance(4.5)
    record = await SqliteCallbackStore(world.writer).of(id)
    assert record is not None and record.status is CallbackStatus.PENDING, "its lease was lost by then"
    await world.advance(6.0)
    assert world.settings.leases.owner != before
    record = await SqliteCallbackStore(world.writer).of(id)
    assert record is not None and (record.status, record.attempts) == (CallbackStatus.DELIVERED, 1)
    assert len(receiver.seen) == 2 and len({message for _, message in receiver.seen}) == 1
    registry = world.metrics.registry
    assert registry.get_sample_value("hearth_callbacks_total", {"outcome": "delivered"}) == 1
    await close(world, deliverer)
