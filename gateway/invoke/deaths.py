"""Deaths of instances in the middle of a call, as their callers are told of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pool.contracts.obituary import Obituary
from pool.instance import Instance
from pool.lease import Lease
from pool.observe.printed import PrintedOutput

SHARED = "[the latest output of the instance, of all its calls]\n"
"""Comes before output that is not of one call alone."""


class Deaths:
    """Finds out how instances ended, and keeps their last words for the calls that they were serving."""

    def __init__(self, printed: PrintedOutput, obituary: Callable[[Instance], Awaitable[Obituary]]) -> None:
        self._printed = printed
        self._obituary = obituary

    async def of(self, lease: Lease) -> Obituary:
        """Return what became of an instance that closed its connection before it answered the call of a lease.

        The call's log gets the latest output of the instance, unless the call has output of its own.
        """
        instance, printed = lease.instance, self._printed
        found = await self._obituary(instance)
        lines = printed.last_lines_of(instance)
        if lines and printed.logs.read(lease.invocation) is None:
            printed.tell(lease.invocation, SHARED + lines)
        ended = found.ended or lease.workload.contract.dies_with_connection
        return Obituary(f"the instance {'died' if ended else 'failed'}: {found.words}", ended)
