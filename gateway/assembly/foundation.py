"""The foundation of a gateway: the parts that every floor is built on."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.assembly.closing import Closing
from gateway.assembly.settings import Settings
from pool.clock import Clock
from pool.data_folder import DataFolder
from pool.observe.metrics import Metrics
from pool.supervise import Supervisor


@dataclass(frozen=True, kw_only=True)
class Foundation:
    """The parts of one gateway that every floor uses."""

    settings: Settings
    folder: DataFolder
    clock: Clock
    metrics: Metrics
    supervisor: Supervisor
    """Runs the background loops of all floors."""
    closing: Closing
    """Each builder pushes here how its parts are closed."""
    cores: int
    """Processors of this machine: so many instances start at once."""
