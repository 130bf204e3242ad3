"""Why a call was not admitted or got no instance."""

from __future__ import annotations


class SchedulerError(Exception):
    """Root of the scheduler's errors."""


class QueueFull(SchedulerError):
    """The function's queue has no place left."""

    def __init__(self, function: str, size: int, retry_after: float) -> None:
        super().__init__(f"{size} calls of {function} are waiting already (queue_size); try again later")
        self.retry_after = retry_after


class NoCapacity(SchedulerError):
    """No instance became free or ready within the function's `queue_timeout`."""

    def __init__(self, message: str, retry_after: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class EngineAway(NoCapacity):
    """An instance would have to be started, and the container engine does not answer."""


class Gone(SchedulerError):
    """The function was taken out of service while the call waited."""
