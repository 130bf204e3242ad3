"""`sources:` of functions.yaml: queues whose messages are events."""

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
    """The parts of a broker's URL. Raises ValueError, without repeating the URL: it may hold a password."""
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
    """What the three kinds share: where the server is, as a URL or as the name of a variable that has it."""

    SCHEMES: ClassVar[tuple[str, ...]]

    url: Annotated[str | None, Field(repr=False)] = None
    url_env: (
        Annotated[str, types.text(r"[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable")] | None
    ) = None

    @property
    def address(self) -> str:
        """The URL. With `url_env` it is read from the environment now; empty if it is not there (any more)."""
        return self.url or os.environ.get(self.url_env or "", "")

    @classmethod
    def rule_faults(cls, keys: Mapping[str, Any]) -> Iterator[rules.Blame]:
        """What is wrong between these keys."""
        url, variable = keys.get("url"), keys.get("url_env")
        if url is None and variable is None:
            yield "", "`url` is missing; write it, or `url_env` with the name of a variable that has it"
        elif url is not None and variable is not None:
            yield "url_env", "`url` is there too; remove one of the two"
        elif url is not None:
            yield from _url_faults("url", url, cls.SCHEMES, "")
        elif isinstance(variable, str):
            given = os.environ.get(variable)
            if given is None:
                yield "url_env", f"the gateway has no variable {shown(variable)}; start it with one"
            else:
                yield from _url_faults("url_env", given, cls.SCHEMES, f"the variable {variable} ")


class RedisStream(BrokerKeys):
    """A stream, read as a member of a consumer group."""

    SCHEMES = ("redis", "rediss", "unix")

    stream: Text
    group: Text = "hearth"
    begin: Literal["oldest", "newest"] = "oldest"
    """Of the entries that are there already, when the group is made: all are read, or none."""
    field: Text | None = None
    """The field of an entry that is the event's data; None: all of them, as a JSON object."""
    claim_after: Annotated[Duration, duration_between("1s", "24h")] = 60.0
    """Seconds after which what another consumer has not acknowledged is taken over."""


class JetStream(BrokerKeys):
    """A stream of NATS JetStream, read by a durable consumer."""

    SCHEMES = ("nats", "tls")

    stream: Name
    subject: Text = ">"
    """Which of the stream's subjects are wanted."""
    durable: Name = "hearth"
    ack_wait: Annotated[Duration, duration_between("1s", "24h")] = 30.0
    """Seconds after which the server gives a message again that was not acknowledged."""
    begin: Literal["oldest", "newest"] = "oldest"
    """Of the messages that are there already, when the consumer is made: all are read, or none."""


class MqttTopic(BrokerKeys):
    """Topics of an MQTT 5 server, subscribed to with QoS 1 in a session that the server keeps."""

    SCHEMES = ("mqtt", "mqtts")

    topic: Text
    """A filter: `+` and `#` stand for levels."""
    client_id: Name | None = None
    """Of the session; None: made of the gateway's identity and the source's name."""
    session: Annotated[Duration, duration_between("1s", "365d")] = 7 * 86400.0
    """Seconds that the server keeps messages for us while we are away."""


BROKER_KINDS: dict[str, tuple[type[BrokerKeys], str]] = {
    "redis": (RedisStream, "redis"),
    "nats": (JetStream, "nats"),
    "mqtt": (MqttTopic, "paho.mqtt"),
}
"""By key: what it declares, and the module that an extra of the same name brings."""


def _is_uri(value: str) -> str:
    try:
        urlsplit(value)
    except ValueError:
        raise ValueError(f"must be a URI, not {shown(value)}") from None
    return value


class MessageHandling(Keys):
    """What becomes of a source's messages, whatever its kind."""

    function: types.FunctionName | None = None
    """Is called with each event; None: the triggers are asked."""
    type: Text | None = None
    """Of the events; None: `hearth.KIND.message`."""
    source: Annotated[Text, AfterValidator(_is_uri)] | None = None
    """Of the events; None: the broker's address without credentials."""
    in_hand: Annotated[int, types.whole(1, 1000)] = 32
    """Messages that are taken and not yet acknowledged, at most."""


class BrokerDefinition(MessageHandling):
    """A queue whose messages are events."""

    name: BrokerName
    broker: RedisStream | JetStream | MqttTopic

    @property
    def kind(self) -> str:
        """`redis`, `nats` or `mqtt`."""
        return next(kind for kind, (model, _) in BROKER_KINDS.items() if isinstance(self.broker, model))


def read_brokers(
    reader: Reader, given: Mapping[str, object], functions: Collection[str]
) -> dict[str, BrokerDefinition]:
    """The sources at `sources`, without those at fault. `functions` are those that they may call."""
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
        found = f"{listed(brokers)} are here" if brokers else "none is here"
        reader.fault(path, f"must have one of {listed(BROKER_KINDS)}; {found}")
    read = [_read_broker(reader, kind, own, (*path, kind)) for kind, own in brokers.items()]
    called = keys.get("function")
    if isinstance(called, str) and re.fullmatch(types.NAME, called) and called not in functions:
        reader.fault((*path, "function"), no_such("function", called, sorted(functions)))
    if len(read) != 1 or read[0] is None:
        reader.model(MessageHandling, keys, keys, path)  # what else is wrong with it is told as well
        return None
    return reader.model(BrokerDefinition, {**keys, "name": name, "broker": read[0]}, keys, path)[0]


def _read_broker(reader: Reader, kind: str, given: object, path: KeyPath) -> BrokerKeys | None:
    model, module = BROKER_KINDS[kind]
    if not _is_installed(module):
        advice = f"pip install 'hearth-faas[{kind}]'"
        reader.fault(path, f"needs a package that is not installed; {advice}")
    if not isinstance(given, dict):
        reader.fault(path, f"must be a mapping with {listed(model.model_fields)}, not {shown(given)}")
        return None
    keys = reader.known(given, tuple(model.model_fields), path)
    return reader.model(model, keys, keys, path)[0]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in is not there
        return False


def _url_faults(key: str, url: object, schemes: Collection[str], what: str) -> Iterator[rules.Blame]:
    try:
        split_url(str(url), schemes)
    except ValueError as error:
        yield key, f"{what}{error}"
