"""Call functions on a Hearth gateway, and test handlers without one."""

from hearth._version import __version__
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
from hearth.response import Response

__all__ = [
    "BadInput",
    "Busy",
    "CallEnded",
    "CallerFault",
    "Conflict",
    "ConnectionLost",
    "Context",
    "FunctionAnswered",
    "FunctionError",
    "FunctionTimeout",
    "GatewayAbsent",
    "HearthError",
    "NoAnswer",
    "NotFinished",
    "NotFound",
    "PlatformError",
    "Problem",
    "RateLimited",
    "Response",
    "Unauthorized",
    "__version__",
]
