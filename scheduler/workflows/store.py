"""The store of workflow runs, whichever database is behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from scheduler.calls.leases import LeaseOwner
from scheduler.calls.model import Idempotency, Page
from scheduler.definitions.workflows import WorkflowDefinition
from scheduler.work import Body, NewRun
from scheduler.workflows.model import (
    Changes,
    FailedCall,
    RunEnd,
    RunProgress,
    RunQuery,
    RunRecord,
    StepRecord,
)


class RunStore(Protocol):
    """Runs and their steps. Each verb is atomic and on disk when it returns. All raise `StoreError`."""

    @property
    def exists(self) -> bool:
        """Return whether anything was ever kept here."""

    async def begin(
        self, run: NewRun, now: float, key: Idempotency | None = None, caller: str = ""
    ) -> RunRecord:
        """Keep a run whose bytes count to `caller`.

        With a known idempotency key, return the run of this workflow that it was first used for, unless that is
        forgotten. Raises `KeyReused` and `StoreFull`.
        """

    async def progress(self, owner: LeaseOwner, id: str, now: float) -> RunProgress | None:
        """Lease a run to an owner, and return the facts that its next moves follow from.

        Returns None if there is no such run, it has ended, or it is leased to another. Raises `LeaseLost`.
        """

    async def apply(self, owner: LeaseOwner, id: str, changes: Changes, revision: int, now: float) -> bool:
        """Write all that was decided of a run which is leased to an owner.

        Returns False if somebody has ended or resumed it meanwhile, or the lease is lost; then nothing is written.
        Raises `StoreFull`.
        """

    async def give_up(self, owner: LeaseOwner, record: RunRecord, end: RunEnd, now: float) -> bool:
        """End a run about which nothing can be decided, or of which no more can be kept.

        Returns False if it is not as in `record` any more, or leased to another; then nothing is written. Raises
        `StoreFull` and `LeaseLost`.
        """

    async def show(self, id: str) -> RunRecord | None:
        """Return one run, or None if there is none."""

    async def steps(self, record: RunRecord) -> tuple[WorkflowDefinition, Sequence[StepRecord]] | None:
        """Return a run's definition and its steps that were begun or have ended, or None if it is forgotten."""

    async def ids_with_prefix(self, prefix: str, visible: Callable[[RunRecord], bool]) -> Sequence[str]:
        """Return a few ids of visible runs that begin with these hexadecimal digits. `visible` runs on a reader's
        thread."""

    async def page(self, query: RunQuery) -> Page[RunRecord]:
        """Return runs, newest first."""

    async def input(self, id: str) -> Body | None:
        """Return what a run was begun with, or None if there is no such run."""

    async def output(self, id: str) -> Body | None:
        """Return what a run has answered, or None if it has not answered."""

    async def answers(self, id: str, step: str, most: int) -> Sequence[Body | None] | None:
        """Return the answers of a step's calls, in order, with None for each call that has not succeeded.

        Returns None if they have over `most` bytes together.
        """

    async def first_failure(self, id: str, step: str) -> FailedCall | None:
        """Return the first call of a step that has failed, or None if none has."""

    async def unfinished(self, owner: LeaseOwner) -> Sequence[str]:
        """Return the ids of the runs that have not ended and are not leased to another, the oldest first."""

    async def cancel(self, id: str, now: float) -> tuple[RunRecord | None, Sequence[str]]:
        """End a run that goes on. Return the run as it was, and the ids of its calls that are to be interrupted."""

    async def resume(self, id: str) -> RunRecord | None:
        """Let a run that has failed or was cancelled go on, and leave any other. Return the run as it was."""

    async def forget(self, id: str) -> bool:
        """Forget a part of a run, if it has ended. Return whether there is more of it to forget."""

    async def prune(self, before: float) -> int:
        """Forget some runs that ended before this time, and return how many.

        While the store is over its size, forget the oldest that have ended.
        """
