"""The answer to a call."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from hearth.errors import FunctionAnswered, Problem, error_of
from hearth.values import decode, essence

PROBLEM_JSON = "application/problem+json"
TIMING = re.compile(r"(\w+);dur=([\d.]+)")


@dataclass(frozen=True)
class LogLine:
    """One line that a function has printed."""

    time: datetime
    """Moment of printing, in UTC."""
    text: str
    function: str | None
    """None for an instance that no function has yet."""
    invocation: str | None
    """Id of the call, or None if the line belongs to no single one."""
    revision: str | None
    instance: str | None

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> LogLine:
        """Return a line as the gateway tells it."""
        return cls(
            time=datetime.fromisoformat(line["time"]),
            text=line["text"],
            function=line.get("function"),
            invocation=line.get("invocation"),
            revision=line.get("revision"),
            instance=line.get("instance"),
        )


class Response:
    """An answer of the gateway: the function's own, or a problem."""

    def __init__(self, status: int, headers: httpx.Headers, body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} {self.content_type}, {len(self.body)} bytes>"

    @property
    def content_type(self) -> str:
        """Return the body's type with its parameters, or an empty text."""
        return str(self.headers.get("content-type", ""))

    @property
    def value(self) -> Any:
        """Return the body as parsed JSON, text or bytes, by its content type; None if there is none.

        Lines of JSON become a list. Raises `ValueError` if the body is not of its type.
        """
        return decode(self.body, self.content_type)

    @property
    def ok(self) -> bool:
        """Return whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def invocation_id(self) -> str | None:
        """Return the id of the call, or None if the answer has none."""
        return self._field("x-invocation-id")

    @property
    def start(self) -> str | None:
        """Return how the call found its instance: warm, prewarmed or cold. None if it got no instance."""
        return self._field("x-hearth-start")

    @property
    def timing(self) -> dict[str, float]:
        """Return the seconds of the call by phase: queue, start and exec. Empty if it got no instance."""
        found = TIMING.findall(self.headers.get("server-timing", ""))
        return {phase: round(float(milliseconds) / 1000, 6) for phase, milliseconds in found}

    @property
    def problem(self) -> Problem | None:
        """Return the gateway's problem, or None if the function answered."""
        if self.status < 400 or essence(self.content_type) != PROBLEM_JSON:
            return None
        try:
            return Problem.read(self.value, self.status, _seconds(self.headers.get("retry-after")))
        except ValueError:
            return None

    def raise_for_problem(self) -> None:
        """Raise the problem as a `HearthError`, if there is one."""
        if (problem := self.problem) is not None:
            raise error_of(problem)

    def result(self) -> Any:
        """Return the value of an answer with status 2xx.

        Raises the `HearthError` of a problem, and `FunctionAnswered` for another status or a body not of its type.
        """
        self.raise_for_problem()
        if not self.ok:
            text = self.body[:200].decode(errors="replace")
            raise FunctionAnswered(f"the function answered with status {self.status}: {text}", self)
        try:
            return self.value
        except ValueError as error:
            text = f"the function's answer is not {self.content_type}: {error}"
            raise FunctionAnswered(text, self) from error

    def _field(self, name: str) -> str | None:
        return str(self.headers[name]) if name in self.headers else None


def _seconds(retry_after: str | None) -> float | None:
    return float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdigit() else None
