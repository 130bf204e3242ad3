"""`hearth prune`: removes objects of earlier gateways from the engine."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import click

from gateway.cli.common import CallerError, CommandError, check_engine_address, confirmed, print_json
from gateway.cli.given_settings import SettingsFault, setting_options, settings_from
from gateway.cli.interruption import Interrupted
from gateway.cli.leftovers import Leftovers, find, remove
from gateway.cli.tables import print_table
from gateway.cli.terminal import say
from pool.adoption.records import left_warm
from pool.data_folder import DataFolder, DataFolderInUse
from pool.engine.base import Engine, EngineError
from pool.engine.docker import DockerEngine
from pool.engine.labels import container_name
from pool.host.etc_files import EtcFiles
from pool.host.firewall import FirewallError
from pool.host.kept_calls import KeptCalls
from pool.observe.metrics import Metrics


@click.command()
@setting_options("data_dir")
@click.option("--yes", "-y", is_flag=True, help="Remove without asking.")
@click.option(
    "--warm", is_flag=True, help="Also remove containers that serve --keep-warm left for the next start."
)
@click.option(
    "--all", "everybody", is_flag=True, help="Also remove objects of gateways with other data folders."
)
@click.option("--json", "as_json", is_flag=True, help="Print what would be removed as JSON; remove nothing.")
def prune(data_dir: str | None, yes: bool, warm: bool, everybody: bool, as_json: bool) -> None:
    """Remove leftovers of dead gateways from the engine.

    These are containers, networks, built images and firewall rules. A gateway removes its own when it stops, and an
    earlier process's when it starts. So use this for a gateway that was killed and that you will not start again.

    Only the lock of this data folder shows that its gateway is dead. A gateway with another data folder may be alive,
    so its objects are removed only with --all. Containers that --keep-warm left are removed only with --warm or
    --all.

    \b
    Examples:
      hearth prune
      hearth prune --data-dir shop/.hearth --yes
      hearth prune --warm
      hearth prune --all
      hearth prune --json | jq -r '.[].name'
    """
    if as_json and yes:
        raise click.UsageError("give only one of --json and --yes")
    check_engine_address()
    try:
        path = settings_from({"data_dir": data_dir}).data_dir
    except SettingsFault as error:
        raise CallerError(str(error)) from error
    folder = alive = None
    try:
        if (path / "identity").exists():
            folder = DataFolder(path)  # holds its lock, so that no gateway starts in it meanwhile
    except DataFolderInUse as error:
        say(f"Skipping the data folder {path}: its gateway runs (process {error.holder}).", err=True)
        alive = (path / "identity").read_text().strip()
    except OSError as error:
        raise CommandError(f"cannot use the data folder {path}: {error.strerror}") from error
    try:
        asyncio.run(run(folder, alive, Pruning(yes, warm or everybody, everybody, as_json)))
    except KeyboardInterrupt:
        raise Interrupted("Stopped. Run the command again to remove the rest.") from None
    except (EngineError, FirewallError) as error:
        raise CommandError(f"{error}; run `hearth doctor` to find the cause") from error
    finally:
        if folder is not None:
            folder.close()


@dataclass(frozen=True)
class Pruning:
    """The options of `hearth prune`: things to remove, and how to ask."""

    yes: bool
    warm: bool
    everybody: bool
    as_json: bool
    """True to print what would be removed, and to remove nothing."""


async def run(folder: DataFolder | None, alive: str | None, wanted: Pruning) -> None:
    """List, ask and remove: first the leftovers of this data folder, then those of others."""
    engine = DockerEngine(None, Metrics())
    try:
        found = await find(engine)
        own = [left for left in found if folder is not None and left.is_of(folder.id)]
        others = [left for left in found if left not in own and not (alive and left.is_of(alive))]
        kept = 0
        if folder is not None and not wanted.warm:
            names = {container_name(id) for id in left_warm(folder.records)}
            kept = sum(name in names for left in own for name in left.containers.values())
            own = [rest for left in own if (rest := left.without(names)).count]
        if wanted.as_json:
            print_json(in_json(own + (others if wanted.everybody else [])))
            return
        if not own and not kept and not alive and not (others and wanted.everybody):
            say("No leftovers of this data folder's gateway.", err=True)
        if own:
            show(own)
        agreed = not own or await settle(engine, own, wanted.yes, "Remove this?")
        if agreed and folder is not None and not kept:
            EtcFiles(folder.etc).drop_all_but(())
            KeptCalls(folder.run).drop_all_but(())
            folder.clear()
        if kept:
            say(f"{kept} warm containers stay for the gateway's next start; --warm removes them too.")
        await settle_others(engine, others, wanted)
    finally:
        await engine.close()


async def settle_others(engine: Engine, others: list[Leftovers], wanted: Pruning) -> None:
    """Ask about and remove the leftovers of other data folders if that is wanted, else say how many there are."""
    if not others:
        return
    if wanted.everybody:
        show(others)
        say(
            "Their gateways have other data folders. If one is alive, its running calls will fail.", wrap=True
        )
        await settle(engine, others, wanted.yes, "Remove these too?")
        return
    count = sum(left.count for left in others)
    things = "1 object" if count == 1 else f"{count} objects"
    say(f"Left alone: {things} of gateways with other data folders; --all lists them.")


def in_json(left: list[Leftovers]) -> list[dict[str, str]]:
    """Return leftovers as a list for JSON."""
    return [
        {"gateway": one.gateway, "kind": kind, "name": name} for one in left for kind, name in one.named()
    ]


def show(left: list[Leftovers]) -> None:
    """Print a table of leftovers."""
    print_table(
        ("GATEWAY", "KIND", "NAME"),
        [(one.gateway[:8], kind, name) for one in left for kind, name in one.named()],
    )


async def settle(engine: Engine, left: list[Leftovers], yes: bool, question: str) -> bool:
    """Ask unless `yes`, remove the leftovers, and return whether the user agreed. Raises `CommandError`."""
    if not confirmed(question, yes):
        say("Nothing was removed.")
        return False
    faults: list[str] = []
    for one in left:
        for name, fault in await remove(engine, one):
            say(f"removed {name}" if fault is None else f"could not remove {name}", err=fault is not None)
            faults += [fault] if fault else []
    if faults:
        raise CommandError("\n".join(faults))
    return True
