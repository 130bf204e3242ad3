"""`sources:` of functions.yaml, and every fault in it by position."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from scheduler.definitions.brokers import BrokerDefinition, JetStream, MqttTopic, RedisStream
from scheduler.definitions.file import DefinitionsError, load

HEAD = "version: 1\nfunctions: {f: {image: x}}\nsources:\n"


def read(folder: Path, text: str) -> dict[str, BrokerDefinition]:
    (folder / "functions.yaml").write_text(HEAD + text)
    return load(folder / "functions.yaml").sources


def test_each_kind_with_its_defaults(tmp_path: Path) -> None:
    sources = read(
        tmp_path,
        "  a: {redis: {url: 'redis://h:6379/0', stream: orders}}\n"
        "  b: {nats: {url: 'nats://h', stream: ORDERS}, function: f, type: t, source: /s, in_hand: 1}\n"
        "  c: {mqtt: {url: 'mqtts://h', topic: 'a/+/#'}}\n",
    )
    assert [(source.name, source.kind) for source in sources.values()] == [
        ("a", "redis"),
        ("b", "nats"),
        ("c", "mqtt"),
    ]
    assert sources["a"].broker == RedisStream(
        url="redis://h:6379/0", stream="orders", group="hearth", begin="oldest", claim_after="1m"
    )
    assert sources["b"].broker == JetStream(
        url="nats://h", stream="ORDERS", subject=">", durable="hearth", begin="oldest", ack_wait="30s"
    )
    assert sources["c"].broker == MqttTopic(url="mqtts://h", topic="a/+/#", session="7d")
    assert (sources["a"].function, sources["a"].in_hand) == (None, 32)
    assert (sources["b"].function, sources["b"].type, sources["b"].source) == ("f", "t", "/s")


def test_the_url_can_come_from_a_variable_and_is_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ORDERS_URL", "redis://:secret@h:6379/0")
    by_variable = read(tmp_path, "  a: {redis: {url_env: ORDERS_URL, stream: s}}\n")["a"]
    assert by_variable.broker.address == "redis://:secret@h:6379/0"
    written = read(tmp_path, "  a: {redis: {url: 'redis://:secret@h:6379/0', stream: s}}\n")["a"]
    assert written.broker.address == by_variable.broker.address
    assert "secret" not in f"{by_variable!r}{written!r}{written}"


FAULTS = (
    ("  a: §5\n", "must be a mapping with one of redis, nats, mqtt, not 5"),
    ("  a: §{}\n", "must have one of redis, nats, mqtt; it has none"),
    (
        "  a: §{redis: {url: 'redis://h', stream: s}, mqtt: {url: 'mqtt://h', topic: t}}\n",
        "it has redis, mqtt",
    ),
    ("  a: {redis: §7}\n", "must be a mapping with url, url_env, stream,"),
    ("  a: {redis: §{stream: s}}\n", "`url` is missing"),
    ("  a: {redis: {url: 'redis://h', url_env: §X, stream: s}}\n", "`url` is written too"),
    ("  a: {redis: {url_env: §NOBODY_SET_THIS, stream: s}}\n", "has no variable 'NOBODY_SET_THIS'"),
    ("  a: {redis: {url_env: §'a b', stream: s}}\n", "must be the name of an environment variable"),
    ("  a: {redis: {url: §'http://u:secret@h', stream: s}}\n", "must be a URL, redis://HOST:PORT or"),
    ("  a: {redis: {url: §'redis://h:99999', stream: s}}\n", "must be a URL"),
    ("  a: {redis: {url: §'redis://', stream: s}}\n", "must be a URL"),
    ("  a: {redis: {url: §5, stream: s}}\n", "must be a URL"),
    ("  a: {redis: §{url: 'redis://h'}}\n", "is missing; write it"),
    ("  a: {redis: {url: 'redis://h', stream: s, claim_after: §1ms}}\n", "must be from 1s to 24h"),
    ("  a: {nats: {url: 'nats://h', stream: §a.b}}\n", "must be 1 to 64 letters, digits, - or _"),
    ("  a: {nats: {url: 'nats://h', stream: s, begin: §now}}\n", "must be 'oldest' or 'newest'"),
    ("  a: {mqtt: {url: 'mqtt://h', topic: §'a b'}}\n", "without spaces"),
    ("  a: {mqtt: {url: 'mqtt://h', topic: t, qos: §0}}\n", "there is no key 'qos'"),
    ("  a: {mqtt: {url: 'mqtt://h', topic: t}, in_hand: §0}\n", "must be a whole number from 1 to 1000"),
    ("  a: {mqtt: {topic: t, url: 'mqtt://h'}, function: §g}\n", "there is no function 'g'; allowed: f"),
    ("  a: {mqtt: {topic: t, url: 'mqtt://h'}, function: §G}\n", "to be a function's name"),
    ("  a: {mqtt: {topic: t, url: 'mqtt://h'}, source: §'//[x'}\n", "must be a URI"),
    ("  A: §{mqtt: {topic: t, url: 'mqtt://h'}}\n", "to be a source's name"),
    ("  a: {mqtt: 5, in_hand: §x}\n", "must be a whole number"),
)


@pytest.mark.parametrize(("text", "message"), FAULTS)
def test_faults_have_a_place(text: str, message: str, tmp_path: Path) -> None:
    before = (HEAD + text).partition("§")[0]
    line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
    with pytest.raises(DefinitionsError) as caught:
        read(tmp_path, text.replace("§", ""))
    faults = [fault for fault in caught.value.faults if (fault.line, fault.column) == (line, column)]
    assert any(message in fault.message for fault in faults), caught.value
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("module", "keys", "extra"),
    [
        ("redis", "redis: §{url: 'redis://h', stream: s}", "redis"),
        ("nats", "nats: §{url: 'nats://h', stream: s}", "nats"),
        ("paho", "mqtt: §{url: 'mqtt://h', topic: t}", "mqtt"),
    ],
)
def test_a_missing_extra_is_a_fault_that_says_how_to_get_it(
    module: str, keys: str, extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name == module or name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    test_faults_have_a_place(f"  a: {{{keys}}}\n", f"pip install 'hearth-faas[{extra}]'", tmp_path)
