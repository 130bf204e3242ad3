"""The command `hearth keys`: create, list and revoke the API keys of a data folder."""

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
from pool.data_folder import FolderUse, look_at
from scheduler.definitions.language.units import parse_duration

LONGEST_LIFE_SECONDS = 100 * 365 * 86400.0
"""Most that `--expires` takes: a hundred years, so that the date still has four digits."""


@click.group()
def keys() -> None:
    """Create, list and revoke API keys.

    As soon as there is one, every call needs one. The gateway's data folder keeps their hashes; a running gateway
    takes changes up within a second. Give the --data-dir that the gateway serves with.

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
    "--expires", metavar="DURATION", help="How long it is valid: 12h, 30d. Without it: until revoked."
)
@click.option("--rate", metavar="N/s|N/m|N/h", help="The most requests in a second, a minute or an hour.")
@click.option("--burst", metavar="N", help="The most requests at a stroke. Without it: the N of the rate.")
@click.option("--concurrency", metavar="N", help="The most calls that run or wait at once.")
@click.option("--print-only", is_flag=True, help="Do not keep it: print what HEARTH_API_KEYS takes.")
@click.option(
    "--new-folder",
    is_flag=True,
    help="Keep it for a gateway that is to be started with this data folder later.",
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
    """Create a key and print it on stdout. It is shown this once: only its hash is kept.

    The data folder must be a gateway's, or no gateway would ever read the key; --new-folder takes any other.

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
        if print_only:
            reader = f"For HEARTH_API_KEYS:\n  {entry_of(key)}"
        else:
            use = look_at(settings.data_dir)
            if not (use.known or new_folder or file(settings).path.exists()):
                raise ValueError(
                    f"{unknown_folder(settings, 'so none would read the key')}; "
                    "or add --new-folder to keep the key for a gateway that is to be started with this one"
                )
            if name in (other.name for other in settings.api_keys):
                raise ValueError("a key of HEARTH_API_KEYS has this name already")
            file(settings).add(key)
            reader = (
                f"Kept as {name} ({key.id}) in {settings.data_dir}; {reader_of(use)}. It is not shown again."
            )
    say(text)
    say(reader, err=True)


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
        use = look_at(settings.data_dir)
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
        say(without_keys(settings, use))
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

    After the last key, a running gateway refuses every caller until there is a key or it is restarted.

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
        "Give the folder that your gateway serves with as --data-dir (its default is .hearth, where it was started)"
    )


def reader_of(use: FolderUse) -> str:
    """Return when a gateway takes up a key that was just kept."""
    if use.started_ns is not None:
        return "the running gateway takes it up within a second"
    return "no gateway runs with this folder now, the next one to be started with it takes it up"


def without_keys(settings: Settings, use: FolderUse) -> str:
    """Return who may call while the data folder and HEARTH_API_KEYS have no key."""
    everybody = (
        "every program of this machine may do everything (unless the gateway has keys in HEARTH_API_KEYS)"
    )
    if use.started_ns is not None:
        if file(settings).changed_since(use.started_ns):
            return (
                "There is no key, and the running gateway refuses every caller: its last key was revoked. "
                f"Create a key with `hearth keys create`; or restart the gateway, then {everybody}."
            )
        return f"There is no key: {everybody}."
    if not use.known:
        return f"There is no key: {unknown_folder(settings, 'so it has none')}."
    return (
        "There is no key, and no gateway runs with this data folder. "
        f"If one is started, it listens on a loopback address only and {everybody}."
    )


def settings_of(data_dir: str | None) -> Settings:
    """Return the settings that concern keys. Raises `Mistake`."""
    try:
        return settings_from({"data_dir": data_dir})
    except SettingsFault as error:
        raise Mistake(str(error)) from error


@contextmanager
def faults_told(settings: Settings) -> Iterator[None]:
    """Turn faults of the request or of the key file into the command's own errors."""
    try:
        yield
    except ValueError as error:
        raise Mistake(str(error)) from error
    except KeyFileFault as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(
            f"the keys of {settings.data_dir} cannot be read or written: {error.strerror}"
        ) from error


def file(settings: Settings) -> KeyFile:
    """Return the key file of the data folder."""
    return KeyFile(settings.data_dir)


def life(text: str) -> float:
    """Return the seconds of a text such as `30d`. Raises ValueError."""
    seconds = parse_duration(text)
    if not 0 < seconds <= LONGEST_LIFE_SECONDS:
        raise ValueError("a key is good for more than 0s and for 36500d at the most")
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
