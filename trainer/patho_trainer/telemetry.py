"""What a training process tells about its steps: Prometheus metrics, the progress report, a line now and then, a file of all steps."""

import contextlib
import dataclasses
import hashlib
import json
import time
from collections.abc import Iterator, Mapping

import torch

from patho_api import names, status
from patho_trainer import config, context, distributed, metrics, mfu, monitors, progress, schedules
from patho_trainer.data import catalog, stream
from patho_trainer.methods import dino, dinov2, rounds

LINE_SECONDS = 10.0
PROBE_SEED = 2**52  # added to the run's seed: patches that the run itself does not draw


class Stopwatch:
    """Seconds by stage of the current step, as seen by the host: a GPU's work counts where the host waits for it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._begin = time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - begin

    def lap(self) -> tuple[float, dict[str, float]]:
        """End the step: its whole time and its stages."""
        now = time.perf_counter()
        whole, stages = now - self._begin, self.seconds
        self._begin, self.seconds = now, {}
        return whole, stages


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What all processes know after the backward pass of a step. `terms` are means over the global batch."""

    terms: Mapping[str, float]
    gradient_norm: float
    finite: bool
    stop: bool
    saved: bool
    """Whether a save that was begun is complete in all processes."""
    wait_seconds: float


class Telemetry:
    """Speaks for one process; only the reporting one writes the report, the lines and the file."""

    def __init__(self, ctx: context.Context, slides: catalog.Catalog, flops_per_image: float) -> None:
        training = ctx.spec.training
        self._ctx = ctx
        self._slides = slides
        self._pacer = progress.Pacer(training.batch_size, training.steps)
        self._advance = metrics.Advance()
        self._said = -LINE_SECONDS
        self._probe: list[torch.Tensor] = []
        self._metrics = ctx.metrics
        self._metrics.restarts.set(ctx.restarts)
        self._metrics.slides.set(len(slides))
        self._flops_per_image = flops_per_image
        self._peak_flops = self._find_peak()
        self.stats = stream.Stats()
        self.watch = Stopwatch()

    def step(self, done: int, batch: stream.Batch, outcome: Outcome, values: schedules.Values) -> None:
        """Tell that step `done` (counted from 1) is over."""
        seconds, stages = self.watch.lap()
        self._pacer.add(seconds, outcome.wait_seconds)
        self._count(done, len(batch.slots), outcome, values, stages)
        self._copy_stream()
        if self._ctx.world.reports:
            pace = self._pacer.pace(done)
            if self._peak_flops:
                found = mfu.ratio(self._flops_per_image, pace.images_per_second, self._ctx.world.size, self._peak_flops)
                self._metrics.mfu.set(found)
            self._report(done, outcome, pace)
            self._note(done, batch, outcome)
            self._say(done, outcome, pace)

    def _find_peak(self) -> float | None:
        device = self._ctx.world.device
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
        peak = mfu.peak_flops(name, self._ctx.spec.training.precision)
        if peak is None and self._ctx.world.reports:
            print(f"no {names.TRAIN_MFU}: the peak of {name!r} is not in the table", flush=True)
        return peak

    def health(self, method: dino.Method | dinov2.Method, outcome: Outcome, rankme_max: float) -> monitors.Health:
        """Measure the teacher's features on patches that are always the same; all processes call it."""
        spec, world = self._ctx.spec, self._ctx.world
        batches = self._probe = self._probe or self._read_probe()
        found = monitors.features(
            method.teacher.features, batches, spec.training.crops.global_size_px, spec.training.normalization, world.device
        )
        features_ND = torch.cat(distributed.gather(found))
        health = monitors.judge(features_ND, outcome.terms["teacher_entropy"], spec.training.prototypes, rankme_max)
        self._metrics.rankme.set(health.rankme)
        self._metrics.odcorr.set(health.odcorr)
        self._ctx.reporter.tell(collapsed=health.collapsed)
        self.watch.lap()
        return health

    def _read_probe(self) -> list[torch.Tensor]:
        """This process's share of the probe patches: whole batches of a run with another seed, in as many parts as training takes them."""
        ctx, world = self._ctx, self._ctx.world
        count = -(-monitors.PROBE_PATCHES // ctx.spec.training.batch_size)
        seed, parts = ctx.spec.training.seed + PROBE_SEED, rounds.count(config.resolved(ctx.spec), world.size)
        with stream.batches(
            self._slides, ctx.spec, seed=seed, stop_step=count, rank=world.rank, world_size=world.size, bucket=ctx.slides
        ) as patches:
            return [part.clone() for batch in patches for part in batch.images.tensor_split(parts)]

    def _count(self, done: int, images: int, outcome: Outcome, values: schedules.Values, stages: Mapping[str, float]) -> None:
        m = self._metrics
        m.step.set(done)
        m.images.inc(images)
        m.learning_rate.set(values.learning_rate)
        m.gradient_norm.set(outcome.gradient_norm)
        m.data_wait.labels(str(self._ctx.world.local_rank)).inc(stages.get("data_wait", 0.0))
        for term, value in outcome.terms.items():
            m.loss.labels(term).set(value)
        for stage, value in stages.items():
            m.step_seconds.labels(stage).observe(value)
        if self._ctx.world.device.type == "cuda":
            m.gpu_memory.set(torch.cuda.max_memory_allocated())

    def _copy_stream(self) -> None:
        m, stats = self._metrics, self.stats
        self._advance(m.patches, [((), stats.patches)])
        self._advance(m.bytes, [((store,), size) for store, size in stats.bytes.items()])
        self._advance(m.requests, stats.requests.items())
        self._advance(m.seconds, [((stage,), seconds) for stage, seconds in stats.seconds.items()])
        self._advance(m.redrawn, [((), stats.redrawn)])
        self._advance(m.replaced, [((reason,), count) for reason, count in stats.replaced.items()])
        m.buffered.set(stats.buffered)
        m.quarantined.set(len(stats.quarantined))

    def _report(self, done: int, outcome: Outcome, pace: progress.Pace) -> None:
        slides = status.SlidesStatus(total=len(self._slides), quarantined=len(self.stats.quarantined))
        self._ctx.reporter.tell(stage="Training", step=done, loss=outcome.terms["loss"], slides=slides, **dataclasses.asdict(pace))

    def _note(self, done: int, batch: stream.Batch, outcome: Outcome) -> None:
        """One line for each step, exact to the last bit: what two runs must have in common to be the same run."""
        requests = hashlib.blake2b(repr(batch.requests).encode(), digest_size=8).hexdigest()
        entry = {
            "step": done,
            **outcome.terms,
            "gradientNorm": outcome.gradient_norm,
            "requests": requests,
            "worldSize": self._ctx.world.size,
        }
        with self._ctx.space.steps.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _say(self, done: int, outcome: Outcome, pace: progress.Pace) -> None:
        now, total = time.monotonic(), self._ctx.spec.training.steps
        if now - self._said >= LINE_SECONDS or done == total:
            self._said = now
            print(
                f"step {done}/{total}  loss {outcome.terms['loss']:.4f}  {pace.images_per_second:.1f} images/s  "
                f"wait {pace.data_wait_percent:.0f} %",
                flush=True,
            )
