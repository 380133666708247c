"""Metrics of the operator. Labels are closed sets; names of objects stand only on gauges that go with their object."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

import prometheus_client
from prometheus_client import core, registry

from patho_api import names
from patho_api.status import EvalStatus, PretrainStatus
from patho_operator.observed import Key
from patho_operator.subject import Status

OBJECT = ("kind", "namespace", "name")  # labels that name a resource
SECONDS_TO_RUNNING = (1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self, version: str) -> None:
        self.registry = mine = prometheus_client.CollectorRegistry()
        self.reconcile_seconds = prometheus_client.Histogram(
            names.OPERATOR_RECONCILE_SECONDS, "Time to work on one resource once", registry=mine
        )
        self.reconciles = prometheus_client.Counter(
            names.OPERATOR_RECONCILES, "Times a resource was worked on", ["kind", "result"], registry=mine
        )
        self.queue_depth = prometheus_client.Gauge(names.OPERATOR_QUEUE_DEPTH, "Resources that wait to be worked on", registry=mine)
        self.api_requests = prometheus_client.Counter(
            names.OPERATOR_API_REQUESTS, "Requests to the API server; code 0: no answer", ["verb", "code"], registry=mine
        )
        self.leader = prometheus_client.Gauge(names.OPERATOR_LEADER, "1 on the operator that acts", registry=mine)
        self.restarts = prometheus_client.Counter(
            names.JOB_RESTARTS, "Incidents and disruptions of runs", ["kind", "reason"], registry=mine
        )
        self.time_to_running = prometheus_client.Histogram(
            names.JOB_TIME_TO_RUNNING,
            "From the first attempt's creation to all of its pods running",
            buckets=SECONDS_TO_RUNNING,
            registry=mine,
        )
        info = prometheus_client.Gauge(names.OPERATOR_BUILD_INFO, "1, labelled with the release", ["version"], registry=mine)
        info.labels(version).set(1)
        self.runs = Runs()
        mine.register(self.runs)

    def count_request(self, verb: str, code: int) -> None:
        """One request to the API server."""
        self.api_requests.labels(verb, str(code)).inc()

    def text(self) -> bytes:
        """The exposition, in Prometheus' text format."""
        return prometheus_client.generate_latest(self.registry)


@dataclasses.dataclass(eq=False)
class Runs(registry.Collector):
    """Gauges of the resources that exist now, computed when asked for: nothing outlives its object."""

    shown: dict[Key, Status] = dataclasses.field(default_factory=dict)

    def collect(self) -> Iterator[core.Metric]:
        """One sample a kind and phase, and a few a resource."""
        phases = core.GaugeMetricFamily(names.JOBS, "Resources by phase", labels=["kind", "phase"])
        for (kind, phase), number in Counter((key.kind, _phase(status)) for key, status in self.shown.items()).items():
            phases.add_metric([kind, phase], number)
        yield phases
        yield from self._states()
        yield from self._numbers()
        yield self._scores()

    def _states(self) -> Iterator[core.Metric]:
        phase = core.GaugeMetricFamily(names.RUN_PHASE, "1 for the phase that a resource is in", labels=[*OBJECT, "phase"])
        condition = core.GaugeMetricFamily(names.RUN_CONDITION, "1 for each condition that is True", labels=[*OBJECT, "type", "reason"])
        for key, status in self.shown.items():
            phase.add_metric([*key, _phase(status)], 1)
            for found in status.conditions:
                if found.status == "True":
                    condition.add_metric([*key, found.type, found.reason], 1)
        yield phase
        yield condition

    def _numbers(self) -> Iterator[core.Metric]:
        progress = core.GaugeMetricFamily(names.RUN_PROGRESS, "Share of the present stage's work that is done", labels=OBJECT)
        restarts = core.GaugeMetricFamily(names.RUN_RESTARTS, "Incidents so far, counted against maxRestarts", labels=OBJECT)
        used = core.GaugeMetricFamily(
            names.RUN_ACCELERATOR_SECONDS, "Accelerators times seconds of running pods", labels=["namespace", "name"]
        )
        for key, status in self.shown.items():
            restarts.add_metric([*key], status.restarts)
            if status.progress and status.progress.total_steps:
                progress.add_metric([*key], status.progress.step / status.progress.total_steps)
            if key.kind == names.PRETRAIN:
                used.add_metric([key.namespace, key.name], status.accelerator_seconds)
        yield progress
        yield restarts
        yield used

    def _scores(self) -> core.Metric:
        """`run` is the PathoPretrain whose spec.evaluations gave the score, and `name` the evaluation's; empty for a PathoEval's own."""
        scores = core.GaugeMetricFamily(names.EVAL_SCORE, "Mean score of a task", labels=["namespace", "run", "name", "task", "metric"])
        for key, status in self.shown.items():
            if isinstance(status, EvalStatus):
                for result in status.results:
                    scores.add_metric([key.namespace, "", key.name, result.task, result.metric], result.mean)
            if isinstance(status, PretrainStatus):
                for evaluation in status.evaluations:
                    for result in evaluation.results:
                        scores.add_metric([key.namespace, key.name, evaluation.name, result.task, result.metric], result.mean)
        return scores


def _phase(status: Status) -> str:
    return status.phase or "Pending"
