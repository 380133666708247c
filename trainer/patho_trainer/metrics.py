"""Prometheus metrics of a training pod. Workers write to memory-mapped files, the entrypoint serves them as one endpoint.

`PROMETHEUS_MULTIPROC_DIR` must be set before prometheus_client is first imported in a worker: the entrypoint sets it.
"""

import functools
import os
import pathlib
from collections.abc import Iterable

import prometheus_client
from prometheus_client import multiprocess

from patho_api import names

ENV_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
STEP_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
SAVE_BUCKETS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


class TrainMetrics:
    """The metrics of one worker. Counters add up over the pod's processes; of gauges the latest value counts."""

    def __init__(self, registry: prometheus_client.CollectorRegistry = prometheus_client.REGISTRY) -> None:
        self._registry = registry

        def gauge(name: str, text: str, labels: tuple[str, ...] = (), mode: str = "mostrecent") -> prometheus_client.Gauge:
            return prometheus_client.Gauge(name, text, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> prometheus_client.Counter:
            return prometheus_client.Counter(name, text, labels, registry=registry)

        self.step = gauge(names.TRAIN_STEP, "Optimizer steps done")
        self.loss = gauge(names.TRAIN_LOSS, "Loss of the last step, by term", ("term",))
        self.learning_rate = gauge(names.TRAIN_LEARNING_RATE, "Learning rate of the last step")
        self.gradient_norm = gauge(names.TRAIN_GRADIENT_NORM, "Norm of the whole gradient before clipping")
        self.rankme = gauge(names.TRAIN_RANKME, "Effective rank of the teacher's features on the probe set")
        self.odcorr = gauge(names.TRAIN_ODCORR, "Mean absolute off-diagonal correlation of the teacher's features on the probe set")
        self.restarts = gauge(names.TRAIN_RESTARTS, "Times that this pod's workers were started again in this attempt", mode="max")
        self.gpu_memory = gauge(names.TRAIN_GPU_MEMORY, "Largest GPU memory in use by a process of the pod", mode="max")
        self.checkpoint_time = gauge(names.CHECKPOINT_LAST_SUCCESS, "When the newest checkpoint was complete, Unix time", mode="max")
        self.buffered = gauge(names.STREAM_BUFFERED, "Patches that are ready for training", mode="livesum")
        self.slides = gauge(names.STREAM_SLIDES, "Slides that patches are drawn from", mode="livemax")
        self.quarantined = gauge(names.STREAM_QUARANTINED, "Slides that could not be read", mode="livemax")

        self.images = counter(names.TRAIN_IMAGES, "Patches trained on, of this pod")
        self.data_wait = counter(names.TRAIN_DATA_WAIT, "Time that training waited for data", ("local_rank",))
        self.patches = counter(names.STREAM_PATCHES, "Patches read")
        self.bytes = counter(names.STREAM_BYTES, "Bytes read from the store", ("store",))
        self.requests = counter(names.STREAM_REQUESTS, "Requests to the store", ("store", "outcome"))
        self.seconds = counter(names.STREAM_SECONDS, "Time of the reading threads, by stage", ("stage",))
        self.replaced = counter(names.STREAM_REPLACED, "Patches replaced because theirs could not be read", ("reason",))
        self.redrawn = counter(names.STREAM_REDRAWN, "Places drawn again because the patch there was too pale (hsvFilter)")

        self.step_seconds = prometheus_client.Histogram(
            names.TRAIN_STEP_SECONDS, "Time of a step, by stage", ("stage",), registry=registry, buckets=STEP_BUCKETS
        )
        self.checkpoint_seconds = prometheus_client.Histogram(
            names.CHECKPOINT_SECONDS,
            "Time that a checkpoint held up training",
            registry=registry,
            buckets=SAVE_BUCKETS,
        )

    @functools.cached_property
    def mfu(self) -> prometheus_client.Gauge:
        """Made when it is first set: a gauge that exists is exported, and 0 would be a lie."""
        text = "Model FLOPs utilisation of the run, 0 to 1; only where the device's peak is known"
        return prometheus_client.Gauge(names.TRAIN_MFU, text, registry=self._registry, multiprocess_mode="mostrecent")


class Advance:
    """Turns totals that something else counts into increments of a Prometheus counter."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, ...], float] = {}

    def __call__(self, counter: prometheus_client.Counter, totals: Iterable[tuple[tuple[str, ...], float]]) -> None:
        """Add to `counter` what each total (label values, total) has grown since the last call."""
        for labels, value in totals:
            key = (counter._name, *labels)
            child = counter.labels(*labels) if labels else counter
            child.inc(max(0.0, value - self._before.get(key, 0.0)))
            self._before[key] = value


def prepare(folder: pathlib.Path) -> None:
    """In the entrypoint, before workers start: an empty folder for their files, named in the environment that they inherit."""
    folder.mkdir(parents=True, exist_ok=True)
    os.environ[ENV_FOLDER] = str(folder)


def exposition(folder: pathlib.Path) -> bytes:
    """The page that Prometheus scrapes: the metrics of all workers of the pod, living and dead."""
    for pid in {int(f.stem.rsplit("_", 1)[1]) for f in folder.glob("gauge_live*_*.db")}:
        if not _is_alive(pid):
            multiprocess.mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
    registry = prometheus_client.CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, str(folder))  # type: ignore[no-untyped-call]
    return prometheus_client.generate_latest(registry)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
