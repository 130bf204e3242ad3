"""Call functions on a Hearth gateway, and test handlers without one."""

from hearth._version import __version__
from hearth.async_client import AsyncClient, AsyncFuture, AsyncJob, AsyncRun
from hearth.client import Client, Future, Job, Run
from hearth.context import Context
from hearth.errors import (
    BadInput,
    Busy,
    CallEnded,
    CallerFault,
    Conflict,
    ConnectionLost,
    FunctionAnswered,
    FunctionError,
    FunctionTimeout,
    GatewayAbsent,
    HearthError,
    NoAnswer,
    NotFinished,
    NotFound,
    PlatformError,
    Problem,
    RateLimited,
    Unauthorized,
)
from hearth.response import LogLine, Response
from hearth.stream import AsyncStream, ServerEvent, Stream

__all__ = [
    "AsyncClient",
    "AsyncFuture",
    "AsyncJob",
    "AsyncRun",
    "AsyncStream",
    "BadInput",
    "Busy",
    "CallEnded",
    "CallerFault",
    "Client",
    "Conflict",
    "ConnectionLost",
    "Context",
    "FunctionAnswered",
    "FunctionError",
    "FunctionTimeout",
    "Future",
    "GatewayAbsent",
    "HearthError",
    "Job",
    "LogLine",
    "NoAnswer",
    "NotFinished",
    "NotFound",
    "PlatformError",
    "Problem",
    "RateLimited",
    "Response",
    "Run",
    "ServerEvent",
    "Stream",
    "Unauthorized",
    "__version__",
]
