"""Errors between a lease and an answer. Each class tells who is to blame."""

from __future__ import annotations


class PoolError(Exception):
    """Base class of the pool's errors."""


class StartFailed(PoolError):
    """An instance could not be started for a reason of the platform: the engine, the host."""

    engine_down = False
    """True if the engine was not asked because it does not answer. Then the failure says nothing about the start."""


class FunctionBroken(PoolError):
    """An instance could not become its function: its code could not be imported, its process ended."""

    def __init__(self, message: str, kind: str = "StartError", *, imported: bool = True) -> None:
        super().__init__(message)
        self.kind = kind
        """Type of the error in the function's language, for example ModuleNotFoundError."""
        self.imported = imported
        """False if the import of the handler failed."""
        self.printed = ""
        """The latest lines that the instance had printed, such as a traceback."""


class NotSent(PoolError):
    """The instance was gone before any part of the call was sent. Another instance may take the call."""


class InstanceDied(PoolError):
    """The connection to the instance ended before its answer was complete."""


class ConnectionLost(PoolError):
    """The connection to the instance broke during the call. Nobody knows how far the call has come."""


class MalformedAnswer(PoolError):
    """The instance answered with something that is not HTTP."""


class AnswerFault(PoolError):
    """In place of an answer an instance reports that its function has failed."""

    def __init__(self, slug: str, message: str) -> None:
        super().__init__(message)
        self.slug = slug
        """Slug of the problem that the caller is told."""


class CommandFailed(PoolError):
    """A command ended with an exit status other than 0, or its container was lost."""


class AnswerTooLarge(PoolError):
    """An answer is longer than the function's `max_response`."""
