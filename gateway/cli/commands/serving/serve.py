"""`hearth serve`: runs a gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import click
import uvloop

from gateway.access.key_file import KeyFile, KeyFileFault
from gateway.assembly.definitions_file import DefinitionsFile
from gateway.assembly.runtime import Runtime
from gateway.assembly.server import Serving
from gateway.assembly.server import serve as serve_gateway
from gateway.assembly.settings import Settings
from gateway.cli import log_format
from gateway.cli.errors import CallerError, CommandError, check_engine_address
from gateway.cli.given_settings import (
    SECRET,
    SettingsFault,
    setting_options,
    settings_from,
    unknown_variables,
    variable_of,
)
from gateway.cli.machine.probe import own_container
from gateway.cli.printed.printer import OutputPrinter
from gateway.cli.tables import print_table
from gateway.cli.terminal import say
from gateway.cli.watch.progress import SetupProgress
from gateway.http.loopback import is_loopback
from pool.data_folder import DataFolder, DataFolderInUse, look_at
from pool.engine.base import EngineError
from scheduler.definitions.file import Definitions, DefinitionsError
from scheduler.deploy.declared import Declared

log = logging.getLogger("hearth")

TRIES = {
    "handler": """curl -d '{{"name":"Ada"}}' {url}/invoke/{name}""",
    "http": "curl {url}/invoke/{name}/",
    "command": "printf 'one two three' | curl --data-binary @- {url}/invoke/{name}",
}
"""Example of a first call, by kind of function."""
INIT_FILE = "functions.yaml"
"""Name of the file that `hearth init` writes."""
KEY_HEADER = '-H "Authorization: Bearer $HEARTH_API_KEY"'


@click.command()
@setting_options()
def serve(**options: object) -> None:
    """Serve the functions of functions.yaml.

    SIGTERM or Ctrl-C stops the gateway. Then it removes all its containers and networks. With --keep-warm it leaves
    warm containers for the next start with the same data folder.

    An option overrides its HEARTH_ variable, which overrides the default.

    \b
    Examples:
      hearth serve
      hearth serve --functions shop/functions.yaml --data-dir shop/.hearth
      hearth serve --port 9000 --keep-warm
      HEARTH_MEMORY_BUDGET=2GiB hearth serve --log-level debug

    \b
    Exit status:
      0  stopped by a signal
      1  the port or the data folder cannot be used
      2  a fault in functions.yaml or a setting, or a public address without a key
    """
    settings, file, definitions = checked(options)
    log_format.configure(settings.log_level, settings.log_format)
    for message in unknown_variables():
        log.warning("%s", message)
    try:
        folder = DataFolder(settings.data_dir)
    except DataFolderInUse as error:
        raise CommandError(str(error)) from error
    except OSError as error:
        raise CommandError(
            f"cannot use the data folder {settings.data_dir}: {error.strerror}; choose another with --data-dir"
        ) from error
    try:
        uvloop.run(run(Serving(settings=settings, file=file, definitions=definitions, folder=folder)))
    except OSError as error:
        log.debug("The gateway ended with an error.", exc_info=error)
        raise CommandError(str(error)) from error


def checked(options: dict[str, object]) -> tuple[Settings, DefinitionsFile, Definitions]:
    """Return the settings, the definitions file, and what it declares.

    A fault in either ends the command with status 2.
    """
    check_engine_address()
    try:
        settings = settings_from(options)
        for secret in SECRET:  # processes that we start must not inherit them
            os.environ.pop(variable_of(secret), None)
        check_file(settings.functions.absolute())
        check_keys(settings)
        file = DefinitionsFile.of(settings)
        return settings, file, file.read()
    except (SettingsFault, KeyFileFault) as error:
        raise CallerError(str(error)) from error
    except DefinitionsError as error:
        say(str(error), err=True)  # without "Error:", so that editors find FILE:LINE:COLUMN as from compilers
        sys.exit(2)


def check_file(file: Path) -> None:
    """Raise `CallerError` if there is no functions.yaml: a gateway in the wrong folder would serve nothing."""
    if file.exists():
        return
    elsewhere = "" if file.parent == Path.cwd() else f" --dir {file.parent}"
    steps = ["Name another file:       hearth serve --functions FILE"]
    if file.name == INIT_FILE:
        steps.insert(0, f"Write a first function:  hearth init hello{elsewhere}")
    raise CallerError("\n  ".join([f"there is no {file.name} in {file.parent}", *steps]))


def check_keys(settings: Settings) -> None:
    """Raise `CallerError` if other machines reach the address and there is no key. Also raises `KeyFileFault`."""
    keys = KeyFile(settings.data_dir)
    if keys.load() or settings.api_keys or is_loopback(settings.host):
        return
    raise CallerError(
        f"other machines can reach {settings.host}, and there is no key: everybody could call.\n"
        f"  Create a key:  hearth keys create NAME --scope admin --data-dir {settings.data_dir}"
        f"{'' if look_at(settings.data_dir).known else ' --new-folder'}\n"
        "  or allow only this machine:  --host 127.0.0.1"
    )


async def run(serving: Serving) -> None:
    """Serve until a signal comes, and show progress until the functions are ready."""
    settings = serving.settings
    # Before the bar of the progress, which takes the place of stderr.
    printer = None if settings.quiet else OutputPrinter(log_format.form_of(settings.log_format))
    progress = SetupProgress(serving.definitions)
    asking: list[asyncio.Task[None]] = []

    def made(runtime: Runtime) -> None:
        if printer is not None:
            runtime.pool_floor.journal.sinks.append(printer.offer)
        runtime.scheduler_floor.registry.on_state = progress.settled
        asking.append(asyncio.ensure_future(ask_engine(runtime)))

    def ready(runtime: Runtime, url: str) -> None:
        progress.close()
        runtime.scheduler_floor.registry.on_state = log_ready
        print_ready(runtime, url)

    try:
        await serve_gateway(serving, ready, made)
    finally:
        progress.close()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        if printer is not None:
            await asyncio.to_thread(printer.close)


async def ask_engine(runtime: Runtime) -> None:
    """Log advice if the engine does not answer, or not have our data folder. The gateway keeps trying by itself."""
    engine = runtime.pool_floor.engine
    try:
        await engine.ping()
        remote = runtime.pool_floor.launcher.starter.remote is not None
        if own_container() is not None and not remote:
            from gateway.cli.machine.checks import (
                why_not_shared,  # only in a container: others start without it
            )

            if fault := await why_not_shared(engine, runtime.settings):
                log.error("Functions with a runtime cannot be reached: %s", fault)
    except EngineError as error:
        log.warning(
            "The container engine does not answer: %s. Start one with `hearth setup`, "
            "or run `hearth doctor` to find the cause.",
            error,
        )


def log_ready(declared: Declared) -> None:
    """Log that a function was set up again. The registry logs faults itself."""
    if declared.fault is None:
        name, version = declared.definition.name, declared.version
        log.info("function %s is ready", name, extra={"function": name, "version": version})


def print_ready(runtime: Runtime, url: str) -> None:
    """Print on stdout where the gateway serves, its functions, and a first call."""
    url = reachable(url, runtime.settings.host)
    say(f"Hearth serves on {url}")
    for path, what in (
        ("/docs", "try the functions in a browser"),
        ("/pool", "instances and memory"),
        ("/metrics", "metrics for Prometheus"),
    ):
        say(f"  {url}{path:<9} {what}")
    declared = list(runtime.scheduler_floor.registry.declared.values())
    if not declared:
        say(f"\nNo function is declared. Add one to {runtime.settings.functions}: hearth init hello")
        return
    say()
    print_table(
        ("FUNCTION", "KIND", "STATE", "FAULT"),
        [
            (
                d.definition.name,
                d.definition.kind.value,
                d.state,
                first_line(d.fault),
            )
            for d in declared
        ],
    )
    needs_key = runtime.gateway_floor.access.keys is not None
    if example := first_call(declared, url, needs_key):
        say(f"\nTry:  {example}")
    if needs_key:
        say("Calls need a key. Create one with: hearth keys create")
    sys.stdout.flush()


def first_call(declared: list[Declared], url: str, needs_key: bool = False) -> str | None:
    """Return a command that calls a ready function, or None if none is ready.

    It calls hello if that exists, else the first handler.
    """
    ready = [d.definition for d in declared if d.state == "ready"]
    kinds = list(TRIES)
    ready.sort(key=lambda d: (d.name != "hello", kinds.index(d.kind.value)))
    if not ready:
        return None
    line = TRIES[ready[0].kind.value].format(url=url, name=ready[0].name)
    return line.replace("curl ", f"curl {KEY_HEADER} ") if needs_key else line


def reachable(url: str, host: str) -> str:
    """Return an address for clients on this machine. The address that means every interface is not one."""
    port = url.rpartition(":")[2]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


def first_line(text: str | None) -> str:
    """Return the first line of a fault. `hearth functions` shows all lines."""
    return (text or "").strip().partition("\n")[0]
