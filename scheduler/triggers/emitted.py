"""Events of the gateway itself: answers of functions that are events, and the ends of runs and jobs.

Their fires begin in the transaction that records the end.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from scheduler.calls.destinations import chain_too_deep, is_too_deep
from scheduler.calls.model import Claim, Ending, Status
from scheduler.jobs.model import JobSummary
from scheduler.triggers.cloud_events import EventFault, is_event, parse_http
from scheduler.triggers.event import Event
from scheduler.triggers.triggers import Triggers
from scheduler.work import Fire
from scheduler.workflows.runs import EndedRun

log = logging.getLogger("hearth.triggers")

MAX_FIRES_BY_DEPTH = (1000, 30, 1)
"""Fires of one answer, by the number of calls that led to it; the last value holds for all greater depths. Without
this bound, n events that fire their own function would grow to n to the power of `MAX_CALL_DEPTH` calls."""
RUN_ENDED, JOB_ENDED = "hearth.run.ended", "hearth.job.ended"


class EmittedEvents:
    """Followers of calls, runs and jobs: each returns the fires that begin with a recorded end."""

    def __init__(self, triggers: Triggers) -> None:
        self._triggers = triggers

    def after_call(self, claim: Claim, ending: Ending) -> Iterable[Fire]:
        """Return the fires of all events in a call's answer. They may omit `id`, `source` and `specversion`."""
        result, call = ending.result, claim.call
        if ending.status is not Status.SUCCEEDED or result is None or not is_event(result.headers):
            return ()
        if result.payload is not None:
            log.warning(
                "invocation %s of %s: its event fires nothing: %d bytes are too large; emit a smaller event",
                call.id,
                call.function,
                result.size,
            )
            return ()
        defaults = {"specversion": "1.0", "id": call.id, "source": f"/functions/{call.function}"}
        try:
            events = parse_http(result.headers, result.body, defaults)
        except EventFault as error:
            log.warning(
                "invocation %s of %s: its answer is not a valid event: %s", call.id, call.function, error
            )
            return ()
        fires = [fire for event in events for fire in self._triggers.fires_of(event, call.depth + 1)]
        if not fires or is_too_deep(call, "the event that it emits fires nothing"):
            return ()
        most = MAX_FIRES_BY_DEPTH[min(call.depth, len(MAX_FIRES_BY_DEPTH) - 1)]
        if len(fires) > most:
            log.warning(
                "invocation %s of %s: its events would start %d calls; only %d are started at depth %d",
                call.id,
                call.function,
                len(fires),
                most,
                call.depth,
            )
        return fires[:most]

    def after_run(self, ended: EndedRun) -> Iterable[Fire]:
        """Return the fires of a run's end, whatever its status. A resumed run ends again."""
        run, end = ended.run, ended.end
        told: dict[str, str | None] = {"run_id": run.id, "workflow": run.workflow, "status": end.status.value}
        told |= {"error": end.error, "detail": end.detail}
        attributes = {
            "specversion": "1.0",
            "type": RUN_ENDED,
            "source": f"/runs/{run.id}",
            "id": f"{run.id}-{run.revision}",
            "subject": run.workflow,
            "status": end.status.value,
            "datacontenttype": "application/json",
        }
        return self._fires(f"run {run.id}", run.depth, Event(attributes, json.dumps(told).encode()))

    def after_job(self, summary: JobSummary) -> Iterable[Fire]:
        """Return the fires of a job's end, whatever its status. A retried job ends again."""
        job = summary.job
        attributes = {
            "specversion": "1.0",
            "type": JOB_ENDED,
            "source": f"/jobs/{job.id}",
            "id": f"{job.id}-{summary.ended:.6f}",
            **({"subject": job.name} if job.name else {}),
            "status": summary.status.value,
            "datacontenttype": "application/json",
        }
        return self._fires(
            f"job {job.id}", job.depth, Event(attributes, json.dumps(summary.to_json()).encode())
        )

    def _fires(self, ended: str, depth: int, event: Event) -> Iterable[Fire]:
        fires = self._triggers.fires_of(event, depth + 1)
        return () if fires and chain_too_deep(ended, depth, "its end fires nothing") else fires
