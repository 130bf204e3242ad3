"""A declared function: its state, and the fault that keeps it, or its newest revision, out of service."""

from __future__ import annotations

from dataclasses import dataclass

from pool.engine.base import NotFound
from pool.workload import Keep
from scheduler.definitions.file import FunctionDefinition
from scheduler.deploy.images.runtimes import REQUIRED_IMAGES


@dataclass(slots=True)
class Declared:
    """A declared function. `state` is loading, building (its image), ready or failed; `fault` says why it failed.

    A function that failed to change stays in service in its older version: then it is ready, with a fault.
    """

    definition: FunctionDefinition
    state: str = "loading"
    fault: str | None = None
    version: str | None = None
    printed: str = ""
    """The latest lines that the instance had printed with which its newest version was tried."""
    curable: bool = False
    """True if the fault may pass without a change of the definition."""
    keep: Keep = Keep.NONE
    """Rule for its ended containers."""
    private: bool = False
    """True if it belongs to one job."""

    @classmethod
    def after(cls, before: Declared | None, definition: FunctionDefinition) -> Declared:
        """Return a function as it is declared now. What was in service before it stays so meanwhile."""
        if before is None or before.version is None:
            return cls(definition)
        return cls(definition, "ready", before.fault, before.version, before.printed)


def fault_of(error: Exception, image: str) -> str:
    """Return the message of an error, with advice."""
    if isinstance(error, NotFound):
        advice = (
            "run `hearth setup`" if image in REQUIRED_IMAGES else f"pull or build it: docker pull {image}"
        )
        return f"the engine has no image {image}; {advice}"
    return str(error)
