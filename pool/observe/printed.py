"""Output of instances: it belongs to the call that runs alone on an instance, else to the instance."""

from __future__ import annotations

from typing import Any, Protocol

from pool.clock import Clock
from pool.observe.journal.journal import Journal
from pool.observe.logs import InstanceLog, LogStore, last_lines

INSTANCE_LOG_BYTES = 64 * 1024
"""Latest output of one instance that is kept, if it belongs to no single invocation."""
LATE_OUTPUT_SECONDS = 0.25
"""Time after the end of a call in which output counts as the call's, with contracts that say so. Servers write a line
about a request after they have answered it."""


class PrintingInstance(Protocol):
    """The part of a `pool.instance.Instance` that its output depends on."""

    id: str
    workload: Any
    link: Any


class PrintingLease(Protocol):
    """The part of a `pool.lease.Lease` that output depends on."""

    invocation: str
    workload: Any
    since: float
    seconds: float
    ended: bool


class PrintedOutput:
    """The output of all instances of one gateway: in memory, and in the journal if there is one."""

    def __init__(self, logs: LogStore, clock: Clock) -> None:
        self.logs = logs
        self.journal: Journal | None = None
        self.latest: dict[str, PrintingLease | None] = {}
        """Latest call of each instance, also after its end; None if several ran at once."""
        self._clock = clock
        self._of_instances: dict[str, InstanceLog] = {}

    def take(self, instance: PrintingInstance, data: bytes) -> None:
        """Log what an instance prints."""
        lease, workload = self._owner(instance), instance.workload
        if lease is not None:
            data = self.logs.write(lease.invocation, data)
        else:
            self._of_instances.setdefault(instance.id, InstanceLog(INSTANCE_LOG_BYTES)).write(data)
        if self.journal is not None and data:
            function, revision = (workload.function, workload.version) if workload else ("", "")
            self.journal.take(function, revision, lease.invocation if lease else "", instance.id, data)

    def _owner(self, instance: PrintingInstance) -> PrintingLease | None:
        lease = self.latest.get(instance.id)
        if lease is None or not lease.ended:
            return lease
        late = self._clock.now() - lease.since - lease.seconds
        return lease if lease.workload.contract.late_output and late <= LATE_OUTPUT_SECONDS else None

    def of_instance(self, instance: PrintingInstance) -> bytes:
        """Return the output of an instance that belongs to no single invocation."""
        kept = self._of_instances.get(instance.id)
        return kept.read() if kept else b""

    def last_lines_of(self, instance: PrintingInstance) -> str:
        """Return the latest whole lines that an instance has printed outside of calls."""
        if instance.link is not None:
            instance.link.drain_log()
        return last_lines(self.of_instance(instance))

    def tell(self, invocation: str, output: str) -> None:
        """Add output of an instance that failed to the log of a call that waited for it."""
        if invocation and output:
            self.logs.write(invocation, output.encode())

    def forget(self, instance: PrintingInstance) -> None:
        """Forget an instance that is gone. Its calls' output stays."""
        self.latest.pop(instance.id, None)
        self._of_instances.pop(instance.id, None)

    def remembers(self, instance: PrintingInstance) -> bool:
        """Return whether anything of an instance is still in memory."""
        return instance.id in self.latest or instance.id in self._of_instances
