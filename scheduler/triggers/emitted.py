"""Events of the gateway's own: functions emit them by their answers, runs of workflows and jobs by their ends. What
they fire is begun in the commit that records the end."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from scheduler.calls.destinations import is_too_deep, led_too_deep
from scheduler.calls.model import Claim, Ending, Status
from scheduler.jobs.model import JobSummary
from scheduler.triggers.event import Event
from scheduler.triggers.triggers import Triggers
from scheduler.triggers.wire import EventFault, is_event, of_http
from scheduler.work import Fire
from scheduler.workflows.runs import EndedRun

log = logging.getLogger("hearth.triggers")

WIDTH = (1000, 30, 1)
"""Fires of one answer, by how many calls led to it; the last holds for all further ones. Without it an answer of n
events that fires its own function would be n to the power of `DEEPEST` calls."""
RUN_ENDED, JOB_ENDED = "hearth.run.ended", "hearth.job.ended"


class Emitted:
    """Followers of those who record ends."""

    def __init__(self, triggers: Triggers) -> None:
        self._triggers = triggers

    def by_call(self, claim: Claim, ending: Ending) -> Iterable[Fire]:
        """The fires of every event in the answer of a call, which may leave out `id`, `source` and `specversion`."""
        result, call = ending.result, claim.call
        if ending.status is not Status.SUCCEEDED or result is None or not is_event(result.headers):
            return ()
        if result.payload is not None:
            log.warning(
                "invocation %s of %s: what it emits has %d bytes, and fires nothing: it is too large to be read",
                call.id,
                call.function,
                result.size,
            )
            return ()
        defaults = {"specversion": "1.0", "id": call.id, "source": f"/functions/{call.function}"}
        try:
            events = of_http(result.headers, result.body, defaults)
        except EventFault as error:
            log.warning("invocation %s of %s: what it emits is no event: %s", call.id, call.function, error)
            return ()
        fires = [fire for event in events for fire in self._triggers.fires_of(event, call.depth + 1)]
        if not fires or is_too_deep(call, "the event that it emits fires nothing"):
            return ()
        most = WIDTH[min(call.depth, len(WIDTH) - 1)]
        if len(fires) > most:
            log.warning(
                "invocation %s of %s: its events would start %d calls, %d may follow at depth %d",
                call.id,
                call.function,
                len(fires),
                most,
                call.depth,
            )
        return fires[:most]

    def by_run(self, ended: EndedRun) -> Iterable[Fire]:
        """The fires of the end of a run, in whatever way it ended by itself. A resumed one ends once more."""
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

    def by_job(self, summary: JobSummary) -> Iterable[Fire]:
        """The fires of the end of a job, in whatever way it ended. One that is tried again ends once more."""
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
        return () if fires and led_too_deep(ended, depth, "its end fires nothing") else fires
