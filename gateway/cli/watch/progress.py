"""Progress while functions are set up: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from scheduler.definitions.file import Definitions, FunctionDefinition
from scheduler.deploy.declared import Declared

log = logging.getLogger("hearth")


class SetupProgress:
    """Shows from now until `close` which functions are not set up yet. Without functions it shows nothing."""

    def __init__(self, definitions: Definitions) -> None:
        self._open = {name: has_own_image(definition) for name, definition in definitions.functions.items()}
        self._stop: Callable[[], None] = nothing
        self._update: Callable[[], None] = nothing
        if self._open and sys.stderr.isatty():
            self._show_bar(len(self._open))

    def settled(self, declared: Declared) -> None:
        """Note that a function is ready or has failed. The registry logs its fault."""
        name = declared.definition.name
        self._open.pop(name, None)
        self._update()
        if declared.fault is None:
            log.debug("function %s is ready", name, extra={"function": name, "version": declared.version})

    def close(self) -> None:
        """Remove the bar. Safe to call twice."""
        self._stop()
        self._stop = self._update = nothing

    def _show_bar(self, total: int) -> None:
        # Imported only here, because rich takes a tenth of a second to import.
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        bar = Bar(
            SpinnerColumn(),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
        )
        task = bar.add_task(self._description(), total=total)

        def update() -> None:
            bar.update(task, completed=total - len(self._open), description=self._description())

        bar.start()
        self._stop, self._update = bar.stop, update

    def _description(self) -> str:
        names = [f"{name} (building its image)" if own else name for name, own in self._open.items()]
        shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        return f"setting up {shown}" if names else "starting instances"


def nothing() -> None:
    """Do nothing, because no bar is shown."""


def has_own_image(definition: FunctionDefinition) -> bool:
    """Return whether an image is built for this function, which may take long."""
    return definition.source is not None and (definition.source / "requirements.txt").is_file()
