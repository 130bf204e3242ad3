"""What event a message is."""

from __future__ import annotations

import json

import pytest
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from gateway.brokers.broker import Message
from gateway.brokers.messages import events_of
from gateway.brokers.mqtt import message_of
from scheduler.definitions.brokers import BrokerDefinition, JetStream
from scheduler.triggers.cloud_events import EventFault
from scheduler.triggers.event import Event

STREAM = JetStream(url="nats://h", stream="S")
SOURCE = BrokerDefinition(name="orders", broker=STREAM)
CLOUDEVENT = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "paid", "data": {"n": 1}}
CLOUDEVENT_FIELDS = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "paid"}


def event_of(message: Message, source: BrokerDefinition = SOURCE) -> Event:
    (event,) = events_of(message, source, "nats://h/S")
    return event


def test_an_event_is_made_of_a_message() -> None:
    message = Message("1-2", b"text", "text/plain", subject="orders.paid", time="2026-11-23T03:46:00+00:00")
    assert event_of(message) == Event(
        {
            "specversion": "1.0",
            "id": "1-2",
            "source": "nats://h/S",
            "type": "hearth.nats.message",
            "subject": "orders.paid",
            "time": "2026-11-23T03:46:00+00:00",
            "datacontenttype": "text/plain",
        },
        b"text",
    )


def test_without_a_content_type_none_is_made_up() -> None:
    event = event_of(Message("1", b"\xff\x00"))
    assert event.content_type is None and event.data == b"\xff\x00" and "subject" not in event.attributes


def test_type_and_source_are_what_the_definition_says() -> None:
    source = BrokerDefinition(name="orders", broker=STREAM, type="com.example.order", source="/shop/1")
    event = event_of(Message("1", b""), source)
    assert (event.type, event.source) == ("com.example.order", "/shop/1")


def test_subjects_with_any_characters_are_kept() -> None:
    assert event_of(Message("1", b"", subject="käse 100 %")).attributes["subject"] == "käse 100 %"


@pytest.mark.parametrize("content_type", [None, "application/cloudevents+json; charset=utf-8"])
def test_a_structured_cloudevent_is_taken_as_such(content_type: str | None) -> None:
    event = event_of(Message("1", json.dumps(CLOUDEVENT).encode(), content_type))
    assert (event.id, event.source, event.type) == ("7", "/shop", "paid")
    assert json.loads(event.data) == {"n": 1}


def test_one_in_binary_mode_too() -> None:
    attributes = {"specversion": "1.0", "id": "7", "source": "/shop", "type": "paid", "shop": "Zürich"}
    event = event_of(Message("1", b"{}", "application/json", attributes))
    assert event.attributes == {**attributes, "datacontenttype": "application/json"}


def test_a_batch_is_several() -> None:
    batch = json.dumps([CLOUDEVENT, {**CLOUDEVENT, "id": "8"}]).encode()
    found = events_of(Message("1", batch, "application/cloudevents-batch+json"), SOURCE, "nats://h/S")
    assert [event.id for event in found] == ["7", "8"]


@pytest.mark.parametrize(
    "data",
    [
        b'{"specversion": "1.0", "id": "7"}',
        b'{"specversion": "1.0", "id": 7, "source": "/s", "type": "t"}',
        b'["specversion"]',
        b'{"specversion": broken',
        b'{"a": ' * 100_000 + b'"specversion"',
    ],
)
def test_what_only_looks_like_one_is_plain_data(data: bytes) -> None:
    event = event_of(Message("1", data))
    assert event.id == "1" and event.data == data


@pytest.mark.parametrize("content_type", ["json", "", "text/\nplain", "käse/x"])
def test_plain_data_with_a_type_that_is_none_is_not_lost(content_type: str) -> None:
    event = event_of(Message("1", b"{}", content_type))
    assert (event.id, event.data, event.content_type) == ("1", b"{}", None)


def test_properties_of_an_mqtt_message_that_cannot_be_attributes_are_not_for_us() -> None:
    message = MQTTMessage(topic=b"shop")
    message.properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    message.properties.UserProperty = [*CLOUDEVENT_FIELDS.items(), ("trace-parent", "00-1")]
    assert event_of(message_of(message, "own")).attributes == {
        **CLOUDEVENT_FIELDS,
        "subject": "shop",
    }


@pytest.mark.parametrize(
    "message",
    [
        Message("1", b"", fault="has no field 'body'"),
        Message("1", b"no JSON", "application/cloudevents+json"),
        Message("1", b"{}", "application/cloudevents+json"),
        Message("1", json.dumps({**CLOUDEVENT, "time": "tomorrow"}).encode()),
        Message("1", b"", subject="x" * 10_000),
        Message("1", b"", "json", CLOUDEVENT_FIELDS),
        Message("1", bytes(6 * 2**20 + 1)),
    ],
)
def test_what_cannot_be_an_event_is_refused(message: Message) -> None:
    with pytest.raises(EventFault):
        events_of(message, SOURCE, "nats://h/S")
