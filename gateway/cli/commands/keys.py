"""`hearth keys`: create, list and revoke the API keys of a data folder."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import click

from gateway.access.key_file import KeyFile, KeyFileFault
from gateway.access.keys import Key, create, format_moment, parse_quota
from gateway.access.scopes import parse_scopes
from gateway.assembly.settings import Settings
from gateway.cli.common import Failure, Mistake, json_option, print_json, print_table
from gateway.cli.given_settings import SettingsFault, setting_options, settings_from
from gateway.cli.terminal import say
from scheduler.definitions.language.units import parse_duration

LONGEST_LIFE = 100 * 365 * 86400.0
"""Seconds until a key must have expired, if it is to expire."""


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    As soon as there is one, every call needs one. They are kept in the data folder, as hashes; a running gateway
    takes changes up within a second.

    \b
    Examples:
      hearth keys create shop --scope 'invoke:shop-*' --rate 100/s --concurrency 20
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
    help="What it may do: invoke:NAME (* stands for any characters), read, deploy, admin. Can be repeated.",
)
@click.option(
    "--expires", metavar="DURATION", help="How long it is good: 12h, 30d. Without it: until revoked."
)
@click.option("--rate", metavar="N/s|N/m|N/h", help="The most requests in a second, a minute or an hour.")
@click.option("--burst", metavar="N", help="The most requests at a stroke. Without it: the N of the rate.")
@click.option("--concurrency", metavar="N", help="The most calls that run or wait at once.")
@click.option("--print-only", is_flag=True, help="Do not keep it: print what HEARTH_API_KEYS takes.")
@setting_options("data_dir")
def create_key(
    name: str,
    scopes: tuple[str, ...],
    expires: str | None,
    rate: str | None,
    burst: str | None,
    concurrency: str | None,
    print_only: bool,
    data_dir: str | None,
) -> None:
    """Create a key and print it on stdout. It is shown this once: only its hash is kept.

    \b
    Examples:
      hearth keys create shop --scope 'invoke:shop-*' --rate 100/s
      hearth keys create me --scope admin > key && export HEARTH_API_KEY_FILE=$PWD/key
    """
    settings = settings_of(data_dir)
    now = time.time()
    with faults_told(settings):
        quota = parse_quota(rate, burst, concurrency)
        end = None if expires is None else now + life(expires)
        text, key = create(name, parse_scopes(scopes), quota, end, now)
        if not print_only:
            if name in (other.name for other in settings.api_keys):
                raise ValueError("a key of HEARTH_API_KEYS has this name already")
            file(settings).add(key)
    say(text)
    if print_only:
        say(f"For HEARTH_API_KEYS:\n  {entry_of(key)}", err=True)
    else:
        say(f"Kept as {name} ({key.id}) in {settings.data_dir}. It is not shown again.", err=True)


@keys.command("list")
@json_option
@setting_options("data_dir")
def list_keys(as_json: bool, data_dir: str | None) -> None:
    """List the keys of the data folder and of HEARTH_API_KEYS, without their secrets.

    \b
    Examples:
      hearth keys list
      hearth keys list --json
    """
    settings = settings_of(data_dir)
    with faults_told(settings):
        kept = [(key, "data folder") for key in file(settings).load()]
    shown = [
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
        say("There is no key: whoever reaches the gateway may do everything, and it stays on loopback.")
        return
    print_table(
        ("ID", "NAME", "SCOPES", "RATE", "CONCURRENCY", "EXPIRES", "FROM"),
        [
            (
                str(key["id"]),
                str(key["name"]),
                " ".join(map(str, key["scopes"])),  # type: ignore[arg-type]
                str(key["rate"] or "-"),
                str(key["concurrency"] or "-"),
                "expired" if key["expired"] else str(key["expires"] or "-"),
                str(key["from"]),
            )
            for key in shown
        ],
    )


@keys.command("revoke")
@click.argument("key", metavar="ID|NAME")
@setting_options("data_dir")
def revoke_key(key: str, data_dir: str | None) -> None:
    """End a key. A running gateway refuses it within a second; calls that run with it finish.

    When the last one goes, a gateway that runs refuses everybody until it is started anew.

    \b
    Examples:
      hearth keys revoke shop
    """
    settings = settings_of(data_dir)
    with faults_told(settings):
        gone = file(settings).revoke(key)
    say(f"revoked {gone.name} ({gone.id})")


def settings_of(data_dir: str | None) -> Settings:
    """The settings that concern keys. Raises `Mistake`."""
    try:
        return settings_from({"data_dir": data_dir})
    except SettingsFault as error:
        raise Mistake(str(error)) from error


@contextmanager
def faults_told(settings: Settings) -> Iterator[None]:
    """What is wrong with what was asked for, or with the key file, in the command's own errors."""
    try:
        yield
    except ValueError as error:
        raise Mistake(str(error)) from error
    except KeyFileFault as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(f"the keys of {settings.data_dir} cannot be written: {error.strerror}") from error


def file(settings: Settings) -> KeyFile:
    """The key file of the data folder."""
    return KeyFile(settings.data_dir)


def life(text: str) -> float:
    """Seconds of `30d`. Raises ValueError."""
    seconds = parse_duration(text)
    if not 0 < seconds <= LONGEST_LIFE:
        raise ValueError("a key is good for more than 0s and for 36500d at the most")
    return seconds


def entry_of(key: Key) -> str:
    """What HEARTH_API_KEYS takes for this key."""
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
