"""`hearth keys`, the keys that the other commands call with, and that no key is where others can read it."""

from __future__ import annotations

import functools
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import click
import httpx
import pytest
from click.testing import CliRunner, Result

from gateway.access.access import Access
from gateway.access.key_file import KeyFile
from gateway.access.keys import KEY, digest_of, parse_keys
from gateway.assembly.server import Serving
from gateway.cli import COMMANDS, common, main
from gateway.cli.client import GatewayClient
from gateway.cli.given_settings import SettingsFault, settings_from
from pool.clock import VirtualClock
from pool.data_folder import DataFolder
from pool.observe.metrics import Metrics

SECRET = "hth_abcdefgh_" + "secret77" * 4
OTHER = "hth_hgfedcba_" + "secret66" * 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder that a gateway has used."""
    DataFolder(tmp_path / "data").close()
    return tmp_path / "data"


def run(*arguments: str | Path, **variables: str) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments], env=variables)


# -- create, list, revoke --------------------------------------------------------------------------------------


def test_a_key_is_created_shown_once_listed_and_revoked(data: Path) -> None:
    limits = ("--rate", "100/s", "--burst", "200", "--concurrency", "20", "--expires", "30d")
    made = run(
        "keys",
        "create",
        "shop",
        "--scope",
        "invoke:shop-*",
        "--scope",
        "read",
        *limits,
        "--data-dir",
        data,
    )
    assert made.exit_code == 0
    text = made.stdout.strip()
    assert KEY.fullmatch(text) and text not in made.stderr
    (kept,) = KeyFile(data).load()
    assert (kept.name, kept.digest) == ("shop", digest_of(text))
    assert kept.expires is not None and kept.created is not None
    assert abs(kept.expires - kept.created - 30 * 86400) <= 1
    assert stat.S_IMODE((data / "keys.json").stat().st_mode) == 0o600
    listed = run("keys", "list", "--json", "--data-dir", data)
    (shown,) = json.loads(listed.stdout)
    assert (shown["id"], shown["scopes"], shown["from"]) == (
        kept.id,
        ["invoke:shop-*", "read"],
        "data folder",
    )
    assert (shown["rate"], shown["burst"], shown["concurrency"]) == ("100/s", 200, 20)
    table = run("keys", "list", "--data-dir", data).stdout
    assert "invoke:shop-* read" in table and "100/s" in table
    for output in (listed.stdout, table):
        assert text[13:] not in output and kept.digest.hex() not in output
    gone = run("keys", "revoke", "shop", "--data-dir", data)
    assert (gone.exit_code, gone.stdout) == (0, f"revoked shop ({kept.id})\n")
    assert gone.stderr.startswith("It was the last one. There is no key, and no gateway runs")
    assert "There is no key" in run("keys", "list", "--data-dir", data).stderr
    assert json.loads(run("keys", "list", "--json", "--data-dir", data).stdout) == []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("a b", "--scope", "read"), "a key's name must be"),
        (("me", "--scope", "write"), "scope 1 is invalid"),
        (("me",), "Missing option '--scope'"),
        (("me", "--scope", "read", "--rate", "fast"), "a rate must be"),
        (("me", "--scope", "read", "--burst", "3"), "a burst needs a rate"),
        (("me", "--scope", "read", "--concurrency", "0"), "a concurrency must be"),
        (("me", "--scope", "read", "--expires", "soon"), "'soon' is not a duration"),
        (("me", "--scope", "read", "--expires", "0s"), "--expires must be above 0s"),
        (("me", "--scope", "read", "--expires", "99999d"), "at most 36500d"),
        (("taken", "--scope", "read"), "a key with this name exists already"),
        (("given", "--scope", "read"), "a key of HEARTH_API_KEYS has this name"),
    ],
)
def test_what_cannot_be_created_says_why(data: Path, arguments: tuple[str, ...], fault: str) -> None:
    run("keys", "create", "taken", "--scope", "read", "--data-dir", data)
    result = run(
        "keys", "create", *arguments, "--data-dir", data, HEARTH_API_KEYS=f"{SECRET} read name=given"
    )
    assert (result.exit_code, result.stdout) == (2, "")
    assert fault in result.stderr
    assert len(KeyFile(data).load()) == 1


def test_nobody_to_revoke_and_a_damaged_file(data: Path) -> None:
    result = run("keys", "revoke", "nobody", "--data-dir", data)
    assert (result.exit_code, "no key has this id or name" in result.stderr) == (2, True)
    (data / "keys.json").write_text("damaged")
    for words in (("list",), ("revoke", "a"), ("create", "a", "--scope", "read")):
        result = run("keys", *words, "--data-dir", data)
        assert (result.exit_code, "it is not JSON" in result.stderr) == (1, True)


def test_print_only_makes_a_line_that_the_variable_takes(data: Path) -> None:
    words = (
        "--scope",
        "invoke:*",
        "--scope",
        "read",
        "--rate",
        "5/m",
        "--concurrency",
        "2",
        "--expires",
        "1h",
    )
    made = run("keys", "create", "me", *words, "--print-only", "--data-dir", data)
    assert made.exit_code == 0 and not (data / "keys.json").exists()
    text, line = made.stdout.strip(), made.stderr.splitlines()[-1].strip()
    (key,) = parse_keys(line)
    assert key.is_of(text.encode()) and text not in line
    assert (key.name, key.scopes.words, str(key.quota.rate)) == ("me", ("invoke:*", "read"), "5/m")
    assert key.quota.concurrency == 2 and key.expires is not None
    listed = run("keys", "list", "--data-dir", data, HEARTH_API_KEYS=line).stdout
    assert "HEARTH_API_KEYS" in listed and "me" in listed


def test_each_subcommand_has_help_with_examples() -> None:
    group = main.get_command(click.Context(main), "keys")
    assert isinstance(group, click.Group)
    for name, command in group.commands.items():
        assert "Examples:" in (command.help or "") and f"hearth keys {name}" in (command.help or "")
        assert all(p.help for p in command.params if isinstance(p, click.Option)), name


# -- which data folder -----------------------------------------------------------------------------------------


def test_a_key_goes_to_no_folder_that_no_gateway_reads(tmp_path: Path) -> None:
    other = tmp_path / "other"
    words = ("keys", "create", "me", "--scope", "read", "--data-dir", other)
    refused = run(*words)
    assert (refused.exit_code, refused.stdout, other.exists()) == (2, "", False)
    assert f"no gateway has used the data folder {other} yet, so none would read the key" in refused.stderr
    assert "--data-dir" in refused.stderr and "--new-folder" in refused.stderr
    made = run(*words, "--new-folder")
    assert made.exit_code == 0 and "No gateway runs with this folder now" in made.stderr
    assert [key.name for key in KeyFile(other).load()] == ["me"]
    second = run("keys", "create", "you", "--scope", "read", "--data-dir", other)
    assert second.exit_code == 0, "the folder was meant"


def test_list_and_revoke_name_the_folder_that_is_no_gateways_and_do_not_make_it(tmp_path: Path) -> None:
    other = tmp_path / "other"
    listed = run("keys", "list", "--data-dir", other)
    assert f"no gateway has used the data folder {other} yet" in listed.stderr
    revoked = run("keys", "revoke", "me", "--data-dir", other)
    assert (revoked.exit_code, f"the data folder {other} yet" in revoked.stderr) == (2, True)
    assert not other.exists()


def test_who_may_call_without_a_key_is_said_as_the_gateway_has_it(data: Path) -> None:
    """The gateway in this process is made as a gateway makes it: its folder, then its keys."""
    list_words = ("keys", "list", "--data-dir", data)
    create_words = ("keys", "create", "me", "--scope", "read", "--data-dir", data)
    open_to_all, refuses = "every program on this machine may do everything", "refuses every caller"

    stopped = run(*list_words).stderr
    assert "no gateway runs with this data folder" in stopped and open_to_all in stopped
    for keys_before in (0, 1):
        folder = DataFolder(data)
        access = Access(VirtualClock(), Metrics(), file=KeyFile(data))
        said = run(*list_words).stderr
        assert not access.closed and said.startswith(f"There is no key: {open_to_all}")
        made = run(*create_words)
        assert made.exit_code == 0 and "The running gateway accepts it within a second" in made.stderr
        if keys_before:
            access.look()
        revoked = run("keys", "revoke", "me", "--data-dir", data)
        access.look()
        said = run(*list_words).stderr
        assert access.closed and refuses in said and refuses in revoked.stderr
        folder.close()
        assert "no gateway runs with this data folder" in run(*list_words).stderr


def test_a_key_file_without_keys_that_goes_away_closes_nothing(data: Path) -> None:
    run("keys", "create", "me", "--scope", "read", "--data-dir", data)
    run("keys", "revoke", "me", "--data-dir", data)
    access = Access(VirtualClock(), Metrics(), file=KeyFile(data))
    KeyFile(data).path.unlink()
    access.look()
    assert not access.closed


# -- the variable ----------------------------------------------------------------------------------------------


def test_a_faulty_variable_is_refused_without_being_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "functions.yaml").write_text("version: 1\nfunctions: {}\n")
    result = run(
        "serve", "--functions", tmp_path / "functions.yaml", HEARTH_API_KEYS=f"{SECRET} read {SECRET}"
    )
    assert result.exit_code == 2
    assert "HEARTH_API_KEYS: key 1: scope 2 is invalid" in result.stderr
    assert "secret77" not in result.output
    monkeypatch.setenv("HEARTH_API_KEYS", f"{SECRET} read {SECRET}")
    with pytest.raises(SettingsFault) as error:
        settings_from({})
    assert "secret77" not in f"{error.value!r} {error.value.__cause__}"


def test_the_settings_keep_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTH_API_KEYS", f"{SECRET} read")
    settings = settings_from({})
    assert settings.api_keys[0].digest == digest_of(SECRET)
    assert "secret77" not in repr(settings) + str(settings.model_dump())


@pytest.mark.parametrize(
    ("host", "keys", "kept", "refused"),
    [
        ("0.0.0.0", "", False, True),
        ("::", "", False, True),
        ("192.0.2.1", "", False, True),
        ("gateway.example", "", False, True),
        ("0.0.0.0", f"{SECRET} read", False, False),
        ("0.0.0.0", "", True, False),
        ("127.0.0.1", "", False, False),
        ("localhost", "", False, False),
    ],
)
def test_a_public_address_needs_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, keys: str, kept: bool, refused: bool
) -> None:
    ran: list[str] = []

    async def note(serving: Serving) -> None:
        ran.append(serving.settings.host)
        serving.folder.close()
        assert "HEARTH_API_KEYS" not in os.environ, "nobody who is started from here gets the keys"

    monkeypatch.setattr("gateway.cli.commands.serving.serve.run", note)
    monkeypatch.setattr("gateway.cli.commands.serving.serve.log_format.configure", lambda *_: None)
    (tmp_path / "functions.yaml").write_text("version: 1\nfunctions: {}\n")
    data = tmp_path / "data"
    if kept:
        run("keys", "create", "me", "--scope", "read", "--data-dir", data, "--new-folder")
    words = ("serve", "--host", host, "--data-dir", data, "--functions", tmp_path / "functions.yaml")
    result = run(*words, HEARTH_API_KEYS=keys)
    assert (result.exit_code, ran) == ((2, []) if refused else (0, [host]))
    if refused:
        assert f"--data-dir {data} --new-folder\n" in result.stderr and "--host 127.0.0.1" in result.stderr
        assert not data.exists()


# -- calling with a key ----------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[httpx.Request]:
    """What a gateway in our place was asked."""
    requests: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(200, stream=httpx.ByteStream(b"[]"))

    client: Callable[..., GatewayClient] = functools.partial(
        GatewayClient, transport=httpx.MockTransport(answer)
    )
    monkeypatch.setattr(common, "GatewayClient", client)
    return requests


@pytest.mark.parametrize(
    "words", [("invoke", "f", "--data", "1"), ("functions", "--json"), ("logs", "--call", "x")]
)
def test_commands_send_the_key_they_are_given(
    asked: list[httpx.Request], tmp_path: Path, words: tuple[str, ...]
) -> None:
    file = tmp_path / "key"
    file.write_text(f"{OTHER}\n")
    for variables, arguments, key in (
        ({}, (), None),
        ({"HEARTH_API_KEY": SECRET}, (), SECRET),
        ({"HEARTH_API_KEY": f" {SECRET}\n"}, (), SECRET),
        ({"HEARTH_API_KEY": SECRET, "HEARTH_API_KEY_FILE": str(file)}, (), OTHER),
        ({"HEARTH_API_KEY": SECRET}, ("--key-file", str(file)), OTHER),
    ):
        assert run(*words, *arguments, **variables).exit_code == 0
        assert asked[-1].headers.get("authorization") == (key and f"Bearer {key}")
    assert len(asked) == 5


def test_an_authorization_for_the_function_goes_beside_the_key(asked: list[httpx.Request]) -> None:
    assert run("invoke", "f", "-H", "Authorization: Basic mine", HEARTH_API_KEY=SECRET).exit_code == 0
    assert asked[0].headers["authorization"] == "Basic mine"
    assert asked[0].headers["x-hearth-key"] == SECRET


@pytest.mark.parametrize("key", ["mistaken-secret77", f"{SECRET}\r\nx: y", f"{SECRET}x", "\xe9" * 45])
def test_what_is_no_key_is_not_sent_and_not_repeated(asked: list[httpx.Request], key: str) -> None:
    result = run("functions", HEARTH_API_KEY=key)
    assert result.exit_code == 2
    assert "is not a key of Hearth" in result.stderr and "secret77" not in result.stderr
    assert asked == []


def test_a_key_file_that_cannot_be_read(asked: list[httpx.Request], tmp_path: Path) -> None:
    result = run("functions", "--key-file", tmp_path / "none")
    assert (result.exit_code, "No such file" in result.stderr) == (2, True)
    (tmp_path / "binary").write_bytes(b"\xff")
    assert "it is not text" in run("functions", "--key-file", tmp_path / "binary").stderr
    assert asked == []


def test_no_option_takes_a_key() -> None:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command is not None
        options = {option for parameter in command.params for option in parameter.opts}
        assert not options & {"--key", "--api-key", "--api-keys"}
