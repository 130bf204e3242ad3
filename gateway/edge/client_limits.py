"""Limits of a gateway to its clients' connections."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.edge.slices import SliceQueue
from gateway.memory.budget import BodyBudget
from gateway.memory.connections import ConnectionMemory


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """Limits that all connections of clients share."""

    timeout_seconds: float
    """Time for a request's head, and again for the beginning of its body."""
    connections: int
    """Connections that may be open at once."""
    memory: ConnectionMemory = field(default_factory=lambda: ConnectionMemory(BodyBudget(2**40)))
    """Their part of the memory for requests and answers."""
    slices: SliceQueue = field(default_factory=SliceQueue)
    """Connections whose data is parsed in slices."""
