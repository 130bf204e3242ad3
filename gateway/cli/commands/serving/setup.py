"""`hearth setup`: brings what this machine lacks, and takes it away again.

It runs at each `make serve`, so it imports little: neither httpx nor the settings of a gateway.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import wrap

import click

from gateway.cli.errors import CommandError
from gateway.cli.terminal import say
from gateway.setup.engine import PACKAGES, EngineSetupError
from gateway.setup.engine_api import EngineApiError
from gateway.setup.images import BuildError
from gateway.setup.machine import Machine, MissingParts
from gateway.setup.native.init_build import InitBuildError, own_compiler
from gateway.setup.packages import PackagesError
from gateway.setup.program import program
from gateway.setup.record import RecordError, SetupRecord
from gateway.setup.service import ServiceError, ServicePlaces, SystemService

DEFAULT_SERVICE = ServicePlaces()
TEXT_WIDTH = 78
"""Columns of a plan, so that it fits the narrowest usual terminal."""
KIND_WIDTH = 12
"""Columns of the first column of a plan."""


@click.command()
@click.option("--yes", "-y", is_flag=True, help="Change this machine without asking.")
@click.option("--engine", "engine_only", is_flag=True, help="Bring the container engine only, no images.")
@click.option(
    "--rebuild", is_flag=True, help="Build the images anew, as after security updates of their base."
)
@click.option("--systemd", is_flag=True, help="Also install and start a service of systemd.")
@click.option("--remove", is_flag=True, help="Take away what setup has brought, and nothing else.")
@click.option("--with-data", is_flag=True, help="With --remove: also delete the service's data folder.")
@click.option(
    "--functions",
    type=click.Path(path_type=Path, dir_okay=False),
    default=DEFAULT_SERVICE.functions,
    show_default=True,
    help="functions.yaml of the service.",
)
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=DEFAULT_SERVICE.data_dir,
    show_default=True,
    help="Data folder of the service.",
)
def setup(
    yes: bool,
    engine_only: bool,
    rebuild: bool,
    systemd: bool,
    remove: bool,
    with_data: bool,
    functions: Path,
    data_dir: Path,
) -> None:
    """Bring what this machine lacks: an engine and images.

    It says what it would change, and asks. It changes nothing if nothing is missing, so run it at any time. As root
    on Debian or Ubuntu it installs and starts a Docker Engine if none answers. It builds the base and runtime images.

    It keeps a record of what it brings. --remove takes that away, and leaves what was there before, your functions
    and the data folder.

    \b
    Examples:
      hearth setup
      hearth setup --yes
      hearth setup --systemd
      hearth setup --remove

    \b
    Exit status:
      0  nothing is missing any more
      1  something could not be brought or removed, or you did not agree
      2  the options do not fit together
    """
    check_options(remove, with_data, systemd or engine_only or rebuild)
    places = ServicePlaces(functions.resolve(), data_dir.resolve())
    with errors_shown():
        record = SetupRecord.load()
        if remove:
            remove_all(record, places.data_dir if with_data else None, yes)
            return
        service = SystemService(places) if systemd else None
        if service:
            service.check()
        bring(Machine(record), yes, not engine_only, rebuild, service)
        if service:
            bring_service(service, record, places, yes)


def check_options(remove: bool, with_data: bool, bringing: bool) -> None:
    """End the command with status 2 if the options contradict each other."""
    if remove and bringing:
        raise click.UsageError("--remove goes with --yes, --with-data and --data-dir only")
    if with_data and not remove:
        raise click.UsageError("--with-data goes with --remove only")


@contextmanager
def errors_shown() -> Iterator[None]:
    """End the command with status 1 and a message if setting up fails in the block."""
    try:
        yield
    except (
        BuildError,
        EngineApiError,
        EngineSetupError,
        InitBuildError,
        PackagesError,
        RecordError,
        ServiceError,
        OSError,
    ) as error:
        raise CommandError(str(error)) from error


def bring(
    machine: Machine, yes: bool, with_images: bool, rebuild: bool, service: SystemService | None
) -> None:
    """Bring engine and images, after asking, and say what to do next."""
    missing = machine.look(with_images, rebuild)
    if missing:
        agree("To run functions, this machine needs:", described(missing), yes)
        machine.bring(missing, rebuild)
    if service is None:
        say(f"Ready: engine {machine.engine.version()}{' and images' if with_images else ''}.")
        say("Next: hearth init hello, then hearth serve")


def described(missing: MissingParts) -> Iterator[tuple[str, str]]:
    """Yield a kind and the text of it for each part that is missing."""
    if missing.engine == "install":
        yield "engine", f"install {', '.join(PACKAGES)} with apt-get, and start the engine"
    elif missing.engine == "start":
        yield "engine", "start the Docker Engine that is installed"
    if missing.init:
        compiler = own_compiler()
        how = compiler[0] if compiler else "zig, which pip fetches (80 MB) and nothing keeps"
        yield "init", f"compile the first process of containers with {how}"
    if missing.images:
        names = ", ".join(recipe.tag.removesuffix(":latest") for recipe in missing.images)
        yield "images", f"build {names}"
        if any(recipe.foundation for recipe in missing.images):
            yield (
                "",
                "from official images, or from Debian packages if no registry answers (installs mmdebstrap)",
            )


def bring_service(service: SystemService, record: SetupRecord, places: ServicePlaces, yes: bool) -> None:
    """Install and start the service, after asking, and say what to do next."""
    if changes := service.look():
        parts = [("service" if at == 0 else "", change) for at, change in enumerate(changes)]
        if owner := not_roots(Path(program()[0])):
            parts.append(("note", f"root will run {program()[0]}, which {owner} can change"))
        agree("To serve as a service, this machine needs:", parts, yes)
        service.install(record)
    say("The service hearth runs, and starts at each boot.")
    say(f"  its functions  {places.functions}")
    say(f"  its settings   {places.settings}, one HEARTH_NAME=value a line")
    say(f"  its data       {places.data_dir}")
    say("  its log        journalctl -u hearth -f")
    say(f"Next: hearth init hello --dir {places.functions.parent}")


def not_roots(path: Path) -> str | None:
    """Return the owner of a program if that is another than root, else None."""
    owner = path.resolve().stat().st_uid
    return f"the user with uid {owner}" if owner else None


def remove_all(record: SetupRecord, data_dir: Path | None, yes: bool) -> None:
    """Take away what the record names, after asking."""
    from gateway.setup.engine import DEFAULT_PLACES
    from gateway.setup.removal import SetupRemoval

    removal = SetupRemoval(record, DEFAULT_PLACES, data_dir)
    parts = removal.look()
    if not parts:
        say("Nothing to remove: setup has brought nothing that is still here.")
        return
    agree("This goes:", parts, yes)
    removal.run()
    if removal.left:
        say("This stays:", err=True)
        show(removal.left)
        sys.exit(1)
    say("Removed what setup had brought.")


def agree(title: str, parts: Iterable[tuple[str, str]], yes: bool) -> None:
    """Show a plan, and return if the user agrees to it. Otherwise end the command with status 1."""
    say(title, err=True)
    show(parts)
    if yes:
        return
    if not is_asked():
        again = " ".join([*sys.argv[1:], "--yes"])
        say(f"Nothing was changed: there is no terminal to ask on. To agree: hearth {again}", err=True)
        sys.exit(1)
    if not click.confirm("Go on?", default=True, err=True):
        say("Nothing was changed.", err=True)
        sys.exit(1)


def is_asked() -> bool:
    """Return whether somebody can answer a question."""
    return sys.stdin.isatty()


def show(parts: Iterable[tuple[str, str]]) -> None:
    """Print parts on stderr, in two columns."""
    for kind, text in parts:
        first, rest = f"  {kind}".ljust(KIND_WIDTH), " " * KIND_WIDTH
        # A path and a package's name are never cut: people copy them.
        lines = wrap(text, TEXT_WIDTH - KIND_WIDTH, break_on_hyphens=False, break_long_words=False)
        say(first + f"\n{rest}".join(lines), err=True)
