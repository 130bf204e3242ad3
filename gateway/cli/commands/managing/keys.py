"""The command `hearth keys`: create, list and revoke the API keys of a data folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from gateway.access.key_file import KeyFile, KeyFileFault
from gateway.access.keys import Key, create, format_moment, parse_quota
from gateway.access.scopes import parse_scopes
from gateway.assembly.settings import Settings
from gateway.cli.common import CallerError, CommandError, json_option, print_json
from gateway.cli.given_settings import SettingsFault, setting_options, settings_from
from gateway.cli.groups import SuggestingGroup
from gateway.cli.human import human_time
from gateway.cli.tables import print_table
from gateway.cli.terminal import say
from pool.data_folder import FolderUse, look_at
from scheduler.definitions.language.units import parse_duration

DATA_FOLDER = "data folder"
"""Place of keys in JSON; the others are in HEARTH_API_KEYS."""
LONGEST_LIFE_SECONDS = 100 * 365 * 86400.0
"""Longest validity of a key: a hundred years, so that the year still has four digits."""


@click.group(cls=SuggestingGroup)
def keys() -> None:
    """Create, list and revoke API keys.

    As soon as a key exists, every call needs one. The gateway's data folder stores only their hashes. A running
    gateway applies changes within a second. Give the --data-dir of your gateway.

    \b
    Examples:
      hearth keys create shop --scope 'invoke:shop-*' --rate 100/s
      hearth keys create prometheus --scope read
      hearth keys create ci --scope 'invoke:*' --scope deploy --expires 30d
      hearth keys list
      hearth keys revoke shop
    """


@keys.command("create")
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    metavar="SCOPE",
    multiple=True,
    required=True,
    help="Permission: invoke:NAME (* matches any characters), read, deploy or admin. Repeatable.",
)
@click.option("--expires", metavar="DURATION", help="Validity, like 12h or 30d. Default: until revoked.")
@click.option("--rate", metavar="N/s|N/m|N/h", help="Most requests in a second, minute or hour.")
@click.option("--burst", metavar="N", help="Most requests at once after a pause. Default: the N of the rate.")
@click.option("--concurrency", metavar="N", help="Most calls that run or wait at the same time.")
@click.option("--print-only", is_flag=True, help="Do not store the key; print its entry for HEARTH_API_KEYS.")
@click.option(
    "--new-folder",
    is_flag=True,
    help="Store the key although no gateway has used this data folder yet.",
)
@setting_options("data_dir")
def create_key(
    name: str,
    scopes: tuple[str, ...],
    expires: str | None,
    rate: str | None,
    burst: str | None,
    concurrency: str | None,
    print_only: bool,
    new_folder: bool,
    data_dir: str | None,
) -> None:
    """Create a key and print it on stdout. It is never shown again.

    Only its hash is stored. The data folder must be one that a gateway has used, so that a gateway reads the key;
    --new-folder allows any other.

    \b
    Examples:
      hearth keys create shop --scope 'invoke:shop-*' --rate 100/s
      hearth keys create me --scope admin > key
      hearth keys create ci --scope 'invoke:*' --expires 30d --print-only
    """
    settings = settings_of(data_dir)
    now = time.time()
    with faults_told(settings):
        quota = parse_quota(rate, burst, concurrency)
        end = None if expires is None else now + life(expires)
        text, key = create(name, parse_scopes(scopes), quota, end, now)
        if print_only:
            reader = f"For HEARTH_API_KEYS:\n  {entry_of(key)}"
        else:
            use = look_at(settings.data_dir)
            if not (use.known or new_folder or file(settings).path.exists()):
                raise ValueError(
                    f"{unknown_folder(settings, 'so none would read the key')}; "
                    "or add --new-folder to store the key for a gateway that you start with this folder later"
                )
            if name in (other.name for other in settings.api_keys):
                raise ValueError("a key of HEARTH_API_KEYS has this name already; choose another name")
            file(settings).add(key)
            reader = (
                f"Stored as {name} ({key.id}) in {settings.data_dir}. {reader_of(use)} It is not shown again."
            )
    say(text)
    say(reader, err=True)


@keys.command("list")
@json_option
@setting_options("data_dir")
def list_keys(as_json: bool, data_dir: str | None) -> None:
    """List the keys in the data folder and in HEARTH_API_KEYS.

    Their secrets are not shown; only hashes are stored.

    \b
    Examples:
      hearth keys list
      hearth keys list --json
    """
    settings = settings_of(data_dir)
    with faults_told(settings):
        kept = [(key, DATA_FOLDER) for key in file(settings).load()]
        use = look_at(settings.data_dir)
    shown: list[dict[str, Any]] = [
        {
            "id": key.id,
            "name": key.name,
            "scopes": list(key.scopes.words),
            "rate": str(key.quota.rate) if key.quota.rate else None,
            "burst": key.quota.burst,
            "concurrency": key.quota.concurrency,
            "created": None if key.created is None else format_moment(key.created),
            "expires": None if key.expires is None else format_moment(key.expires),
            "expired": key.expires is not None and key.expires <= time.time(),
            "from": source,
        }
        for key, source in kept + [(key, "HEARTH_API_KEYS") for key in settings.api_keys]
    ]
    if as_json:
        print_json(shown)
        return
    if not shown:
        say(without_keys(settings, use), err=True)
        return
    print_table(
        ("ID", "NAME", "SCOPES", "RATE", "AT ONCE", "EXPIRES", "FROM"),
        [
            (
                key["id"],
                key["name"],
                " ".join(key["scopes"]),
                key["rate"] or "-",
                str(key["concurrency"] or "-"),
                "expired" if key["expired"] else human_time(key["expires"]),
                "folder" if key["from"] == DATA_FOLDER else key["from"],
            )
            for key in shown
        ],
    )


@keys.command("revoke")
@click.argument("key", metavar="ID|NAME")
@setting_options("data_dir")
def revoke_key(key: str, data_dir: str | None) -> None:
    """Revoke a key.

    A running gateway refuses it within a second; calls that run with it finish. After the last key was revoked, a
    running gateway refuses every caller until you create a key or restart it.

    \b
    Examples:
      hearth keys revoke shop
    """
    settings = settings_of(data_dir)
    with faults_told(settings):
        use = look_at(settings.data_dir)
        if not settings.data_dir.is_dir():
            raise ValueError(unknown_folder(settings, "so it has no keys"))
        gone = file(settings).revoke(key)
        last = not file(settings).load() and not settings.api_keys
    say(f"revoked {gone.name} ({gone.id})")
    if last:
        say(f"It was the last one. {without_keys(settings, use)}", err=True)


def unknown_folder(settings: Settings, consequence: str) -> str:
    """Return the message for a data folder that no gateway has been started with."""
    return (
        f"no gateway has used the data folder {settings.data_dir.resolve()} yet, {consequence}. "
        "Give your gateway's data folder with --data-dir (default: .hearth in the folder where it was started)"
    )


def reader_of(use: FolderUse) -> str:
    """Return a sentence that says when a gateway accepts a key that was just stored."""
    if use.started_ns is not None:
        return "The running gateway accepts it within a second."
    return "No gateway runs with this folder now; the next one accepts it."


def without_keys(settings: Settings, use: FolderUse) -> str:
    """Return a message that says who may call while the data folder and HEARTH_API_KEYS have no key."""
    everybody = (
        "every program on this machine may do everything (unless the gateway has keys in HEARTH_API_KEYS)"
    )
    if use.started_ns is not None:
        if file(settings).changed_since(use.started_ns):
            return (
                "There is no key, and the running gateway refuses every caller, because its last key was revoked. "
                f"Create a key with `hearth keys create`, or restart the gateway: then {everybody}."
            )
        return f"There is no key: {everybody}."
    if not use.known:
        return f"There is no key: {unknown_folder(settings, 'so it has none')}."
    return (
        "There is no key, and no gateway runs with this data folder. "
        f"If you start one, it listens only on a loopback address, and {everybody}."
    )


def settings_of(data_dir: str | None) -> Settings:
    """Return the settings that concern keys. Raises `CallerError`."""
    try:
        return settings_from({"data_dir": data_dir})
    except SettingsFault as error:
        raise CallerError(str(error)) from error


@contextmanager
def faults_told(settings: Settings) -> Iterator[None]:
    """Turn faults of the request or of the key file into the command's own errors."""
    try:
        yield
    except ValueError as error:
        raise CallerError(str(error)) from error
    except KeyFileFault as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(
            f"cannot read or write the keys in {settings.data_dir}: {error.strerror}"
        ) from error


def file(settings: Settings) -> KeyFile:
    """Return the key file of the data folder."""
    return KeyFile(settings.data_dir)


def life(text: str) -> float:
    """Return the seconds of a text such as `30d`. Raises ValueError."""
    seconds = parse_duration(text)
    if not 0 < seconds <= LONGEST_LIFE_SECONDS:
        raise ValueError("--expires must be above 0s and at most 36500d")
    return seconds


def entry_of(key: Key) -> str:
    """Return the line that HEARTH_API_KEYS takes for this key."""
    quota = key.quota
    words = {
        "name": key.name,
        "rate": quota.rate,
        "burst": quota.burst,
        "concurrency": quota.concurrency,
        "expires": None if key.expires is None else format_moment(key.expires),
    }
    given = (f"{name}={value}" for name, value in words.items() if value is not None)
    return " ".join((key.hashed, *key.scopes.words, *given))
