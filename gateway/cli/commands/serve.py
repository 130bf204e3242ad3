"""`hearth serve`: the gateway itself."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import click
import uvloop

from gateway.access.guard import is_loopback
from gateway.access.key_file import KeyFile, KeyFileFault
from gateway.assembly.runtime import Runtime
from gateway.assembly.server import serve as serve_gateway
from gateway.assembly.settings import Settings
from gateway.cli import log_format
from gateway.cli.common import Failure, Mistake, check_engine_address, print_table
from gateway.cli.given_settings import (
    SECRET,
    SettingsFault,
    setting_options,
    settings_from,
    unknown_variables,
    variable_of,
)
from gateway.cli.terminal import say
from gateway.cli.watch.progress import Progress
from pool.data_folder import DataFolder, DataFolderInUse, look_at
from pool.engine.base import EngineError
from scheduler.definitions.file import Definitions, DefinitionsError, load
from scheduler.definitions.language.callback_allow import Allowed
from scheduler.deploy.registry import Declared

log = logging.getLogger("hearth")

TRIES = {
    "handler": """curl -d '{{"name":"Ada"}}' {url}/invoke/{name}""",
    "http": "curl {url}/invoke/{name}/",
    "command": "printf 'one two three' | curl --data-binary @- {url}/invoke/{name}",
}
"""A first call of a function, by its kind."""
KEY_HEADER = '-H "Authorization: Bearer $HEARTH_API_KEY"'


@click.command()
@setting_options()
def serve(**options: object) -> None:
    """Serve the functions of a functions.yaml until SIGTERM or Ctrl-C, then leave nothing behind.

    With --keep-warm, warm containers are left for the next start with the same data folder.

    Options go before HEARTH_ variables, and these before defaults.

    \b
    Examples:
      hearth serve
      hearth serve --functions shop/functions.yaml --port 9000 --data-dir shop/.hearth
      HEARTH_MEMORY_BUDGET=2GiB hearth serve --log-level debug

    \b
    Exit status: 0 after a signal; 1 if the port or the data folder cannot be had; 2 if functions.yaml or a
    setting is faulty, or there is no key and the address is public, before anything else is touched.
    """
    settings, definitions = checked(options)
    log_format.configure(settings.log_level, settings.log_format)
    for message in unknown_variables():
        log.warning("%s", message)
    try:
        folder = DataFolder(settings.data_dir)
    except DataFolderInUse as error:
        raise Failure(str(error)) from error
    except OSError as error:
        raise Failure(
            f"the data folder {settings.data_dir} cannot be used: {error.strerror}; --data-dir takes another"
        ) from error
    try:
        uvloop.run(run(settings, definitions, folder))
    except OSError as error:
        log.debug("the gateway ended", exc_info=error)
        raise Failure(str(error)) from error


def checked(options: dict[str, object]) -> tuple[Settings, Definitions]:
    """Settings and definitions; ends with status 2 if there is a fault in either."""
    check_engine_address()
    try:
        settings = settings_from(options)
        for secret in SECRET:  # no process that is started from here needs to know
            os.environ.pop(variable_of(secret), None)
        check_keys(settings)
        return settings, load(
            settings.functions,
            allowed_volumes=settings.allowed_volumes,
            allowed_callbacks=Allowed(settings.callback_allow),
        )
    except (SettingsFault, KeyFileFault) as error:
        raise Mistake(str(error)) from error
    except DefinitionsError as error:
        say(str(error), err=True)  # as compilers do it: editors jump to FILE:LINE:COLUMN
        sys.exit(2)


def check_keys(settings: Settings) -> None:
    """Raise `Mistake` if everybody could call who reaches the address, and `KeyFileFault`."""
    keys = KeyFile(settings.data_dir)
    if keys.load() or settings.api_keys or is_loopback(settings.host):
        return
    raise Mistake(
        f"{settings.host} is reached from other machines, and there is no key: everybody could call.\n"
        f"  Either create one:  hearth keys create NAME --scope admin --data-dir {settings.data_dir}"
        f"{'' if look_at(settings.data_dir).known else ' --new-folder'}\n"
        "  or let only this machine call:  --host 127.0.0.1"
    )


async def run(settings: Settings, definitions: Definitions, folder: DataFolder) -> None:
    """Serve, with progress until the functions can be called."""
    progress = Progress(definitions)
    asking: list[asyncio.Task[None]] = []

    def made(runtime: Runtime) -> None:
        runtime.scheduler_floor.registry.on_state = progress.settled
        asking.append(asyncio.ensure_future(ask_engine(runtime)))

    def ready(runtime: Runtime, url: str) -> None:
        progress.close()
        runtime.scheduler_floor.registry.on_state = tell
        print_ready(runtime, url)

    try:
        await serve_gateway(settings, definitions, folder, ready, made)
    finally:
        progress.close()
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


async def ask_engine(runtime: Runtime) -> None:
    """Say what to do if the engine does not answer; the gateway goes on trying by itself."""
    try:
        await runtime.pool_floor.engine.ping()
    except EngineError as error:
        log.warning(
            "the container engine does not answer (%s); `make serve` starts one, `hearth doctor` says more",
            error,
        )


def tell(declared: Declared) -> None:
    """A function was set up again while serving; that it failed is logged where it is known why."""
    if declared.fault is None:
        name, version = declared.definition.name, declared.version
        log.info("function %s is ready", name, extra={"function": name, "version": version})


def print_ready(runtime: Runtime, url: str) -> None:
    """Where to go from here, on stdout."""
    url = reachable(url, runtime.settings.host)
    say(f"Hearth serves on {url}")
    for path, what in (
        ("/docs", "try the functions in a browser"),
        ("/pool", "what is warm"),
        ("/metrics", "for Prometheus"),
    ):
        say(f"  {url}{path:<9} {what}")
    declared = list(runtime.scheduler_floor.registry.declared.values())
    if not declared:
        say(f"\nNo function is declared; `hearth init hello` adds one to {runtime.settings.functions}")
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
        say("Calls need a key; `hearth keys create` makes one")
    sys.stdout.flush()


def first_call(declared: list[Declared], url: str, needs_key: bool = False) -> str | None:
    """A line to try that fits a function that is ready: hello if there is one, else the first handler."""
    ready = [d.definition for d in declared if d.state == "ready"]
    kinds = list(TRIES)
    ready.sort(key=lambda d: (d.name != "hello", kinds.index(d.kind.value)))
    if not ready:
        return None
    line = TRIES[ready[0].kind.value].format(url=url, name=ready[0].name)
    return line.replace("curl ", f"curl {KEY_HEADER} ") if needs_key else line


def reachable(url: str, host: str) -> str:
    """An address that a client of this machine can use: not the one that means every interface."""
    port = url.rpartition(":")[2]
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{port}"


def first_line(text: str | None) -> str:
    """The beginning of a fault; `hearth functions` shows all of it."""
    return (text or "").strip().partition("\n")[0]
