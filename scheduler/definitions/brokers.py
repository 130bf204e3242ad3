"""Brokers, from `sources` of functions.yaml: Redis, NATS and MQTT servers whose messages become events."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, Field

from scheduler.definitions.language import key_types as types
from scheduler.definitions.language import rules
from scheduler.definitions.language.faults import shown
from scheduler.definitions.language.located_model import Keys, Reader, listed, no_such
from scheduler.definitions.language.located_yaml import KeyPath
from scheduler.definitions.language.units import Duration, duration_between

Text = Annotated[str, types.text(r"[!-~]{1,255}", "1 to 255 printable ASCII characters without spaces")]
BrokerName = Annotated[
    str,
    types.text(
        types.NAME, "1 to 63 lower-case letters, digits, - or _ with a letter first, to be a source's name"
    ),
]
Name = Annotated[str, types.text(r"[A-Za-z0-9_-]{1,64}", "1 to 64 letters, digits, - or _")]


def split_url(url: str, schemes: Collection[str]) -> SplitResult:
    """Return the parts of a broker's URL. Raises ValueError without the URL, which may hold a password."""
    examples = " or ".join(f"{s}:///PATH" if s == "unix" else f"{s}://HOST:PORT" for s in schemes)
    try:
        parts = urlsplit(url)
        reached = parts.path if parts.scheme == "unix" else parts.hostname and (parts.port or "default")
    except ValueError:
        reached = None
    if not reached or parts.scheme not in schemes:
        raise ValueError(f"must be a URL, {examples}")
    return parts


class BrokerKeys(Keys):
    """The keys that all kinds of broker share: the server's URL, or the name of a variable that holds it."""

    SCHEMES: ClassVar[tuple[str, ...]]

    url: Annotated[str | None, Field(repr=False)] = None
    url_env: (
        Annotated[str, types.text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")] | None
    ) = None

    @property
    def address(self) -> str:
        """Return the URL. `url_env` is read from the environment now; "" if the variable is not set."""
        return self.url or os.environ.get(self.url_env or "", "")

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """Yield the faults between these keys."""
        url, variable = keys.get("url"), keys.get("url_env")
        if url is None and variable is None:
            yield "", "`url` is missing; write it, or `url_env` with the name of a variable that holds it"
        elif url is not None and variable is not None:
            yield "url_env", "`url` is written too; remove one of the two"
        elif url is not None:
            yield from _url_faults("url", url, cls.SCHEMES, "")
        elif isinstance(variable, str):
            given = os.environ.get(variable)
            if given is None:
                yield (
                    "url_env",
                    f"the gateway has no variable {shown(variable)}; set it and start the gateway again",
                )
            else:
                yield from _url_faults("url_env", given, cls.SCHEMES, f"the variable {variable} ")


class RedisStream(BrokerKeys):
    """A Redis stream, read as a member of a consumer group."""

    SCHEMES = ("redis", "rediss", "unix")

    stream: Text
    group: Text = "hearth"
    begin: Literal["oldest", "newest"] = "oldest"
    """Where a new group begins: with all entries of the stream, or with the next one."""
    field: Text | None = None
    """Field of an entry that becomes the event's data; None takes all fields, as a JSON object."""
    claim_after: Annotated[Duration, duration_between("1s", "24h")] = 60.0
    """Seconds after which we claim an entry that another consumer has not acknowledged."""


class JetStream(BrokerKeys):
    """A stream of NATS JetStream, read by a durable consumer."""

    SCHEMES = ("nats", "tls")

    stream: Name
    subject: Text = ">"
    """Filter of the stream's subjects."""
    durable: Name = "hearth"
    ack_wait: Annotated[Duration, duration_between("1s", "24h")] = 30.0
    """Seconds after which the server delivers again a message that was not acknowledged."""
    begin: Literal["oldest", "newest"] = "oldest"
    """Where a new consumer begins: with all messages of the stream, or with the next one."""


class MqttTopic(BrokerKeys):
    """Topics of an MQTT 5 server, subscribed to with QoS 1 in a session that the server keeps."""

    SCHEMES = ("mqtt", "mqtts")

    topic: Text
    """Topic filter; `+` and `#` match levels."""
    client_id: Name | None = None
    """Client id of the session; None builds it from the gateway's identity and the broker's name."""
    session: Annotated[Duration, duration_between("1s", "365d")] = 7 * 86400.0
    """Seconds that the server keeps messages for us while we are disconnected."""


BROKER_KINDS: dict[str, tuple[type[BrokerKeys], str]] = {
    "redis": (RedisStream, "redis"),
    "nats": (JetStream, "nats"),
    "mqtt": (MqttTopic, "paho.mqtt"),
}
"""By key: the model of its keys, and the module that the extra of the same name installs."""


def _is_uri(value: str) -> str:
    try:
        urlsplit(value)
    except ValueError:
        raise ValueError(f"must be a URI, not {shown(value)}") from None
    return value


class MessageHandling(Keys):
    """The keys, shared by all kinds of broker, that say how messages become events."""

    function: types.FunctionName | None = None
    """Function that is called with each event; None passes the event to the triggers."""
    type: Text | None = None
    """`type` of the events; None means `hearth.KIND.message`."""
    source: Annotated[Text, AfterValidator(_is_uri)] | None = None
    """`source` of the events; None means the broker's address without credentials."""
    in_hand: Annotated[int, types.whole(1, 1000)] = 32
    """Messages that are received and not yet acknowledged, at most."""


class BrokerDefinition(MessageHandling):
    """One broker as functions.yaml declares it under `sources`."""

    name: BrokerName
    broker: RedisStream | JetStream | MqttTopic

    @property
    def kind(self) -> str:
        """Return `redis`, `nats` or `mqtt`."""
        return next(kind for kind, (model, _) in BROKER_KINDS.items() if isinstance(self.broker, model))


def read_brokers(
    reader: Reader, given: Mapping[str, object], functions: Collection[str]
) -> dict[str, BrokerDefinition]:
    """Return the brokers under `sources` that have no fault. `functions` are the names that they may call."""
    read = {name: _read_source(reader, name, keys, functions) for name, keys in given.items()}
    return {name: source for name, source in read.items() if source is not None}


def _read_source(
    reader: Reader, name: str, given: object, functions: Collection[str]
) -> BrokerDefinition | None:
    path: KeyPath = ("sources", name)
    if not isinstance(given, dict):
        reader.fault(path, f"must be a mapping with one of {listed(BROKER_KINDS)}, not {shown(given)}")
        return None
    keys = reader.known(given, (*BROKER_KINDS, *MessageHandling.model_fields), path)
    brokers = {kind: keys.pop(kind) for kind in BROKER_KINDS if kind in keys}
    if len(brokers) != 1:
        found = f"it has {listed(brokers)}" if brokers else "it has none"
        reader.fault(path, f"must have one of {listed(BROKER_KINDS)}; {found}")
    read = [_read_broker(reader, kind, own, (*path, kind)) for kind, own in brokers.items()]
    called = keys.get("function")
    if isinstance(called, str) and re.fullmatch(types.NAME, called) and called not in functions:
        reader.fault((*path, "function"), no_such("function", called, sorted(functions)))
    if len(read) != 1 or read[0] is None:
        reader.model(MessageHandling, keys, keys, path)  # to record the other faults too
        return None
    return reader.model(BrokerDefinition, {**keys, "name": name, "broker": read[0]}, keys, path)[0]


def _read_broker(reader: Reader, kind: str, given: object, path: KeyPath) -> BrokerKeys | None:
    model, module = BROKER_KINDS[kind]
    if not _is_installed(module):
        reader.fault(path, f"needs a package that is not installed; run pip install 'hearth-faas[{kind}]'")
    if not isinstance(given, dict):
        reader.fault(path, f"must be a mapping with {listed(model.model_fields)}, not {shown(given)}")
        return None
    keys = reader.known(given, tuple(model.model_fields), path)
    return reader.model(model, keys, keys, path)[0]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is missing
        return False


def _url_faults(key: str, url: object, schemes: Collection[str], what: str) -> Iterator[rules.Blame]:
    try:
        split_url(str(url), schemes)
    except ValueError as error:
        yield key, f"{what}{error}"
