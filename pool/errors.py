"""What can go wrong between a lease and an answer. Everything here says who is to blame in its class."""

from __future__ import annotations


class PoolError(Exception):
    """Root of the pool's errors."""


class StartFailed(PoolError):
    """An instance could not be started for a reason of the platform: the engine, the host."""

    engine_down = False
    """Whether the engine was not even asked, since it does not answer: no start is to blame."""


class EngineLost(PoolError):
    """The engine went away while a command ran: how that ended is not known."""


class FunctionBroken(PoolError):
    """An instance could not become its function: its code could not be imported, its process ended."""

    def __init__(self, message: str, kind: str = "StartError", *, imported: bool = True) -> None:
        super().__init__(message)
        self.kind = kind
        """Type of the error in the function's own terms, for example ModuleNotFoundError."""
        self.imported = imported
        """False when it was the import of the handler that failed."""


class NotSent(PoolError):
    """The instance was gone before anything of the call was sent; the call may be given to another."""


class InstanceDied(PoolError):
    """The connection to the instance ended before its answer was whole."""


class Nonsense(PoolError):
    """The instance answered something that is not HTTP."""


class CommandFailed(PoolError):
    """A command ended with an exit status other than 0, or its container was lost."""


class TooLarge(PoolError):
    """An answer is longer than the function's `max_response`."""
