"""Values as bodies and back, addresses, lines and events: the parts of a client that need no gateway."""

from __future__ import annotations

import inspect
import pickle
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

import hearth
from gateway.http import problems
from hearth import errors
from hearth.address import DEFAULT_URL, Address
from hearth.conversations import event_of
from hearth.stream import EventReader, LineReader, ServerEvent
from hearth.values import decode, encode
from hearth.wire import Call

KEY = "hth_abcdefgh_abcdefghijklmnopqrstuvwxyzabcdef"
VARIABLES = ("HEARTH_URL", "HEARTH_API_KEY", "HEARTH_API_KEY_FILE")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing of this machine decide."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(JSON.filter(lambda value: value is not None) | st.binary())
def test_what_is_encoded_is_decoded(value: Any) -> None:
    body, headers = encode(value)
    assert decode(body, headers["content-type"]) == value


@pytest.mark.parametrize(
    ("data", "given_type", "body", "sent_type"),
    [
        (None, None, b"", None),
        ("a", None, b'"a"', "application/json"),
        ("a", "text/plain", b"a", "text/plain"),
        ("a", "application/vnd.own+json", b'"a"', "application/vnd.own+json"),
        ({"a": 1}, "text/plain", b'{"a":1}', "text/plain"),
        (memoryview(b"a"), None, b"a", "application/octet-stream"),
        (b"a", "image/png", b"a", "image/png"),
    ],
)
def test_what_is_sent(data: Any, given_type: str | None, body: bytes, sent_type: str | None) -> None:
    headers = {} if given_type is None else {"Content-Type": given_type}
    sent, fields = encode(data, headers)
    assert sent == body
    assert {name.lower(): value for name, value in fields.items()}.get("content-type") == sent_type
    assert headers == ({} if given_type is None else {"Content-Type": given_type})


@pytest.mark.parametrize(
    ("body", "content_type", "value"),
    [
        (b"", "", None),
        (b"", "application/json", None),
        (b"", "text/plain; charset=utf-8", ""),
        (b"", "application/octet-stream", b""),
        (b"{}", "Application/JSON; charset=utf-8", {}),
        (b"{}", "application/problem+json", {}),
        (b'1\n\n{"a":2}\n', "application/x-ndjson", [1, {"a": 2}]),
        ("ü".encode("latin-1"), 'text/html; charset="latin-1"', "ü"),
        ("ü".encode(), "text/html; charset=nonsense", "ü"),
        ("ü".encode(), "text/html; charset=zlib", "ü"),
        (b"{}", "application/octet-stream", b"{}"),
        (b"{}", "", b"{}"),
    ],
)
def test_what_an_answer_is_worth(body: bytes, content_type: str, value: Any) -> None:
    assert decode(body, content_type) == value


@pytest.mark.parametrize("data", [float("nan"), {1, 2}, object()])
def test_what_json_cannot_hold_is_refused_before_anything_is_sent(data: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        Call("greet", data).request()


# -- addresses ----------------------------------------------------------------------------------------------------


def test_an_address_comes_from_the_arguments_or_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert Address.find(None, None) == Address(DEFAULT_URL)
    monkeypatch.setenv("HEARTH_URL", "https://hearth.example/")
    monkeypatch.setenv("HEARTH_API_KEY", KEY)
    assert Address.find(None, None) == Address("https://hearth.example", KEY)
    (tmp_path / "key").write_text(f"{KEY[:-1]}2\n")
    monkeypatch.setenv("HEARTH_API_KEY_FILE", str(tmp_path / "key"))
    assert Address.find(None, None).key == f"{KEY[:-1]}2"
    assert Address.find("http://localhost:1", KEY) == Address("http://localhost:1", KEY)
    assert KEY not in repr(Address.find(None, KEY))


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://a", "http://", "nonsense"])
def test_a_malformed_url_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="is not a gateway's address; use one like http"):
        hearth.Client(url)


def test_a_malformed_key_is_not_shown() -> None:
    with pytest.raises(ValueError, match="use one like hth_ID_SECRET") as raised:
        hearth.Client(key="secret")
    assert "secret" not in str(raised.value).replace("SECRET", "")


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.9:1", True),
        ("http://[::1]:1", True),
        ("http://localhost", True),
        ("http://a.example", False),
    ],
)
def test_no_proxy_stands_before_loopback(url: str, loopback: bool) -> None:
    assert Address(url).is_loopback is loopback


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (Call("a/b c"), "/invoke/a%2Fb%20c"),
        (Call("api", path="notes/1"), "/invoke/api/notes/1"),
        (Call("api", path="/ü/%20"), "/invoke/api/%C3%BC/%20"),
        (Call("api", query={"a": "1 &", "b": ""}), "/invoke/api?a=1%20%26&b="),
        (Call("api", query="a=1"), "/invoke/api?a=1"),
    ],
)
def test_where_a_call_goes(call: Call, path: str) -> None:
    assert call.request().path == path


# -- errors ----------------------------------------------------------------------------------------------------


def test_every_problem_has_a_class_of_its_blame() -> None:
    assert set(errors.KINDS) <= set(problems.TYPES)
    for slug, (status, title, blame) in problems.TYPES.items():
        error = errors.error_of(errors.Problem(slug, title, status, "why", blame, "i"))
        assert error.blame == blame and error.invocation_id == "i"
        assert isinstance(error, errors.BLAMES[blame]), slug


def test_the_page_names_every_class() -> None:
    page = (Path(__file__).parents[3] / "docs" / "client.md").read_text()
    classes = {
        name for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)
    }
    assert {name for name in classes if not re.search(rf"`(hearth\.)?{name}`", page)} == set()


def test_errors_survive_being_sent_to_another_process() -> None:
    error = errors.error_of(errors.Problem("timeout", "Late", 504, "why", "function", "i", 2.0))
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.problem) == (hearth.FunctionTimeout, str(error), error.problem)
    response = hearth.Response(418, httpx.Headers(), b"tea")
    answered = pickle.loads(pickle.dumps(errors.FunctionAnswered("it answered", response)))
    assert (answered.status, answered.response.body) == (418, b"tea")


@pytest.mark.parametrize(("field", "seconds"), [("5", 5.0), ("soon", None), (None, None)])
def test_when_to_try_again(field: str | None, seconds: float | None) -> None:
    body = b'{"type": "urn:hearth:problem:queue-full", "title": "Full", "status": 429, "blame": "caller"}'
    fields = {"content-type": "application/problem+json", **({"retry-after": field} if field else {})}

    with pytest.raises(hearth.RateLimited) as raised:
        hearth.Response(429, httpx.Headers(fields), body).result()
    assert raised.value.retry_after == seconds


@pytest.mark.parametrize(
    ("body", "content_type"),
    [(b"{", "application/json"), (b"[" * 100_000, "application/json"), (b"\xff", "text/plain")],
)
def test_a_body_that_is_not_of_its_type_is_the_function_s_fault(body: bytes, content_type: str) -> None:
    response = hearth.Response(200, httpx.Headers({"content-type": content_type}), body)
    with pytest.raises(hearth.FunctionAnswered, match=f"is not {content_type}") as raised:
        response.result()
    assert raised.value.response.body == body


@pytest.mark.parametrize(
    "body", [b"{", b"[]", b'{"type": 3}', b'{"type": "urn:hearth:problem:a", "status": []}']
)
def test_a_problem_that_a_function_made_up_harms_nobody(body: bytes) -> None:
    response = hearth.Response(404, httpx.Headers({"content-type": "application/problem+json"}), body)
    with pytest.raises(hearth.HearthError):
        response.result()


def test_where_an_input_does_not_fit() -> None:
    body = (
        b'{"type": "urn:hearth:problem:input-mismatch", "status": 422, "blame": "caller", "pointer": "/a/0"}'
    )
    response = hearth.Response(422, httpx.Headers({"content-type": "application/problem+json"}), body)
    with pytest.raises(hearth.BadInput) as raised:
        response.result()
    assert raised.value.problem is not None and raised.value.problem.pointer == "/a/0"


# -- streams ----------------------------------------------------------------------------------------------------

TEXT = st.text(alphabet="ab\r\n:ü ", max_size=20)


@given(TEXT, st.lists(st.integers(0, 40), max_size=6))
def test_lines_do_not_depend_on_how_they_come(text: str, cuts: list[int]) -> None:
    data = text.encode()
    reader, whole = LineReader(), LineReader()
    places = sorted({min(cut, len(data)) for cut in [0, *cuts, len(data)]})
    found = [line for a, b in pairwise(places) for line in reader.feed(data[a:b])]
    assert found + reader.end() == whole.feed(data) + whole.end()
    assert (
        found + reader.end() == re.split(r"\r\n|\r|\n", text)[: None if text[-1:] not in "\r\n" else -1]
        or text == ""
    )


def events_of(text: str) -> list[ServerEvent]:
    lines, reader = LineReader(), EventReader()
    found = map(reader.feed, [*lines.feed(text.encode()), *lines.end()])
    return [event for event in found if event is not None]


def test_server_sent_events() -> None:
    text = ": hello\n\ndata: a\ndata:b\n\nevent: tick\nid: 7\nretry: 100\nretry: x\ndata\n\n"
    text += "id: \0\ndata:  c\r\n\r\ndata: lost"
    assert events_of(text) == [
        ServerEvent("a\nb"),
        ServerEvent("", "tick", "7", 100),
        ServerEvent(" c", id="7"),
    ]
    assert ServerEvent('{"a": 1}').json() == {"a": 1}


def test_events() -> None:
    made = event_of("com.example.paid", {"order": 1}, None, "1")
    assert len(made.pop("id")) == 32
    assert made == {
        "specversion": "1.0",
        "type": "com.example.paid",
        "source": "/hearth-client",
        "subject": "1",
        "data": {"order": 1},
    }
    given_event = {"type": "a", "source": "/b", "id": "3"}
    assert event_of(given_event, None, None, None) == {"specversion": "1.0", **given_event}
    assert event_of("a", b"\x00", "/b", None)["data_base64"] == "AA=="


def test_both_clients_have_the_same_methods() -> None:
    """Not the same code: so whoever adds a method to one is told of the other."""
    for ours, theirs in (
        (hearth.Client, hearth.AsyncClient),
        (hearth.Future, hearth.AsyncFuture),
        (hearth.Run, hearth.AsyncRun),
        (hearth.Job, hearth.AsyncJob),
    ):
        for name, member in inspect.getmembers(ours, inspect.isfunction):
            if not name.startswith("_"):
                assert (
                    inspect.signature(member).parameters
                    == inspect.signature(getattr(theirs, name)).parameters
                )
