"""Who is admitted: keys, scopes, limits, and changes of the keys of a running gateway."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

from gateway.access.access import OPEN, REASONS, Access, Admission, KeyHolder
from gateway.access.credential import take_credential
from gateway.access.key_file import KeyFile, KeyFileFault
from gateway.access.keys import KEY, LENGTH, Key, create, digest_of, format_moment, parse_keys, parse_moment
from gateway.access.limits import UNLIMITED, Quota, parse_rate
from gateway.access.scopes import ROUTES, parse_scopes, right_for
from gateway.api.routes import api_routes
from gateway.assembly.runtime import Runtime
from gateway.assembly.settings import Settings
from gateway.edge.app import build_app
from gateway.http.problems import Problem
from pool.clock import LoopClock, VirtualClock
from pool.data_folder import DataFolder
from pool.engine.memory import MemoryEngine
from pool.observe.metrics import Metrics

HASH = "hth_abcdefgh:sha256:" + "0" * 64
SECRET = "hth_abcdefgh_" + "secret77" * 4


def made(*scopes: str, name: str = "shop", quota: Quota = UNLIMITED, expires: float | None = None):
    """A key's text, and what is kept of it."""
    return create(name, parse_scopes(scopes), quota, expires, 0.0)


class Door:
    """An `Access` on virtual time, and what it is asked."""

    def __init__(self, *keys: Key, closed: bool = False, file: KeyFile | None = None) -> None:
        self.clock, self.metrics = VirtualClock(), Metrics()
        self.access = Access(self.clock, self.metrics, keys, file, closed)

    def call(self, key: str | None, function: str = "hello") -> Admission | Problem:
        return self.access.admit_call(bearer(key), f"/invoke/{function}".encode())

    def ask(self, key: str | None, path: str = "/functions", method: str = "GET") -> Admission | Problem:
        return self.access.admit_request(bearer(key), method, path)

    def refusals(self) -> dict[str, int]:
        """How many there were, by reason; those that there were none of are left out."""
        counts = {reason: self.metrics.access_refusals.labels(reason).value for reason in REASONS}
        return {reason: count for reason, count in counts.items() if count}


def bearer(key: str | None) -> list[tuple[bytes, bytes]]:
    return [] if key is None else [(b"authorization", b"Bearer " + key.encode())]


def slug(admission: Admission | Problem) -> str | None:
    """Of a refusal; None: admitted."""
    return admission.slug if isinstance(admission, Problem) else None


# -- the door -------------------------------------------------------------------------------------------------


def test_without_keys_everybody_is_admitted_and_nothing_is_looked_at() -> None:
    door = Door()
    headers = [(b"authorization", b"Bearer mine"), (b"authorization", b"Bearer hth_x")]
    assert door.access.admit_call(headers, b"/invoke/hello") is OPEN
    assert door.access.admit_request(headers, "DELETE", "/pool/instances/0") is OPEN
    assert len(headers) == 2
    assert door.access.keys is None


def test_a_key_opens_what_its_scopes_name() -> None:
    text, key = made("invoke:shop-*", "read")
    door = Door(key)
    assert slug(door.call(text, "shop-cart")) is None
    assert slug(door.call(text, "hello")) == "forbidden"
    assert slug(door.ask(text)) is None
    assert slug(door.ask(text, "/pool/instances/0", "DELETE")) == "forbidden"
    assert door.refusals() == {"scope": 2}


@pytest.mark.parametrize(
    ("credential", "reason"),
    [
        (None, "missing"),
        (b"", "malformed"),
        (b"Bearer", "malformed"),
        (b"Bearer  ", "malformed"),
        (b"Bearer something", "malformed"),
        (b"Basic aHRoOmg=", "malformed"),
        (b"Bearer " + b"x" * LENGTH, "malformed"),
        (b"Bearer hth_" + b"\xff" * 41, "unknown"),
        (b"Bearer hth_aaaaaaaa_" + b"a" * 32, "unknown"),
        (b"Bearer hth_" + b"x" * 60_000, "malformed"),
    ],
)
def test_what_is_no_key_is_refused_and_says_how_one_is_sent(credential: bytes | None, reason: str) -> None:
    door = Door(made("admin")[1])
    headers = [] if credential is None else [(b"authorization", credential)]
    fault = door.access.admit_call(headers, b"/invoke/hello")
    assert isinstance(fault, Problem) and fault.status == 401
    challenge = dict(fault.response_headers(fault.body()))[b"www-authenticate"]
    assert challenge.startswith(b'Bearer realm="hearth"')
    assert (b"invalid_token" in challenge) is (reason != "missing")
    assert door.refusals() == {reason: 1}


def test_of_a_key_that_is_nearly_right_nothing_is_told() -> None:
    text, key = made("admin")
    door = Door(key)
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    unknown = door.call("hth_aaaaaaaa_" + "a" * 32)
    nearly = door.call(wrong)
    assert isinstance(unknown, Problem) and isinstance(nearly, Problem)
    assert (unknown.detail, unknown.headers) == (nearly.detail, nearly.headers)
    assert door.refusals() == {"unknown": 1, "wrong": 1}


async def test_an_expired_key_is_refused_from_its_second_on() -> None:
    clock = VirtualClock()
    text, key = made("admin", expires=clock.wall() + 10)
    door = Door(key)
    await door.clock.advance(9.9)
    assert slug(door.call(text)) is None
    await door.clock.advance(0.1)
    assert slug(door.call(text)) == "unauthorized"
    assert door.refusals() == {"expired": 1}


async def test_a_rate_lets_a_burst_through_and_then_says_when_to_come_again() -> None:
    text, key = made("admin", quota=Quota(parse_rate("2/s"), 3))
    door = Door(key)
    assert [slug(door.call(text)) for _ in range(2)] == [None] * 2
    assert slug(door.ask(text)) is None  # every request counts
    fault = door.call(text)
    assert isinstance(fault, Problem) and (fault.slug, fault.retry_after) == ("quota-exceeded", 0.5)
    assert dict(fault.response_headers(b""))[b"retry-after"] == b"1"
    await door.clock.advance(0.5)
    assert [slug(door.call(text)) for _ in range(2)] == [None, "quota-exceeded"]
    assert door.refusals() == {"rate": 2}


async def test_what_carries_many_requests_counts_as_many() -> None:
    text, key = made("admin", quota=Quota(parse_rate("2/s"), 10))
    door = Door(key)
    admission = door.ask(text)
    other = door.ask(text)
    assert isinstance(admission, Admission) and isinstance(other, Admission)
    assert door.access.charge(admission, 99) is None, "also what is not there yet"
    fault = door.access.charge(other, 1)
    assert isinstance(fault, Problem) and (fault.slug, fault.retry_after) == ("quota-exceeded", 45.5)
    assert door.access.charge(other, 0) is None, "it is admitted, and carries no others"
    assert slug(door.ask(text)) == "quota-exceeded"
    await door.clock.advance(45.9)
    assert slug(door.ask(text)) == "quota-exceeded"
    await door.clock.advance(0.1)
    assert slug(door.ask(text)) is None
    assert door.access.charge(OPEN, 1000) is None, "without keys nothing is counted"
    assert door.refusals() == {"rate": 3}


def test_one_keys_flood_is_not_anothers() -> None:
    (one, one_key), (two, two_key) = (made("admin", name=n, quota=Quota(parse_rate("1/h"))) for n in "ab")
    door = Door(one_key, two_key)
    assert [slug(door.call(one)) for _ in range(3)] == [None, "quota-exceeded", "quota-exceeded"]
    assert slug(door.call(two)) is None


def test_so_many_calls_at_once_and_a_new_one_for_each_that_ends() -> None:
    text, key = made("admin", quota=Quota(concurrency=2))
    door = Door(key)
    admitted = [door.call(text) for _ in range(3)]
    assert [slug(a) for a in admitted] == [None, None, "quota-exceeded"]
    assert slug(door.ask(text)) is None  # other requests are no calls
    assert isinstance(admitted[0], KeyHolder)
    admitted[0].ended()
    assert [slug(door.call(text)) for _ in range(2)] == [None, "quota-exceeded"]


def test_a_call_that_is_refused_for_its_scope_takes_nothing() -> None:
    text, key = made("invoke:hello", quota=Quota(parse_rate("1/h"), concurrency=1))
    door = Door(key)
    assert [slug(door.call(text, "other")) for _ in range(3)] == ["forbidden"] * 3
    assert slug(door.call(text)) is None


# -- the credential -------------------------------------------------------------------------------------------


def test_the_credential_is_taken_out_of_the_headers() -> None:
    other = (b"accept", b"*/*")
    for scheme in (b"Bearer ", b"bearer  ", b"BEARER "):
        headers = [other, (b"authorization", scheme + b"hth_x "), other]
        assert take_credential(headers) == b"hth_x"
        assert headers == [other, other]


def test_a_key_in_its_own_header_leaves_authorization_to_the_function() -> None:
    mine = (b"authorization", b"Basic mine")
    headers = [(b"x-hearth-key", b"hth_x"), mine]
    assert take_credential(headers) == b"hth_x"
    assert headers == [mine]
    headers = [(b"x-hearth-key", b"hth_x"), (b"authorization", b"Bearer hth_y")]
    assert take_credential(headers) == b"hth_x"
    assert headers == []


def test_a_second_authorization_is_not_left_over() -> None:
    headers = [(b"authorization", b"Bearer hth_x"), (b"authorization", b"Bearer hth_y")]
    assert take_credential(headers) == b"hth_y"
    assert headers == []


# -- open routes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["none", "wrong", "right"])
@pytest.mark.parametrize(
    "path", ["/healthz", "/readyz", "/docs", "/docs/files/swagger-ui.css", "/openapi.json"]
)
def test_open_routes_need_no_key_and_name_functions_to_who_has_one(path: str, key: str) -> None:
    text, kept = made("invoke:shop-*", quota=Quota(parse_rate("1/h")))
    door = Door(kept)
    for _ in range(3):
        admission = door.ask({"none": None, "wrong": SECRET, "right": text}[key], path)
        assert isinstance(admission, Admission)
        assert admission.may_name("shop-cart") is (key == "right")
        assert not admission.may_name("hello")
    assert door.refusals() == {}


async def test_the_table_has_exactly_the_routes_that_there_are(tmp_path: Path) -> None:
    runtime = Runtime(Settings(), DataFolder(tmp_path), MemoryEngine(LoopClock()))
    app = build_app(runtime.api_parts)
    served = {
        (method, route.path)
        for route in (*api_routes(), *app.routes)
        if isinstance(route, APIRoute)
        for method in route.methods
    }
    served |= {("GET", app.openapi_url or ""), ("GET", "/docs/files/{path}")}
    await runtime.close()
    assert len(served) > 10
    assert {(method, path) for method, path, _ in ROUTES} == served


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/"),
        ("GET", "/functions/"),
        ("GET", "/functions/a/b"),
        ("POST", "/functions"),
        ("GET", "/healthz/x"),
        ("GET", "/docsx"),
        ("GET", "/docs/files/"),
        ("GET", "/healthz\n"),
        ("PUT", "/healthz"),
    ],
)
def test_what_is_not_in_the_table_needs_admin(method: str, path: str) -> None:
    assert right_for(method, path) == "admin"
    assert {right for _, _, right in ROUTES} == {"read", "deploy", "invoke", None}


# -- scopes ---------------------------------------------------------------------------------------------------


def test_admin_includes_everything_and_nothing_else_includes_anything() -> None:
    assert all(parse_scopes(["admin"]).has(right) for right in ("read", "deploy", "admin"))
    assert parse_scopes(["admin"]).may_invoke("hello")
    for word in ("read", "deploy", "invoke:*"):
        scopes = parse_scopes([word])
        assert [right for right in ("read", "deploy", "admin") if scopes.has(right)] == [word][
            : word != "invoke:*"
        ]
    assert not parse_scopes(["read", "deploy"]).may_invoke("hello")


@pytest.mark.parametrize(
    "word",
    ["", "invoke", "invoke:", "invoke:A", "invoke:a.b", "invoke:***", "write", "READ", "read ", SECRET],
)
def test_wrong_scopes_are_refused_and_not_repeated(word: str) -> None:
    with pytest.raises(ValueError, match=r"^scope 2 is invalid; use read, deploy, admin or invoke:NAME") as e:
        parse_scopes(["read", word])
    assert "secret77" not in str(e.value)


def test_no_scope_is_refused() -> None:
    with pytest.raises(ValueError, match="no scope is given"):
        parse_scopes([])


# -- keys and their text form ---------------------------------------------------------------------------------


def test_a_key_is_new_each_time_and_only_its_hash_is_kept() -> None:
    made_ = [made("admin") for _ in range(100)]
    assert len({text for text, _ in made_}) == len({key.id for _, key in made_}) == 100
    for text, key in made_:
        match = KEY.fullmatch(text)
        assert match is not None and match[1] == key.id and len(text) == LENGTH
        assert key.digest == hashlib.sha256(text.encode()).digest()
        assert text[13:] not in repr(key)
        assert key.is_of(text.encode()) and not key.is_of(text[:-1].encode())


@pytest.mark.parametrize("name", ["", "a b", "hth_abcdefgh", "-a", "a" * 64, "a/b", "a\n"])
def test_wrong_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a key's name must be"):
        made("admin", name=name)


def test_keys_of_the_environment() -> None:
    text, key = made("admin")
    first, second, third = parse_keys(
        f"{text} invoke:* read name=shop rate=600/m burst=20 concurrency=3 expires=2027-01-31\n\n"
        f"; {HASH} read expires=2027-01-31T12:00:00+02:00 ;{made('admin')[1].hashed} admin name=me;"
    )
    assert (first.id, first.digest, first.name) == (key.id, digest_of(text), "shop")
    assert first.scopes.words == ("invoke:*", "read")
    assert first.quota == Quota(parse_rate("600/m"), 20, 3)
    assert format_moment(first.expires or 0) == "2027-01-31T00:00:00Z"
    assert (second.id, second.name, second.quota) == ("abcdefgh", "abcdefgh", UNLIMITED)
    assert format_moment(second.expires or 0) == "2027-01-31T10:00:00Z"
    assert third.name == "me"
    assert parse_keys(" \n;\n ") == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (SECRET, "key 1: no scope is given"),
        (f"{HASH} read; {SECRET}x read", "key 2: begin it with a key"),
        (f"{SECRET.upper()} read", "key 1: begin it with"),
        (f"{HASH} write", "key 1: scope 1 is invalid"),
        (f"{HASH} read {SECRET}", "key 1: scope 2 is invalid"),
        (f"{HASH} read rate=fast", "key 1: a rate must be"),
        (f"{HASH} read rate={SECRET}", "key 1: a rate must be"),
        (f"{HASH} read burst=3", "key 1: a burst needs a rate"),
        (f"{HASH} read rate=1/s burst=0", "key 1: a burst must be a whole number from 1"),
        (f"{HASH} read concurrency={SECRET}", "key 1: a concurrency must be a whole number"),
        (f"{HASH} read concurrency=0", "key 1: a concurrency must be a whole number from 1"),
        (f"{HASH} read name={SECRET}", "key 1: a key's name must be"),
        (f"{HASH} read {SECRET}=1", "key 1: use only name="),
        (f"{HASH} read name=a name=b", "each once"),
        (f"{HASH} read expires={SECRET}", "key 1: expires must be a date"),
        (f"{HASH} read expires=2027-01-31T12:00", "without a time zone"),
        (f"{HASH} read\n{HASH} read", "two keys have the same id; two keys have the same name"),
    ],
)
def test_faults_of_the_environment_name_the_entry_and_repeat_nothing(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=re.escape(fault)) as e:
        parse_keys(text)
    assert "secret77" not in str(e.value).lower()


def test_moments() -> None:
    for text in ("2027-01-31T10:00:00Z", "1970-01-01T00:00:00Z"):
        assert format_moment(parse_moment(text)) == text


@pytest.mark.parametrize("text", ["", "100", "0/s", "1/d", "1.5/s", "-1/s", "1/s ", "1e3/s", "9999999999/s"])
def test_wrong_rates(text: str) -> None:
    with pytest.raises(ValueError, match="a rate must be a whole number"):
        parse_rate(text)


# -- the key file ---------------------------------------------------------------------------------------------


def test_the_file_keeps_keys_as_they_are_and_only_for_its_owner(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "new" / "data")
    assert file.load() == [] and file.signature() is None
    text, key = made("invoke:a*", "read", quota=Quota(parse_rate("5/m"), 7, 2), expires=2_000_000_000.0)
    file.add(key)
    file.add(made("admin", name="other")[1])
    assert file.load()[0] == key
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert [f.name for f in file.path.parent.iterdir()] == ["keys.json"]
    assert text[13:] not in file.path.read_text()
    before = file.signature()
    assert file.revoke("other").name == "other"
    assert file.signature() != before
    assert file.revoke(key.id) == key
    assert file.load() == []


def test_a_key_is_revoked_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    (_, one), (_, two) = (made("admin", name=name) for name in ("one", "two"))
    alike = replace(two, id=f"{one.id[:7]}{'a' if one.id[7] != 'a' else 'b'}")
    file.add(one)
    file.add(alike)
    with pytest.raises(ValueError, match="several keys") as fault:
        file.revoke(one.id[:7])
    assert all(f"{key.id} ({key.name})" in str(fault.value) for key in (one, alike))
    assert file.revoke(alike.id) == alike
    with pytest.raises(ValueError, match="no key has this id"):
        file.revoke(one.id[:3])
    assert file.revoke(one.id[:4]) == one


def test_names_are_taken_once_and_what_is_not_there_is_not_revoked(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    file.add(made("admin")[1])
    with pytest.raises(ValueError, match="a key with this name exists already"):
        file.add(made("admin")[1])
    with pytest.raises(ValueError, match="no key has this id or name"):
        file.revoke("nobody")
    assert len(file.load()) == 1


GOOD = {"name": "a", "hash": HASH, "scopes": ["read"]}


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "it is not JSON"),
        ("\xff", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", "its version is not 1"),
        ('{"version": 2, "keys": []}', "its version is not 1"),
        ('{"version": 1}', "it has no list `keys`"),
        *(
            (json.dumps({"version": 1, "keys": [GOOD | {"name": "b"}, entry]}), "key 2 is invalid")
            for entry in (
                None,
                [],
                "text",
                {},
                {**GOOD, "hash": "x"},
                {**GOOD, "hash": None},
                {**GOOD, "scopes": "read"},
                {**GOOD, "scopes": [1]},
                {**GOOD, "scopes": []},
                {**GOOD, "name": 1},
                {**GOOD, "rate": 1},
                {**GOOD, "burst": 1},
                {**GOOD, "concurrency": "x"},
                {**GOOD, "expires": 1},
                {**GOOD, "more": 1},
            )
        ),
        (json.dumps({"version": 1, "keys": [GOOD, GOOD]}), "two keys have the same id"),
    ],
)
def test_a_damaged_file_is_told_by_its_name_and_place(tmp_path: Path, content: str, fault: str) -> None:
    file = KeyFile(tmp_path)
    file.path.write_text(content, encoding="latin-1")
    with pytest.raises(KeyFileFault, match=re.escape(f"{file.path}: {fault}")):
        file.load()
    with pytest.raises(KeyFileFault):
        file.add(made("admin")[1])
    assert file.path.read_text(encoding="latin-1") == content, "it is not overwritten"


# -- changes --------------------------------------------------------------------------------------------------


async def test_a_running_gateway_takes_changes_up(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    door = Door(file=file)
    text, key = made("admin")
    assert slug(door.call(None)) is None
    file.add(key)
    door.access.look()
    assert [slug(door.call(None)), slug(door.call(text)), door.access.keys] == ["unauthorized", None, 1]
    file.revoke(key.id)
    door.access.look()
    assert [slug(door.call(None)), slug(door.call(text))] == ["unauthorized"] * 2, "closed stays closed"
    assert door.access.keys == 0


async def test_it_looks_by_itself(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    door = Door(file=file)
    following = asyncio.ensure_future(door.access.follow())
    await door.clock.settle()
    file.add(made("admin")[1])
    await door.clock.advance(1.0)  # as docs/access.md promises
    assert door.access.keys == 1
    following.cancel()


async def test_what_runs_is_counted_on_when_other_keys_change(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    text, key = made("admin", quota=Quota(parse_rate("2/h"), concurrency=1))
    file.add(key)
    door = Door(file=file)
    running = door.call(text)
    file.add(made("admin", name="other")[1])
    door.access.look()
    assert slug(door.call(text)) == "quota-exceeded"
    assert isinstance(running, KeyHolder)
    running.ended()
    assert [slug(door.call(text)) for _ in range(2)] == [None, "quota-exceeded"]
    assert door.refusals() == {"concurrency": 2}


async def test_a_damaged_file_changes_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = KeyFile(tmp_path)
    text, key = made("admin")
    file.add(key)
    door = Door(file=file)
    file.path.write_text("damaged")
    for _ in range(3):
        door.access.look()
    assert slug(door.call(text)) is None
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    file.path.unlink()
    door.access.look()
    assert slug(door.call(text)) == "unauthorized"


def test_a_gateway_that_others_reach_is_closed_without_any_key() -> None:
    assert slug(Door(closed=True).call(None)) == "unauthorized"


def test_keys_of_the_environment_stay_when_the_file_changes(tmp_path: Path) -> None:
    file = KeyFile(tmp_path)
    text, key = made("admin")
    door = Door(key, file=file)
    file.add(made("admin", name="other")[1])
    door.access.look()
    assert door.access.keys == 2
    assert slug(door.call(text)) is None


def test_a_key_has_as_many_bodies_on_their_way_as_its_concurrency() -> None:
    """Of requests that are not calls; those have their own count."""
    _, key = create("weak", parse_scopes(["invoke:*"]), Quota(concurrency=1), None, 0.0)
    holder = KeyHolder(key, 0.0)
    with holder.sending():
        with pytest.raises(Problem) as refused, holder.sending():
            pytest.fail("two bodies at once")
        assert refused.value.slug == "quota-exceeded"
    with holder.sending(), OPEN.sending(), OPEN.sending():
        pass


def test_whether_a_call_would_be_admitted_is_asked_without_counting_it() -> None:
    text, key = create("weak", parse_scopes(["invoke:mine"]), Quota(concurrency=1), None, 0.0)
    access = Access(VirtualClock(), Metrics(), [key])
    headers = [(b"x-hearth-key", text.encode())]
    assert access.would_admit(headers, b"/invoke/mine")
    assert not access.would_admit(headers, b"/invoke/other")
    assert not access.would_admit([], b"/invoke/mine")
    assert headers == [(b"x-hearth-key", text.encode())]
    assert isinstance(access.admit_call(headers.copy(), b"/invoke/mine"), KeyHolder)
    assert not access.would_admit(headers, b"/invoke/mine")
    assert Access(VirtualClock(), Metrics()).would_admit([], b"/invoke/any")
