"""The interface of a contract: everything that the floors above must know about how a container is spoken to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import Enum
from typing import TYPE_CHECKING, ClassVar

from pool.transport.message import Answer

if TYPE_CHECKING:  # a workload carries its contract
    from pool.contracts.starter import Starter
    from pool.engine.base import ContainerSpec, ContainerState
    from pool.instance import Instance
    from pool.lease import Lease
    from pool.workload import Workload

PLAIN_ENDINGS = frozenset({204, 304})
"""Statuses without a body. Their answers take the long way, which knows how they are framed."""


class Freezing(Enum):
    """When the idle instances of a contract may be frozen."""

    NEVER = "never"
    ONE_PROCESS = "one process"
    """Only while one process runs in it, unless the function says `freeze_after`: a master kills frozen workers."""
    ALWAYS = "always"


class Contract(ABC):
    """One way in which the gateway and what runs in a container speak. It has no state.

    A contract is one file. Its facts are class attributes, which cost a call nothing but a look. Its work is done by
    the methods. `tests/contract/test_contracts.py` runs over each of them.
    """

    name: ClassVar[str]
    """Its name in the API and in metrics."""

    # -- instances ------------------------------------------------------------------------------------------

    specialises: ClassVar[bool] = False
    """True if an instance starts without a function and gets code and environment by `specialise`. Its container then
    has no environment of its own, and instances can be started ahead for all functions of an image."""
    single_use: ClassVar[bool] = False
    """True if one container serves one call: the end of the container is the end of the call."""
    freezing: ClassVar[Freezing] = Freezing.ONE_PROCESS
    """When an idle instance may be frozen."""
    dials_in: ClassVar[bool] = False
    """True if the gateway dials a port in the container. A host whose namespaces cannot be entered needs a network
    for that."""

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

    # -- work -----------------------------------------------------------------------------------------------

    @abstractmethod
    async def launch(self, starter: Starter, instance: Instance, prototype: ContainerSpec) -> None:
        """Start an instance and wait until it can be reached: `specialise` or a call is next.

        Sets `container`, `link` and, where it can be found, `cgroup` as soon as each is known. Raises `StartFailed`
        if the platform is to blame, `FunctionBroken` if the image is, `EngineError` and OSError.
        """

    async def specialise(self, starter: Starter, instance: Instance, workload: Workload) -> None:
        """Turn an instance into one of a function. It cannot be undone. Only called if `specialises`.

        Raises `FunctionBroken` if the function cannot be loaded, `StartFailed` if the platform is to blame.
        """
        raise NotImplementedError(f"an instance of contract {self.name} is started as its function")

    async def reconnect(self, starter: Starter, instance: Instance, state: ContainerState) -> None:
        """Reach a running instance that an earlier gateway started, and return once it is idle and ready.

        Sets `link`. The caller bounds the time. Raises `StartFailed` if the instance is not what it is taken for,
        other `PoolError`s, `EngineError` and OSError. Never called if `single_use`.
        """
        raise NotImplementedError(f"an instance of contract {self.name} is not adopted")

    async def check_answer(self, answer: Answer) -> None:
        """Raise `AnswerFault` if an answer reports that the function failed; else leave its body unread.

        Raises `MalformedAnswer` if the report cannot be read, and `InstanceDied`.
        """
        return

    def note_answer(self, lease: Lease, answer: Answer) -> None:
        """Note on the lease what an answer says of its call: `exec_seconds`, `silent`. Called once for each answer.

        Header fields that say it may be removed from the answer.
        """
        return

    def allows(self, method: str, sub_path: bytes) -> bool:
        """Return whether a caller may use this method with this path."""
        return (self.methods is None or method in self.methods) and (self.sub_paths or not sub_path)

    def __repr__(self) -> str:
        return f"<Contract {self.name}>"
