"""Errors of calls that were not admitted or got no instance."""

from __future__ import annotations


class SchedulerError(Exception):
    """Base of the scheduler's errors."""


class QueueFull(SchedulerError):
    """The function's queue is full."""

    def __init__(self, function: str, size: int, retry_after: float) -> None:
        super().__init__(f"{size} calls of {function} are waiting already (queue_size); try again later")
        self.retry_after = retry_after


class NoCapacity(SchedulerError):
    """No instance became free or ready within the function's `queue_timeout`."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class NotReady(NoCapacity):
    """Instances of the function have started, and its own program was not ready within `queue_timeout`."""


class EngineAway(NoCapacity):
    """The call needs a new instance, and the container engine does not answer."""


class Gone(SchedulerError):
    """The function was removed while the call waited."""
