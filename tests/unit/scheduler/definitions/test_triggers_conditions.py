"""CloudEvents as they come and go, and the conditions on them."""

from __future__ import annotations

import base64
import json
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from scheduler.definitions.language.filters import MAX_FILTER_DEPTH, Filter, match_all, matches
from scheduler.triggers.cloud_events import (
    BATCH,
    MAX_EVENTS_IN_BATCH,
    STRUCTURED,
    EventFault,
    binary_headers,
    is_event,
    parse_batch,
    parse_binary,
    parse_http,
    parse_structured,
    structured_body,
)
from scheduler.triggers.event import Event

PLAIN = {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"}
FIELDS = [(f"ce-{name}".encode(), value.encode()) for name, value in PLAIN.items()]


def an_event(**more: Any) -> bytes:
    return json.dumps({**PLAIN, **more}).encode()


# -- how they come --------------------------------------------------------------------------------------------


def test_a_structured_event_has_its_attributes_and_its_data() -> None:
    event = parse_structured(an_event(subject="a.jpg", data={"a": 1}, count=3, flag=True, none=None))
    assert event.attributes == {
        **PLAIN,
        "subject": "a.jpg",
        "datacontenttype": "application/json",
        "count": "3",
        "flag": "true",
    }
    assert json.loads(event.data) == {"a": 1}
    assert (event.id, event.source, event.type) == ("1", "/s", "t")


def test_data_may_be_text_or_bytes() -> None:
    assert parse_structured(an_event(datacontenttype="text/plain", data="hé")).data == "hé".encode()
    assert parse_structured(an_event(datacontenttype="application/json", data="hé")).data == b'"h\\u00e9"'
    encoded = base64.b64encode(b"\0\xff").decode()
    assert parse_structured(an_event(data_base64=encoded)).data == b"\0\xff"
    assert parse_structured(an_event()).data == b""


def test_a_binary_event_has_its_fields_decoded_and_its_body_as_it_is() -> None:
    fields = [
        *FIELDS,
        (b"ce-subject", b"Euro%20%E2%82%AC"),
        (b"content-type", b"text/plain"),
        (b"x-other", b"1"),
    ]
    event = parse_binary(fields, b'{"a" :1}')
    assert event == Event({**PLAIN, "subject": "Euro €", "datacontenttype": "text/plain"}, b'{"a" :1}')


@pytest.mark.parametrize(
    ("field", "subject"),
    [
        (b'"Euro%20%E2%82%AC"', "Euro €"),
        (b'"a b"', "a b"),
        (b'"a\\"b\\\\"', 'a"b\\'),
        (b'a"b', 'a"b'),
        (b'"a" "b"', '"a" "b"'),
        (b"%22a%22", '"a"'),
        (b"a%0D%0Ax-y:%20z", "a\r\nx-y: z"),
    ],
)
def test_a_field_may_stand_in_quotes(field: bytes, subject: str) -> None:
    event = parse_binary([*FIELDS, (b"ce-subject", field)], b"")
    assert event.attributes["subject"] == subject
    assert all(b"\r" not in value and b"\n" not in value for _, value in binary_headers(event))


def test_json_that_is_too_deep_is_a_fault_or_data_at_whatever_depth() -> None:
    """Reading takes it up to a depth, and writing it up to another one."""
    outcomes = set()
    for depth in range(sys.getrecursionlimit() - 120, sys.getrecursionlimit() + 20):
        data = b"[" * depth + b"]" * depth
        assert (
            json.loads(structured_body(Event({**PLAIN, "datacontenttype": "application/json"}, data)))["id"]
            == "1"
        )
        try:
            assert parse_structured(an_event()[:-1] + b', "data": ' + data + b"}").data == data
            outcomes.add("data")
        except EventFault:
            outcomes.add("fault")
    assert outcomes == {"data", "fault"}


def test_numbers_that_json_has_not_are_no_data_of_an_event_and_kept_as_they_are_elsewhere() -> None:
    with pytest.raises(EventFault, match="a number that JSON does not have"):
        parse_structured(an_event()[:-1] + b', "data": 1e999}')
    told = json.loads(structured_body(Event({**PLAIN, "datacontenttype": "application/json"}, b"[NaN]")))
    assert base64.b64decode(told["data_base64"]) == b"[NaN]"


def test_a_message_says_what_it_is() -> None:
    structured_type = [(b"content-type", b"application/cloudevents+json; charset=utf-8")]
    assert parse_http(structured_type, an_event())[0].id == "1"
    batch = json.dumps([PLAIN, {**PLAIN, "id": "2"}]).encode()
    assert [event.id for event in parse_http([(b"content-type", BATCH.encode())], batch)] == ["1", "2"]
    assert parse_http(FIELDS, b"x")[0].data == b"x"
    assert is_event(structured_type) and is_event(FIELDS) and is_event([(b"content-type", BATCH.encode())])
    assert not is_event([(b"content-type", b"application/json")])


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_needed_must_be_there(name: str) -> None:
    rest = {key: value for key, value in PLAIN.items() if key != name}
    with pytest.raises(EventFault, match=name):
        parse_structured(json.dumps(rest).encode())
    with pytest.raises(EventFault, match=name):
        parse_binary([pair for pair in FIELDS if pair[0] != f"ce-{name}".encode()], b"")
    with pytest.raises(EventFault, match=name):
        parse_structured(json.dumps({**PLAIN, name: ""}).encode())


@pytest.mark.parametrize(
    "more",
    [
        {"specversion": "0.3"},
        {"id": 1.5},
        {"id": "\ud800"},
        {"time": "yesterday"},
        {"time": "2026-01-01T00:00:00"},
        {"time": 7},
        {"Upper": "x"},
        {"ümlaut": "x"},
        {"with\n": "x"},
        {"nested": {"a": 1}},
        {"list": []},
        {"subject": ""},
        {"datacontenttype": "text/plain\r\nx: y"},
        {"datacontenttype": 1, "data": "x"},
        {"data": 1, "data_base64": "YQ=="},
        {"data_base64": "?"},
        {"data_base64": 1},
        {"long": "x" * 3000},
        {f"a{n}": "x" for n in range(40)},
        {f"a{n}": "ä" * 600 for n in range(28)},
    ],
    ids=str,
)
def test_what_is_no_event_is_refused_with_a_reason(more: dict[str, Any]) -> None:
    with pytest.raises(EventFault, match=r"\w"):
        parse_structured(an_event(**more))


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_object_is_refused(body: bytes) -> None:
    with pytest.raises(EventFault):
        parse_structured(body)


def test_a_faulty_event_spoils_its_batch_and_is_named() -> None:
    with pytest.raises(EventFault, match=r"event 1: 'id' is missing"):
        parse_batch(json.dumps([PLAIN, {**PLAIN, "id": None}]).encode())
    with pytest.raises(EventFault, match="list"):
        parse_batch(b"{}")
    with pytest.raises(EventFault, match="at most 1000"):
        parse_batch(json.dumps([PLAIN] * (MAX_EVENTS_IN_BATCH + 1)).encode())
    with pytest.raises(EventFault, match="cloudevents"):
        parse_http([(b"content-type", b"application/cloudevents+xml")], b"")


def test_defaults_stand_in_for_what_is_missing_and_each_of_a_batch_has_its_own_id() -> None:
    defaults = {"specversion": "1.0", "id": "call", "source": "/functions/f"}
    event = parse_http([(b"ce-type", b"t")], b"", defaults)[0]
    assert event.attributes == {**defaults, "type": "t"}
    batch = parse_batch(b'[{"type": "a"}, {"type": "b", "id": "own"}, {"type": "c"}]', defaults)
    assert [event.id for event in batch] == ["call-0", "own", "call-2"]


values = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
events = st.builds(
    lambda required, more, data: Event(
        {**PLAIN, **required, **more, "datacontenttype": "application/octet-stream"}, data
    ),
    st.fixed_dictionaries({"id": values, "source": values, "type": values}),
    st.dictionaries(st.from_regex(r"x[a-z0-9]{1,10}", fullmatch=True), values, max_size=3),
    st.binary(max_size=50),
)


@given(events)
def test_an_event_that_is_told_in_binary_mode_comes_back_as_it_was(event: Event) -> None:
    headers = binary_headers(event)
    assert all(byte in range(0x20, 0x7F) for _, value in headers for byte in value)
    assert parse_binary(headers, event.data) == event


@given(events)
def test_an_event_that_is_told_as_json_comes_back_as_it_was(event: Event) -> None:
    assert parse_structured(structured_body(event)) == event


@given(
    st.dictionaries(st.text(max_size=8), st.none() | st.booleans() | st.integers() | st.text(), max_size=8)
)
def test_any_object_is_an_event_or_a_fault(given: dict[str, Any]) -> None:
    try:
        event = parse_structured(json.dumps({**PLAIN, **given}).encode())
    except EventFault:
        return
    assert parse_binary(binary_headers(event), event.data).attributes == event.attributes


# -- conditions -----------------------------------------------------------------------------------------------


def a_filter(**keys: Any) -> Filter:
    return Filter.model_validate(keys)


HAVE = {**PLAIN, "type": "com.example.paid", "subject": "a.jpg"}


@pytest.mark.parametrize(
    ("keys", "passes"),
    [
        ({"exact": {"type": "com.example.paid"}}, True),
        ({"exact": {"type": "com.example.PAID"}}, False),
        ({"exact": {"type": "com.example.paid", "subject": "b.jpg"}}, False),
        ({"exact": {"other": "x"}}, False),
        ({"prefix": {"type": "com.example."}}, True),
        ({"prefix": {"type": "com.example.", "subject": "b"}}, False),
        ({"prefix": {"other": "x"}}, False),
        ({"suffix": {"subject": ".jpg"}}, True),
        ({"suffix": {"subject": ".png"}}, False),
        ({"suffix": {"other": "x"}}, False),
        ({"not": {"exact": {"other": "x"}}}, True),
        ({"not": {"exact": {"subject": "a.jpg"}}}, False),
        ({"all": [{"exact": {"subject": "a.jpg"}}, {"prefix": {"type": "org"}}]}, False),
        ({"all": [{"exact": {"subject": "a.jpg"}}, {"prefix": {"type": "com"}}]}, True),
        ({"any": [{"exact": {"subject": "b.jpg"}}, {"prefix": {"type": "com"}}]}, True),
        ({"any": [{"exact": {"subject": "b.jpg"}}, {"prefix": {"type": "org"}}]}, False),
    ],
    ids=str,
)
def test_each_dialect(keys: dict[str, Any], passes: bool) -> None:
    assert matches(Filter.model_validate(keys), HAVE) is passes


def nested(levels: int) -> dict[str, Any]:
    keys: dict[str, Any] = {"exact": {"a": "b"}}
    for _ in range(levels - 1):
        keys = {"not": keys}
    return keys


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"exact": {}},
        {"exact": {"a": ""}},
        {"exact": {"a": 1}},
        {"exact": {"A": "b"}},
        {"exact": {"a": "b"}, "prefix": {"a": "b"}},
        {"all": []},
        {"any": {}},
        {"not": []},
        {"not": None},
        {"exact": None},
        {"all": [{"any": None}]},
        {"sql": "true"},
        nested(MAX_FILTER_DEPTH + 1),
    ],
    ids=str,
)
def test_what_is_no_filter_is_refused(keys: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Filter.model_validate(keys)


def test_filters_may_be_as_deep_as_it_says() -> None:
    assert matches(Filter.model_validate(nested(MAX_FILTER_DEPTH)), {"a": "b"}) is (MAX_FILTER_DEPTH % 2 == 1)


attributes = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "xy", "yx"]), max_size=3)
leaves = st.builds(
    lambda dialect, wanted: a_filter(**{dialect: wanted}),
    st.sampled_from(["exact", "prefix", "suffix"]),
    st.dictionaries(st.sampled_from("abc"), st.sampled_from(["x", "xy", "yx"]), min_size=1, max_size=2),
)


@given(st.lists(leaves, min_size=1, max_size=4), attributes)
def test_all_and_any_and_not_are_those_of_logic(filters: list[Filter], event: dict[str, str]) -> None:
    each = [matches(filter, event) for filter in filters]
    assert matches(Filter(all=tuple(filters)), event) is all(each) is match_all(filters, event)
    assert matches(Filter(any=tuple(filters)), event) is any(each)
    negated = [Filter.model_validate({"not": filter}) for filter in filters]
    assert matches(Filter(any=tuple(negated)), event) is not all(each)
    assert matches(Filter(all=tuple(negated)), event) is not any(each)


@given(leaves, attributes)
def test_what_is_exact_is_also_a_prefix_and_a_suffix(filter: Filter, event: dict[str, str]) -> None:
    wanted = filter.exact or filter.prefix or filter.suffix
    if matches(a_filter(exact=wanted), event):
        assert matches(a_filter(prefix=wanted), event) and matches(a_filter(suffix=wanted), event)


def test_a_filter_is_written_as_it_was_read() -> None:
    keys = {"any": [{"not": {"exact": {"a": "b"}}}, {"all": [{"prefix": {"c": "d"}}]}]}
    shown = Filter.model_validate(keys).model_dump(mode="json", by_alias=True, exclude_unset=True)
    assert shown == keys


def test_binary_mode_needs_no_other_type_than_the_event_has() -> None:
    assert binary_headers(parse_binary(FIELDS, b"")) == FIELDS
    assert STRUCTURED not in str(binary_headers(parse_structured(an_event())))
