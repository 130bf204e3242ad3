"""All metrics of a gateway. Each `Metrics` has its own registry, so that tests can create many."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

from pool.observe.plain_metrics import MetricRegistry, PlainCounter, PlainGauge, PlainHistogram

BUCKETS_SECONDS = (
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
"""Upper bounds of histogram buckets, in seconds: from 0.1 ms (part of a warm call) to a minute (a slow start)."""


JOBS = "(jobs)"
"""Label of all private functions of jobs. With a label for each, the number of labels would grow without bound."""


def label_of(function: str, private: bool) -> str:
    """Return the label of a function in metrics. `private`: it belongs to one job."""
    return JOBS if private else function


class Metrics:
    """The counters, gauges and histograms of one gateway."""

    def __init__(self) -> None:
        self.registry = MetricRegistry()
        self._register_calls(self.registry)
        self._register_accepted_calls(self.registry)
        self._register_runs_and_events(self.registry)
        self._register_requests(self.registry)
        self._register_pool(self.registry)

    def _register_calls(self, r: MetricRegistry) -> None:
        """Register metrics of invocations."""
        self.invocations = PlainCounter(
            "hearth_invocations",
            "Finished invocations, by outcome and by blame",
            ["function", "outcome", "blame"],
            r,
        )
        self.invocation_seconds = PlainHistogram(
            "hearth_invocation_seconds",
            "Time of answered invocations in seconds, by phase: queue, start, exec",
            ["function", "phase"],
            BUCKETS_SECONDS,
            r,
        )
        self.starts = PlainCounter(
            "hearth_starts",
            "Answered invocations, by the kind of their start: warm, prewarmed or cold",
            ["function", "kind"],
            r,
        )

    def _register_accepted_calls(self, r: MetricRegistry) -> None:
        """Register metrics of accepted calls and of their store."""
        self.async_accepted = PlainCounter(
            "hearth_async_accepted", "Calls accepted to run later", ["function"], r
        )
        self.async_ended = PlainCounter(
            "hearth_async_ended", "Finished accepted calls, by final status", ["function", "status"], r
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
            "Attempts to deliver the callback of an accepted call, by outcome",
            ["outcome"],
            registry=r,
        )
        self.async_backlog = Gauge(
            "hearth_async_backlog", "Unfinished accepted calls, by status", ["function", "status"], registry=r
        )
        self.async_bytes = Gauge(
            "hearth_async_bytes",
            "Bytes in the store of accepted calls: used, the unfinished part, the largest caller's share of it, size",
            ["what"],
            registry=r,
        )
        self.waiting = PlainGauge(
            "hearth_waiting",
            "Waiting requests: for a commit or a read of the store, or for the end of a call or a run",
            ["for"],
            r,
        )
        self.store_reads_refused = PlainCounter(
            "hearth_store_reads_refused",
            "Refused reads of the store: busy, no reader was free in time; slow, it took too long",
            ["reason"],
            r,
        )

    def _register_runs_and_events(self, r: MetricRegistry) -> None:
        """Register metrics of workflows, jobs, triggers and brokers."""
        self.workflow_runs = PlainCounter(
            "hearth_workflow_runs", "Finished runs of workflows, by final status", ["workflow", "status"], r
        )
        self.jobs_ended = PlainCounter("hearth_jobs_ended", "Finished jobs, by final status", ["status"], r)
        self.trigger_fires = PlainCounter(
            "hearth_trigger_fires",
            "Fires of triggers, by outcome: started, known, skipped, missed or failed",
            ["trigger", "outcome"],
            r,
        )
        self.source_messages = Counter(
            "hearth_source_messages",
            "Messages of sources, by outcome",
            ["source", "outcome"],
            registry=r,
        )
        self.source_connected = Gauge(
            "hearth_source_connected",
            "1 while a source is connected to its broker, else 0",
            ["source"],
            registry=r,
        )
        self.source_lag = Gauge(
            "hearth_source_lag",
            "Messages that the broker has for a source, if it tells",
            ["source"],
            registry=r,
        )

    def _register_requests(self, r: MetricRegistry) -> None:
        """Register metrics of keys and of the memory for requests."""
        self.access_refusals = PlainCounter(
            "hearth_access_refusals",
            "Requests refused because of their key or its limits, by reason",
            ["reason"],
            r,
        )
        self.body_memory = PlainGauge(
            "hearth_body_memory_bytes",
            "Bytes in use of the budget for requests and answers: bodies, unread or answers",
            ["holder"],
            r,
        )
        self.body_memory_limit = PlainGauge(
            "hearth_body_memory_limit_bytes", "Size of the budget for requests and answers, in bytes", [], r
        )
        self.busy = PlainCounter(
            "hearth_busy",
            "Requests and answers refused for lack of memory, by the thing that needed it",
            ["what"],
            r,
        )

    def _register_pool(self, r: MetricRegistry) -> None:
        """Register metrics of instances and of the container engine."""
        self.instances = PlainGauge("hearth_instances", "Instances by state", ["function", "state"], r)
        self.prewarmed = Gauge("hearth_prewarmed", "Ready generic instances, by image", ["image"], registry=r)
        self.queue_depth = PlainGauge(
            "hearth_queue_depth", "Invocations that wait for an instance", ["function"], r
        )
        self.engine_seconds = Histogram(
            "hearth_engine_seconds",
            "Time of a call to the container engine, in seconds",
            ["verb"],
            registry=r,
            buckets=BUCKETS_SECONDS,
        )
        self.engine_errors = Counter(
            "hearth_engine_errors", "Failed calls to the container engine", ["verb"], registry=r
        )
        self.engine_breaker_open = Gauge(
            "hearth_engine_breaker_open",
            "1 while the container engine does not answer and gets no requests, else 0",
            registry=r,
        )
        self.loop_up = PlainGauge(
            "hearth_loop_up", "1 while a background loop runs, 0 while it keeps failing", ["loop"], r
        )
        self.loop_restarts = PlainCounter(
            "hearth_loop_restarts", "Background loops started again after they failed", ["loop"], r
        )
        self.log_lines_dropped = PlainCounter(
            "hearth_log_lines_dropped",
            "Lines of output that were not kept: flood, printed too fast; disk, it could not be written",
            ["reason"],
            r,
        )
        self.instance_starts = Counter(
            "hearth_instance_starts",
            "Instances started, or given to a function, by purpose: call, trial, min_instances, spare, prewarm",
            ["purpose"],
            registry=r,
        )
        self.removals = Counter("hearth_removals", "Instances removed, by reason", ["reason"], registry=r)
        self.spare_memory = PlainGauge(
            "hearth_spare_memory_bytes", "Memory that instances kept ready ahead of calls declare", [], r
        )
        self.memory_declared = Gauge(
            "hearth_memory_declared_bytes", "Memory that all instances declare together, in bytes", registry=r
        )
        self.memory_budget = Gauge(
            "hearth_memory_budget_bytes",
            "Memory that all instances may declare together, in bytes",
            registry=r,
        )
