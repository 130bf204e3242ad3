"""`hearth shell`: looks around in a container like those of a function."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import click

from gateway.assembly.definitions_file import DefinitionsFile
from gateway.assembly.settings import Settings
from gateway.cli.common import CallerError, CommandError, check_engine_address
from gateway.cli.given_settings import SettingsFault, setting_options, settings_from
from gateway.cli.names import FUNCTION
from gateway.cli.shell.room import NoProgram, ShellRoom
from gateway.cli.shell.terminal_link import tie
from gateway.cli.terminal import say
from pool.engine.base import EngineError
from pool.errors import StartFailed
from scheduler.definitions.file import DefinitionsError, FunctionDefinition
from scheduler.definitions.source_folder import SourceError
from scheduler.deploy.images.function_images import ImageBuildError
from scheduler.deploy.images.image_volumes import VolumeRefused


@click.command()
@click.argument("function", type=FUNCTION)
@click.option("--python", is_flag=True, help="Start Python, with the function's code importable.")
@setting_options("functions", "data_dir")
def shell(function: str, python: bool, functions: Path | None, data_dir: Path | None) -> None:
    """Open a shell in a container like those of a function.

    The container is a fresh one on this machine's engine, with the function's image, limits, user, network and
    mounts. A handler's code is in /function, and Python can import it. No gateway need run, and no call goes to the
    container. It is removed when the shell ends.

    \b
    Examples:
      hearth shell hello
      hearth shell hello --python
    """
    check_engine_address()
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise CallerError("hearth shell needs a terminal; to run one command, use `hearth run IMAGE COMMAND`")
    try:
        settings = settings_from({"functions": functions, "data_dir": data_dir})
        definitions = DefinitionsFile.of(settings).read()
    except SettingsFault as error:
        raise CallerError(str(error)) from error
    except DefinitionsError as error:
        say(str(error), err=True)
        raise click.exceptions.Exit(2) from error
    definition = definitions.functions.get(function)
    if definition is None:
        names = ", ".join(definitions.functions) or "none"
        raise CallerError(f"{settings.functions} has no function {function}; it has {names}")
    try:
        status = asyncio.run(look_around(settings, definition, python))
    except NoProgram as error:
        raise CallerError(str(error)) from error
    except (EngineError, SourceError, ImageBuildError, VolumeRefused, StartFailed) as error:
        raise CommandError(f"{error}; run `hearth doctor` to find the cause") from error
    raise click.exceptions.Exit(status)


async def look_around(settings: Settings, definition: FunctionDefinition, python: bool) -> int:
    """Open a room, tie the terminal to it, and return the exit status of the shell."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    room = ShellRoom(settings)
    try:
        await room.open(definition, python)
        return await tie(room.engine, room.container)
    finally:
        await room.close()
