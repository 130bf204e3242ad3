"""The `hearth` command."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import click
import uvloop
from pydantic import ValidationError

from gateway.runtime import Runtime
from gateway.server import serve as serve_gateway
from gateway.settings import Settings
from pool.data_folder import DataFolder, DataFolderInUse
from scheduler.definitions import DefinitionsError, load


@click.group()
def main() -> None:
    """Hearth runs functions in containers and keeps them warm."""


@main.command()
@click.option("--functions", type=click.Path(path_type=Path))
@click.option("--host")
@click.option("--port", type=int)
@click.option("--data-dir", type=click.Path(path_type=Path))
def serve(**options: object) -> None:
    """Serve the functions of a functions.yaml."""
    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = Settings(**given)  # type: ignore[arg-type]
        definitions = load(settings.functions, allowed_volumes=settings.allowed_volumes)
        folder = DataFolder(settings.data_dir)
    except (ValidationError, DefinitionsError, DataFolderInUse, OSError) as error:
        sys.exit(str(error))
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )

    def ready(runtime: Runtime, url: str) -> None:
        print(f"Hearth serves on {url}", flush=True)

    uvloop.run(serve_gateway(settings, definitions, folder, ready))
