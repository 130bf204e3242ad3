"""Facts of a contract: how calls go to what runs in a container, and what its answers mean."""

from __future__ import annotations

from enum import Enum
from typing import ClassVar, Protocol

from pool.transport.message import Answer

PLAIN_ENDINGS = frozenset({204, 304})
"""Statuses without a body. Their answers take the long way, which knows how they are framed."""


class Freezing(Enum):
    """When the idle instances of a contract may be frozen."""

    NEVER = "never"
    ONE_PROCESS = "one process"
    """Only while one process of the image runs in it: a master that watches its workers kills frozen ones."""
    ALWAYS = "always"


class AnsweredLease(Protocol):
    """A lease, as far as answers tell of it."""

    exec_seconds: float | None
    """Time that the function itself has taken."""
    silent: bool
    """True if the function has printed nothing."""


class ContractFacts:
    """Everything about a contract that calls ask for. A workload carries it. It has no state.

    Facts are class attributes, which cost a call nothing but a look.
    """

    name: ClassVar[str]
    """Its name in the API and in metrics."""

    # -- instances ------------------------------------------------------------------------------------------

    specialises: ClassVar[bool] = False
    """True if an instance starts without a function and gets code and environment by `specialise`. Its container then
    has no environment of its own, and instances can be started ahead for all functions of an image."""
    fresh_by_default: ClassVar[bool] = False
    """True if each call gets a container of its own unless the function says `reuse: true`."""
    under_init: ClassVar[bool] = False
    """True if init is the first process of its containers. It can then copy what an image has at its volumes."""
    freezing: ClassVar[Freezing] = Freezing.ONE_PROCESS
    """When an idle instance may be frozen."""
    own_processes: ClassVar[int] = 0
    """Processes of ours in each of its containers, besides the image's: init."""
    late_output: ClassVar[bool] = False
    """True if what a call prints may come after its answer."""

    # -- calls ----------------------------------------------------------------------------------------------

    methods: ClassVar[frozenset[str] | None] = frozenset({"POST"})
    """Methods that a caller may use, or None if all are allowed."""
    sub_paths: ClassVar[bool] = False
    """True if a caller may add a path to the function's name."""
    fast_path: ClassVar[bool] = False
    """True if plain calls may take the fast path. The connections of its links must then be `HttpConnection`s."""
    long_way_statuses: ClassVar[frozenset[int]] = PLAIN_ENDINGS
    """Statuses of answers that leave the fast path. Those that `check_answer` reads must be among them."""
    cgi_variables: ClassVar[bool] = False
    """True if a call brings CGI meta-variables (`Call.meta`)."""
    untyped: ClassVar[bool] = False
    """True if its answers name no content type, so that the function's `content_type` is used."""
    resends: ClassVar[bool] = True
    """True if another instance is tried after a call could not be sent."""
    dies_with_connection: ClassVar[bool] = False
    """True if a connection that closes without an answer means that the instance is dead."""

    # -- answers --------------------------------------------------------------------------------------------

    async def check_answer(self, answer: Answer) -> None:
        """Raise `AnswerFault` if an answer reports that the function failed; else leave its body unread.

        Raises `MalformedAnswer` if the report cannot be read, and `InstanceDied`.
        """
        return

    def note_answer(self, lease: AnsweredLease, answer: Answer) -> None:
        """Note on the lease what an answer says of its call: `exec_seconds`, `silent`. Called once for each answer.

        Header fields that say it may be removed from the answer.
        """
        return

    def allows(self, method: str, sub_path: bytes) -> bool:
        """Return whether a caller may use this method with this path."""
        return (self.methods is None or method in self.methods) and (self.sub_paths or not sub_path)

    def __repr__(self) -> str:
        return f"<Contract {self.name}>"
