"""`hearth dev`: serves one function while it is written."""

from __future__ import annotations

import asyncio
import logging
import shutil
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import click
import uvloop

from gateway.assembly.definitions_file import DefinitionsFile
from gateway.assembly.runtime import Runtime
from gateway.assembly.server import Serving, serve
from gateway.cli.dev.chosen import Choice, ChoiceError, Chosen
from gateway.cli.dev.console import DevConsole
from gateway.cli.dev.data_folder import UnsafeFolder, temporary_folder
from gateway.cli.dev.plain import plain_engine
from gateway.cli.errors import CallerError, CommandError, check_engine_address
from gateway.cli.given_settings import SettingsFault, settings_from
from gateway.cli.terminal import say
from pool.data_folder import DataFolder, DataFolderInUse
from pool.engine.base import EngineError
from pool.instance import Instance
from scheduler.definitions.file import DefinitionsError, Kind

log = logging.getLogger("hearth")

DEFAULT_PORT = 8080
CALLS = {
    Kind.HANDLER: """hearth invoke {name}{url} --data '{{"name":"Ada"}}'""",
    Kind.HTTP: "hearth invoke {name}{url} --path /",
    Kind.COMMAND: "printf 'one two three' | hearth invoke {name}{url} -",
}


@click.command()
@click.argument("folder", type=click.Path(path_type=Path), default=".")
@click.option("--function", "name", metavar="NAME", help="Function of functions.yaml, if it has several.")
@click.option(
    "--no-container",
    "plain",
    is_flag=True,
    help="Run a Python handler as a plain process of yours: no isolation, no limits, no Docker.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port to listen on. [default: 8080, or a free one]"
)
def dev(folder: Path, name: str | None, plain: bool, port: int | None) -> None:
    """Serve one function, and its new code after each save.

    FOLDER has a handler.py or a functions.yaml (default: this folder). The command prints each call, what the
    function prints, and its faults. A save that does not work leaves the code before in service. Ctrl-C ends it and
    leaves nothing behind.

    \b
    Examples:
      hearth dev
      hearth dev functions/hello
      hearth dev --function resize --port 9000
      hearth dev hello --no-container
    """
    if not plain:
        check_engine_address()
    if not folder.is_dir():
        raise CallerError(f"there is no folder {folder}; write a function with `hearth new {folder.name}`")
    folder = folder.resolve()
    options = {"host": "127.0.0.1", "port": free_port(port), "api_keys": [], "drain_timeout": "5s"}
    try:
        settings = settings_from({**options, "data_dir": temporary_folder(folder)})
        allowed = settings.allowed_volumes, settings.allowed_capabilities
        choice = Choice(folder, name, plain, *allowed)
        chosen = choice.find()
        definitions = choice.alone(chosen.definition)
    except DefinitionsError as error:
        say(str(error), err=True)
        raise click.exceptions.Exit(2) from error
    except (ChoiceError, SettingsFault, UnsafeFolder) as error:
        raise CallerError(str(error)) from error
    try:
        data = DataFolder(settings.data_dir)
    except DataFolderInUse as error:
        raise CallerError(
            f"hearth dev runs in {folder} already (process {error.holder}); stop it first"
        ) from error
    source = chosen.definition.source
    console = DevConsole(source and shown_folder(Path(source)), plain)
    serving = Serving(
        settings=settings,
        file=DefinitionsFile(chosen.file, choice.read, at_once=True),
        definitions=definitions,
        folder=data,
        engine=plain_engine(settings.data_dir) if plain else None,
        wrap=console.watch_calls,
    )
    log_to(console)
    try:
        uvloop.run(run(serving, console, chosen))
    except OSError as error:
        raise CommandError(str(error)) from error
    finally:
        shutil.rmtree(settings.data_dir, ignore_errors=True)


async def run(serving: Serving, console: DevConsole, chosen: Chosen) -> None:
    """Serve until a signal comes."""
    asking: list[asyncio.Task[None]] = []

    def made(runtime: Runtime) -> None:
        runtime.scheduler_floor.registry.on_state = console.settled
        starter = runtime.pool_floor.launcher.starter
        keep = starter.reports.on_output

        def output(instance: Instance, data: bytes) -> None:
            keep(instance, data)
            console.output(instance.id, data)

        starter.reports = replace(starter.reports, on_output=output)
        asking.append(asyncio.ensure_future(ask_engine(runtime)))

    def ready(runtime: Runtime, url: str) -> None:
        definition = chosen.definition
        where = shown_folder(Path(definition.source)) if definition.source else definition.image
        say(f"{definition.name} ({where}) is served on {url}")
        say("Each save is served at once. Ctrl-C ends it.")
        option = "" if url.endswith(f":{DEFAULT_PORT}") else f" --url {url}"
        say(f"Try:  {CALLS[definition.kind].format(name=definition.name, url=option)}")
        if serving.engine is not None:
            console.warn_plain()

    try:
        await serve(serving, ready, made)
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def log_to(console: DevConsole) -> None:
    """Have the console print what the gateway logs."""
    root = logging.getLogger()
    root.handlers[:] = [console]
    root.setLevel(logging.INFO)
    for library in ("uvicorn", "uvicorn.error", "asyncio", "httpx", "httpcore", "aiohttp"):
        logging.getLogger(library).setLevel(logging.WARNING)


def free_port(wanted: int | None) -> int:
    """Return the port that is wanted, else the default one if nobody has it, else 0 for any."""
    if wanted is not None:
        return wanted
    with socket.socket() as probe, suppress(OSError):
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", DEFAULT_PORT))
        return DEFAULT_PORT
    return 0


def shown_folder(folder: Path) -> Path:
    """Return a folder as the user would write it here."""
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


async def ask_engine(runtime: Runtime) -> None:
    """Give advice if the container engine does not answer. The gateway keeps trying by itself."""
    try:
        await runtime.pool_floor.engine.ping()
    except EngineError:
        log.warning(
            "Start a container engine, or run `hearth doctor` to find the cause. "
            "`hearth dev --no-container` needs none, and isolates nothing."
        )
