"""The interface of a contract: everything that the floors above must know about how a container is spoken to."""

from __future__ import annotations

from abc import ABC, abstractmethod

from pool.contracts.facts import ContractFacts
from pool.contracts.starter import Starter
from pool.engine.base import ContainerSpec, ContainerState
from pool.instance import Instance
from pool.workload import Workload


class Contract(ContractFacts, ABC):
    """One way in which the gateway and what runs in a container speak.

    A contract is one file: its facts, which `ContractFacts` explains, and its work, done by the methods below.
    `tests/contract/test_contracts.py` runs over each of them.
    """

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
