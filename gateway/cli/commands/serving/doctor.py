"""`hearth doctor`: checks this machine, and names the next step for each fault."""

from __future__ import annotations

import asyncio
import dataclasses
import sys

import click

from gateway.assembly.settings import Settings, is_apart
from gateway.cli.common import CallerError, check_engine_address, json_option, print_json
from gateway.cli.given_settings import SettingsFault, setting_options, settings_from
from gateway.cli.interruption import Interrupted
from gateway.cli.machine.checks import Check, can_run_functions, examine
from gateway.cli.machine.remote_checks import examine_remote
from gateway.cli.tables import print_table
from gateway.cli.terminal import say
from pool.engine.docker import DockerEngine
from pool.observe.metrics import Metrics


@click.command()
@setting_options("data_dir", "memory_budget")
@json_option
def doctor(as_json: bool, **options: object) -> None:
    """Check this machine, and say what to do about each fault.

    This starts a container for a moment. The exit status is 0 if functions can run, else 1.

    \b
    Examples:
      hearth doctor
      hearth doctor --json | jq '.checks[] | select(.state != "ok")'
    """
    check_engine_address()
    try:
        settings = settings_from(options)
    except SettingsFault as error:
        raise CallerError(str(error)) from error
    try:
        checks = asyncio.run(run(settings))
    except KeyboardInterrupt:
        raise Interrupted("Stopped. The container of the checks is removed.") from None
    able = can_run_functions(checks)
    if as_json:
        print_json({"can_run_functions": able, "checks": [dataclasses.asdict(check) for check in checks]})
    else:
        print_table(("STATE", "CHECK", "FOUND"), [(c.state, c.name, c.found) for c in checks])
        for check in checks:
            if check.state != "ok":
                say(f"\n{check.name}: {check.next_step}", wrap=True)
        say("\nFunctions can run." if able else "\nFunctions cannot run yet.")
    sys.exit(0 if able else 1)


async def run(settings: Settings) -> list[Check]:
    """Return the results of all checks, with the engine that a gateway would use."""
    engine = DockerEngine(None, Metrics(), apart=is_apart(settings.engine_files))
    try:
        return await examine(settings, engine, remote=examine_remote if engine.apart else None)
    finally:
        await engine.close()
