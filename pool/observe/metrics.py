"""Every metric that Hearth keeps, in one place. `Metrics` has its own registry, so that tests can have many."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from pool.observe.plain_metrics import MetricRegistry, PlainCounter, PlainGauge, PlainHistogram

FAST = (
    0.0001,
    0.00025,
    0.0005,
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1,
    2.5,
    5,
    10,
    30,
    60,
)
"""Bucket bounds in seconds: from a tenth of a millisecond (a warm call) to a minute."""


JOBS = "(jobs)"
"""The function's label of all functions that jobs have of their own: one for each would be labels without end."""


def label_of(function: str) -> str:
    """How a function is called in metrics."""
    return JOBS if ":" in function else function


class Metrics:
    """The counters, gauges and histograms of one gateway."""

    def __init__(self) -> None:
        self.registry = r = MetricRegistry()
        self.invocations = PlainCounter(
            "hearth_invocations",
            "Invocations that ended, by outcome and by whom to blame",
            ["function", "outcome", "blame"],
            r,
        )
        self.invocation_seconds = PlainHistogram(
            "hearth_invocation_seconds",
            "Time of an invocation by phase: queue, start, exec",
            ["function", "phase"],
            FAST,
            r,
        )
        self.starts = PlainCounter(
            "hearth_starts",
            "Invocations by the kind of start they had: warm, prewarmed or cold",
            ["function", "kind"],
            r,
        )
        self.async_accepted = PlainCounter(
            "hearth_async_accepted", "Calls that were accepted to be run later", ["function"], r
        )
        self.async_ended = PlainCounter(
            "hearth_async_ended", "Accepted calls that have ended, by how", ["function", "status"], r
        )
        self.async_retries = PlainCounter(
            "hearth_async_retries",
            "Runs of accepted calls that failed and will be tried again",
            ["function"],
            r,
        )
        self.async_interrupted = Counter(
            "hearth_async_interrupted",
            "Accepted calls that were leased when an earlier gateway process ended: they may run twice",
            registry=r,
        )
        self.callbacks = Counter(
            "hearth_callbacks",
            "Attempts to deliver the callback of an accepted call, by what came of them",
            ["outcome"],
            registry=r,
        )
        self.async_backlog = Gauge(
            "hearth_async_backlog", "Accepted calls that have not ended", ["function", "status"], registry=r
        )
        self.async_bytes = Gauge(
            "hearth_async_bytes",
            "Bytes in the store of accepted calls: used, unfinished of that, largest share of a caller of that, size",
            ["what"],
            registry=r,
        )
        self.waiting = PlainGauge(
            "hearth_waiting",
            "Requests that wait for a commit or a read of the store, or for the end of a call or a run",
            ["for"],
            r,
        )
        self.store_reads_refused = PlainCounter(
            "hearth_store_reads_refused",
            "Reads of the store that were refused: busy, none began in time; slow, it took too long",
            ["reason"],
            r,
        )
        self.workflow_runs = PlainCounter(
            "hearth_workflow_runs", "Runs of workflows that have ended, by how", ["workflow", "status"], r
        )
        self.jobs_ended = PlainCounter("hearth_jobs_ended", "Jobs that have ended, by how", ["status"], r)
        self.trigger_fires = PlainCounter(
            "hearth_trigger_fires",
            "Fires of triggers, by what came of them: started, known, skipped, missed or failed",
            ["trigger", "outcome"],
            r,
        )
        self.source_messages = Counter(
            "hearth_source_messages",
            "Messages of sources, by what became of them",
            ["source", "outcome"],
            registry=r,
        )
        self.source_connected = Gauge(
            "hearth_source_connected",
            "1 while a source is connected to its server, else 0",
            ["source"],
            registry=r,
        )
        self.source_lag = Gauge(
            "hearth_source_lag",
            "Messages that the server has for a source, where it says so",
            ["source"],
            registry=r,
        )
        self.access_refusals = PlainCounter(
            "hearth_access_refusals", "Requests refused for their key or its limits, by reason", ["reason"], r
        )
        self.body_memory = PlainGauge(
            "hearth_body_memory_bytes",
            "Bytes held of the budget for requests and answers: bodies, unread or answers",
            ["holder"],
            r,
        )
        self.body_memory_limit = PlainGauge(
            "hearth_body_memory_limit_bytes", "Bytes that may be held of requests and answers in all", [], r
        )
        self.busy = PlainCounter(
            "hearth_busy",
            "Requests and answers that were refused for want of memory, by what it was for",
            ["what"],
            r,
        )
        self.instances = PlainGauge("hearth_instances", "Instances by state", ["function", "state"], r)
        self.prewarmed = Gauge("hearth_prewarmed", "Generic instances that are ready", ["image"], registry=r)
        self.queue_depth = PlainGauge(
            "hearth_queue_depth", "Invocations that wait for an instance", ["function"], r
        )
        self.engine_seconds = Histogram(
            "hearth_engine_seconds",
            "Time of a call to the container engine",
            ["verb"],
            registry=r,
            buckets=FAST,
        )
        self.engine_errors = Counter(
            "hearth_engine_errors", "Calls to the container engine that failed", ["verb"], registry=r
        )
        self.engine_breaker_open = Gauge(
            "hearth_engine_breaker_open",
            "1 while the container engine does not answer and is asked nothing, else 0",
            registry=r,
        )
        self.removals = Counter("hearth_removals", "Instances removed, by reason", ["reason"], registry=r)
        self.memory_declared = Gauge(
            "hearth_memory_declared_bytes", "Memory declared by all instances", registry=r
        )
        self.memory_budget = Gauge(
            "hearth_memory_budget_bytes", "Memory that instances may declare in all", registry=r
        )
