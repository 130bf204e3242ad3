"""Webhooks without a gateway: what their own log is told of messages that strangers are told nothing about."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

import pytest

from gateway.http.problems import Problem
from gateway.webhooks.hooks import LOG_SECONDS, Hooks
from gateway.webhooks.signatures import MOST_SIGNATURES
from pool.clock import VirtualClock
from pool.observe.metrics import Metrics
from scheduler.definitions.triggers import TriggerDefinition
from scheduler.store.sqlite.calls import SqliteCallStore
from scheduler.store.sqlite.triggers import SqliteTriggerStore
from scheduler.store.sqlite.writer import Writer
from scheduler.triggers.triggers import Triggers


class World:
    """A gateway's webhooks: `push`, with a secret in HOOK, and `lost`, whose variable is not set."""

    def __init__(self, file: Path) -> None:
        self.clock = VirtualClock()
        writer = Writer(file)
        store = SqliteTriggerStore(writer, SqliteCallStore(writer, 2**20).room)
        self.triggers = Triggers(store, {}, self.clock, Metrics())
        self.declare(push={"secret_env": "HOOK"}, lost={"secret_env": "NOT_SET_7"})
        self.hooks = Hooks(self.triggers, self.clock)

    def declare(self, **webhooks: dict[str, object]) -> None:
        self.triggers.declare(
            {
                name: TriggerDefinition.model_validate(
                    {"name": name, "function": "f", "webhook": {"signature": "github", **webhook}}
                )
                for name, webhook in webhooks.items()
            }
        )

    def take(self, name: str, headers: dict[str, str]) -> str:
        """Take a message that comes in two pieces; the trigger that it is for."""
        message = self.hooks.message(name, headers)
        message.add(b"{")
        message.add(b"}")
        return self.hooks.event_of(message)[0].name

    def refusal(self, name: str, secret: bytes = b"wrong") -> str:
        """What a sender with this secret is told, the name left out."""
        signature = "sha256=" + hmac.new(secret, b"{}", hashlib.sha256).hexdigest()
        headers = {"x-hub-signature-256": signature, "x-github-event": "push", "x-github-delivery": "1"}
        with pytest.raises(Problem) as refused:
            self.take(name, headers)
        return f"{refused.value.slug}: {refused.value.detail.replace(name, 'NAME')}"

    def work(self, name: str, signatures: int) -> Counter[str]:
        """How often it hashes and compares for a message with so many wrong signatures of the standard way."""
        done: Counter[str] = Counter()

        def look(_: FrameType, event: str, called: object) -> None:
            if event == "c_call":
                done[getattr(called, "__name__", "")] += 1

        headers = {"webhook-id": "1", "webhook-timestamp": "0", "webhook-signature": "v1,x " * signatures}
        sys.setprofile(look)
        try:
            self.take(name, headers)
        except Problem as refused:
            assert refused.slug == "unauthorized"
        finally:
            sys.setprofile(None)
        return Counter({called: done[called] for called in ("hmac_new", "compare_digest")})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("HOOK", "secret")
    return World(tmp_path / "calls.db")


async def test_why_is_logged_and_not_more_often_than_strangers_should_write_logs(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        told = {world.refusal(name) for name in ("push", "lost", "nowhere") for _ in range(100)}
    assert told == {"unauthorized: there is no webhook 'NAME', or the message is not signed with its secret"}
    assert [record.getMessage().partition(" is not")[0] for record in caplog.records] == [
        "webhook push refuses a message: X-Hub-Signature-256",
        "webhook lost refuses a message: the variable NOT_SET_7",
    ]
    await world.clock.advance(LOG_SECONDS)
    world.refusal("push")
    assert len(caplog.records) == 3


def test_one_without_a_secret_is_not_signed_for_with_none(world: World) -> None:
    assert world.refusal("lost", b"") == world.refusal("nowhere", b"")


@pytest.mark.parametrize("name", ["push", "signed", "lost", "nowhere"])
def test_the_same_work_is_done_whatever_is_behind_a_name_and_no_more_for_a_long_header(
    world: World, name: str
) -> None:
    world.declare(
        push={"secret_env": "HOOK"},
        signed={"secret_env": "HOOK", "signature": "standard"},
        lost={"secret_env": "NOT_SET_7", "signature": "standard"},
    )
    assert world.work(name, 1) == {"hmac_new": 2, "compare_digest": 2}
    assert world.work(name, 12_000) == {"hmac_new": 2, "compare_digest": 1 + MOST_SIGNATURES}


def test_how_large_a_message_is_read_says_nothing_of_one_webhook(world: World) -> None:
    assert world.hooks.largest() == 2**20
    world.declare(
        push={"secret_env": "HOOK", "max_body": "1B"}, lost={"secret_env": "HOOK", "max_body": "2B"}
    )
    assert world.hooks.largest() == 2
    assert (
        world.refusal("push", b"secret")
        == "body-too-large: the body is over 1 bytes (max_body of the webhook)"
    )
    world.declare()
    assert world.hooks.largest() == 2**20


async def test_a_trigger_of_the_apis_takes_messages_only_with_a_secret_that_it_may_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that was made before there was a list."""
    world = World(tmp_path / "calls.db")
    world.declare()
    for variable in ("HOOK", "HEARTH_SECRET_HOOK"):
        monkeypatch.setenv(variable, "the secret")
    body = b"{}"
    signature = "sha256=" + hmac.new(b"the secret", body, hashlib.sha256).hexdigest()
    headers = {"x-hub-signature-256": signature, "x-github-event": "push", "x-github-delivery": "1"}
    with caplog.at_level(logging.WARNING, logger="hearth.triggers"):
        for name, variable in (("old", "HOOK"), ("new", "HEARTH_SECRET_HOOK")):
            webhook = {"signature": "github", "secret_env": variable}
            definition = json.dumps({"name": name, "function": "f", "webhook": webhook})
            await world.triggers.store.define(name, definition)
        await world.triggers.load()
    [line] = caplog.messages
    assert line.startswith(
        "trigger old, made over the API, refuses all messages: HOOK is not among the variables"
    )
    assert world.take("new", headers) == "new"
    assert world.refusal("old", b"the secret") == world.refusal("none", b"the secret")
    world.declare(old={"secret_env": "HOOK"})
    assert world.take("old", headers) == "old", "functions.yaml may name every variable"


@pytest.mark.parametrize(("name", "kept"), [("push", b"{}"), ("nowhere", b"")])
def test_nothing_is_kept_of_a_message_that_there_is_no_webhook_for(
    world: World, name: str, kept: bytes
) -> None:
    message = world.hooks.message(name, {})
    message.add(b"{")
    message.add(b"}")
    assert (message.take(), message.size) == (kept, 2)
    assert message.take() == b""
    message.add(b"x" * 2**20)
    assert (message.take(), message.size) == (b"", 2**20 + 2)
