"""`hearth prune`: remove what earlier gateways have left on the engine."""

from __future__ import annotations

import asyncio

import click

from gateway.cli.common import Failure, Mistake, check_engine_address, print_table
from gateway.cli.given_settings import SettingsFault, setting_options, settings_from
from gateway.cli.leftovers import Leftovers, find, remove
from gateway.cli.terminal import say
from pool.adoption.records import left_warm
from pool.data_folder import DataFolder, DataFolderInUse
from pool.engine.base import Engine, EngineError
from pool.engine.docker import DockerEngine
from pool.engine.labels import container_name
from pool.host.firewall import FirewallError
from pool.host.hosts_files import HostsFiles
from pool.observe.metrics import Metrics


@click.command()
@setting_options("data_dir")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.option(
    "--warm", is_flag=True, help="What a gateway stopped with --keep-warm left for its next start, too."
)
@click.option(
    "--all", "everybody", is_flag=True, help="What gateways with other data folders have left, too."
)
def prune(data_dir: str | None, yes: bool, warm: bool, everybody: bool) -> None:
    """Remove what earlier gateways have left on the engine: containers, networks, built images, firewall rules.

    A gateway removes its own when it stops, and what an earlier self left when it starts: this is for one that
    was killed and is not to be started again. Images that it built are listed as well; the next start would use
    them. That a gateway is dead is known for this data folder only, by its lock: one of another folder may be
    alive, so its things are touched with --all only. What one of this data folder was told to leave by --keep-warm
    is touched with --warm or --all only.

    \b
    Examples:
      hearth prune
      hearth prune --data-dir shop/.hearth --yes
      hearth prune --warm
      hearth prune --all
    """
    check_engine_address()
    try:
        path = settings_from({"data_dir": data_dir}).data_dir
    except SettingsFault as error:
        raise Mistake(str(error)) from error
    folder = alive = None
    try:
        if (path / "identity").exists():
            folder = DataFolder(path)  # its lock is held meanwhile: no gateway starts in it
    except DataFolderInUse as error:
        say(f"Left alone: {error}.", err=True)
        alive = (path / "identity").read_text().strip()
    except OSError as error:
        raise Failure(f"the data folder {path} cannot be used: {error.strerror}") from error
    try:
        asyncio.run(run(folder, alive, yes, warm or everybody, everybody))
    except (EngineError, FirewallError) as error:
        raise Failure(f"{error}; `hearth doctor` says more") from error
    finally:
        if folder is not None:
            folder.close()


async def run(folder: DataFolder | None, alive: str | None, yes: bool, warm: bool, everybody: bool) -> None:
    """List, ask, remove; first of this data folder, then of others."""
    engine = DockerEngine(None, Metrics())
    try:
        found = await find(engine)
        own = [left for left in found if folder is not None and left.is_of(folder.id)]
        others = [left for left in found if left not in own and not (alive and left.is_of(alive))]
        kept = 0
        if folder is not None and not warm:
            names = {container_name(id) for id in left_warm(folder.records)}
            kept = sum(name in names for left in own for name in left.containers.values())
            own = [rest for left in own if (rest := left.without(names)).count]
        if not own and not kept and not (others and everybody):
            say("Nothing is left of this data folder's gateway.")
        if own:
            show(own)
        if (not own or await settle(engine, own, yes, "Remove this?")) and folder is not None and not kept:
            HostsFiles(folder.hosts).drop_all_but(())
            folder.clear()
        if kept:
            say(f"{kept} warm containers are left for the gateway's next start; --warm removes them, too.")
        if others and everybody:
            show(others)
            click.secho(
                "Their gateways have other data folders. If one is alive, its running calls will fail.",
                fg="yellow",
            )
            await settle(engine, others, yes, "Remove what belongs to them?")
        elif others:
            count = sum(left.count for left in others)
            say(f"{count} things of gateways with other data folders are left alone; --all lists them.")
    finally:
        await engine.close()


def show(left: list[Leftovers]) -> None:
    """What would be removed."""
    print_table(
        ("GATEWAY", "KIND", "NAME"),
        [(one.gateway[:8], kind, name) for one in left for kind, name in one.named()],
    )


async def settle(engine: Engine, left: list[Leftovers], yes: bool, question: str) -> bool:
    """Remove, if that is wanted, and say what was removed; whether it was wanted."""
    if not yes and not click.confirm(question):
        say("Nothing was removed.")
        return False
    faults: list[str] = []
    for one in left:
        for deed, fault in await remove(engine, one):
            say(f"removed {deed}" if fault is None else f"could not remove {deed}", err=fault is not None)
            faults += [fault] if fault else []
    if faults:
        raise Failure("\n".join(faults))
    return True
