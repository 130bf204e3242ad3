"""Errors of calls, each with its blame. Docs: docs/client.md, docs/errors.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hearth.response import Response

PROBLEM_TYPE = "urn:hearth:problem:"
"""Prefix of the types of Hearth's own problems. A function may answer with other problems."""


@dataclass(frozen=True)
class Problem:
    """One error as the gateway tells it (RFC 9457)."""

    slug: str
    title: str
    status: int
    detail: str
    blame: str
    invocation_id: str | None = None
    retry_after: float | None = None
    """Seconds after which to try again, if the gateway says so."""
    pointer: str | None = None
    """Place of the fault in the input, as a JSON pointer, if the function checks its input."""

    @classmethod
    def read(cls, document: Any, status: int, retry_after: float | None = None) -> Problem | None:
        """Return the problem that a JSON document is, or None if it is not one of Hearth's."""
        if not (isinstance(document, Mapping) and str(document.get("type")).startswith(PROBLEM_TYPE)):
            return None
        invocation = document.get("invocation_id")
        return cls(
            slug=str(document["type"]).removeprefix(PROBLEM_TYPE),
            title=str(document.get("title")),
            status=status,
            detail=str(document.get("detail")),
            blame=str(document.get("blame")),
            invocation_id=None if invocation is None else str(invocation),
            retry_after=retry_after,
            pointer=document.get("pointer"),
        )


class HearthError(Exception):
    """A call or a request that did not succeed. `blame` says who has to act."""

    blame: str = "platform"

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        super().__init__(message, problem)
        self.message = message
        self.problem = problem
        """The gateway's own words, or None if the gateway did not answer."""
        if problem is not None:
            self.blame = problem.blame

    def __str__(self) -> str:
        return self.message

    @property
    def invocation_id(self) -> str | None:
        """Return the id of the call, or None if it did not become one."""
        return self.problem.invocation_id if self.problem else None

    @property
    def slug(self) -> str | None:
        """Return the kind of the problem, as docs/errors.md lists it, or None if the gateway did not answer."""
        return self.problem.slug if self.problem else None

    @property
    def retry_after(self) -> float | None:
        """Return the seconds after which to try again, or None if the gateway does not say."""
        return self.problem.retry_after if self.problem else None


class CallerFault(HearthError):
    """The request is to be corrected by who sent it."""

    blame = "caller"


class BadInput(CallerFault):
    """The gateway, or the function's declaration, does not take this input."""


class Unauthorized(CallerFault):
    """There is no valid key, or the key lacks the right."""


class NotFound(CallerFault):
    """There is no such function, call, run, job or route."""


class Conflict(CallerFault):
    """The current state of a call, run or job does not allow this request."""


class RateLimited(CallerFault):
    """The key's quota is used up, or the function's queue is full. `retry_after` says when to try again."""


class FunctionError(HearthError):
    """The function is to be corrected by its author."""

    blame = "function"


class FunctionTimeout(FunctionError, TimeoutError):
    """The function ran past its timeout."""


class FunctionAnswered(FunctionError):
    """The function itself answered with a status other than 2xx, or with a body that is not of its content type."""

    def __init__(self, message: str, response: Response) -> None:
        super().__init__(message)
        self.args = (message, response)
        self.response = response

    @property
    def status(self) -> int:
        """Return the status that the function gave."""
        return self.response.status

    @property
    def body(self) -> Any:
        """Return the function's answer as a value."""
        return self.response.value

    @property
    def invocation_id(self) -> str | None:
        """Return the id of the call."""
        return self.response.invocation_id


class PlatformError(HearthError):
    """The operator of the gateway has to act, or the call is to be made again later."""


class Busy(PlatformError):
    """There is no capacity at this time. Nothing was run. `retry_after` says when to try again."""


class GatewayAbsent(PlatformError, ConnectionError):
    """No gateway answers at its address. Nothing was sent."""


class ConnectionLost(PlatformError, ConnectionError):
    """The connection ended before the whole answer was here. The function may have done its work."""


class NoAnswer(PlatformError, TimeoutError):
    """The gateway did not answer within the `timeout` of the request. The function may be running."""


class NotFinished(HearthError, TimeoutError):
    """A call, run or job has not ended within the `timeout` of the wait. It goes on."""

    blame = "caller"


class CallEnded(HearthError):
    """A call, run or job ended without a result: cancelled, expired, or given up."""


KINDS: dict[str, type[HearthError]] = {
    "ambiguous-id": BadInput,
    "bad-request": BadInput,
    "body-too-large": BadInput,
    "busy": Busy,
    "conflict": Conflict,
    "draining": Busy,
    "engine-down": Busy,
    "forbidden": Unauthorized,
    "head-too-large": BadInput,
    "input-mismatch": BadInput,
    "invalid-input": BadInput,
    "key-reused": Conflict,
    "method-not-allowed": BadInput,
    "no-capacity": Busy,
    "no-such-function": NotFound,
    "not-found": NotFound,
    "queue-full": RateLimited,
    "quota-exceeded": RateLimited,
    "timeout": FunctionTimeout,
    "unauthorized": Unauthorized,
}
"""Classes of the problems that programs tell apart, by slug. Others have the class of their blame."""
BLAMES: dict[str, type[HearthError]] = {
    "caller": CallerFault,
    "function": FunctionError,
    "platform": PlatformError,
}


def error_of(problem: Problem) -> HearthError:
    """Return the error that tells a program about a problem."""
    kind = KINDS.get(problem.slug) or BLAMES.get(problem.blame, HearthError)
    return kind(f"{problem.title} ({problem.status}, blame: {problem.blame}): {problem.detail}", problem)
