"""All contracts by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pool.contracts.base import Contract
from pool.contracts.command import COMMAND
from pool.contracts.facts import ContractFacts
from pool.contracts.handler import HANDLER
from pool.contracts.http import HTTP
from pool.instance import Instance

CONTRACTS: Mapping[str, Contract] = MappingProxyType({c.name: c for c in (HANDLER, HTTP, COMMAND)})


def contract_of(instance: Instance) -> Contract:
    """Return how to speak with an instance. One that has no function yet waits for a handler."""
    return HANDLER if instance.workload is None else as_contract(instance.workload.contract)


def as_contract(facts: ContractFacts) -> Contract:
    """Return the contract that a workload carries: to calls it is known by its facts only."""
    assert isinstance(facts, Contract)
    return facts
