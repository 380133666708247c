"""One PathoEval, top to bottom: data sets, model, features by all processes; then one process trains the probes, scores and reports."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence

import torch

from patho_api import evaluate as contract
from patho_api.report import LastWords
from patho_trainer import distributed
from patho_trainer.data import storage, urls
from patho_trainer.evaluation import encoder as encoders
from patho_trainer.evaluation import exhibits, features, history, probing, report, results, sources
from patho_trainer.evaluation.datasets import bach, consep, crc, folder, masks, mhist, pcam, slides

IMAGES = {"BACH": bach.read, "CRC": crc.read, "MHIST": mhist.read, "PCam": pcam.read, "PatchClassification": folder.read}
MASKED = {"CoNSeP": consep.read, "PatchSegmentation": masks.read}
Progress = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Job:
    """A task of the specification, what its features are computed of, and where they are kept."""

    task: contract.Task
    source: probing.AnySource
    place: features.Place

    @property
    def images(self) -> int:
        """Images or patches to embed, about."""
        return self.source.units * self.source.images_a_unit


def evaluate(
    spec: contract.EvalSpec, bucket: storage.Bucket, *, progress: Progress, world: distributed.World | None = None
) -> LastWords | None:
    """Evaluate a model on all tasks; writes `results.json` and `report.html` to `spec.results`, and keeps the features there.

    Called by every process of `world` (None: there is no other); the one that reports gets the last words, the others None. `progress`
    gets (stage, done, total): Loading counts data sets, Evaluating images embedded, Training steps of the probes, each over all tasks.
    All data sets and the model are checked before anything is computed. Raises InvalidConfiguration, DataNotFound and Diverged, one
    sentence each.
    """
    world = world or distributed.alone()
    found = _read(spec, bucket, world, progress)
    encoder = encoders.load(spec.model, bucket, world.device)
    encoders.check_size(encoder, spec.image_size_px)
    cache = urls.join(spec.results, "features")
    jobs = [Job(t, source, features.place(source, encoder, cache, bucket)) for t, source in zip(spec.tasks, found, strict=True)]
    for i, job in enumerate(jobs):
        features.compute(job.source, encoder, job.place, world, _images_counter(jobs, i, progress))
    distributed.meet(world)
    return _report(spec, encoder, jobs, bucket, world, progress) if world.reports else None


def _read(spec: contract.EvalSpec, bucket: storage.Bucket, world: distributed.World, progress: Progress) -> list[probing.AnySource]:
    found = []
    for i, task in enumerate(spec.tasks):
        progress("Loading", i, len(spec.tasks))
        found.append(_source(spec, task, bucket, world))
    progress("Loading", len(spec.tasks), len(spec.tasks))
    return found


def _source(spec: contract.EvalSpec, task: contract.Task, bucket: storage.Bucket, world: distributed.World) -> probing.AnySource:
    if task.name in IMAGES:
        return sources.Images(IMAGES[task.name](task, bucket), spec.image_size_px, spec.batch_size, bucket)
    if task.name in MASKED:
        return sources.Tiles(MASKED[task.name](task, bucket), spec.image_size_px, spec.batch_size, bucket)
    patches, index_url = sources.slide_patches(spec.image_size_px), urls.join(spec.results, "index", task.label or task.name)
    meet = lambda: distributed.meet(world)  # noqa: E731  # a barrier of this world
    labelled = slides.read(task, bucket, patches=patches, index_url=index_url, world=world, barrier=meet)
    return sources.Patches(labelled, patches, bucket, spec.compute)


def _images_counter(jobs: Sequence[Job], current: int, progress: Progress) -> Callable[[int], None]:
    before, total = (sum(job.images for job in part) for part in (jobs[:current], jobs))
    return lambda units: progress("Evaluating", before + units * jobs[current].source.images_a_unit, total)


def _steps_counter(tasks: int, current: int, progress: Progress) -> Callable[[int, int], None]:
    """Probes that stop early leave a gap, so that every task counts the same."""
    return lambda done, most: progress("Training", 1000 * current + 1000 * done // most, 1000 * tasks)


def _report(
    spec: contract.EvalSpec,
    encoder: encoders.Encoder,
    jobs: Sequence[Job],
    bucket: storage.Bucket,
    world: distributed.World,
    progress: Progress,
) -> LastWords:
    """Train and score; write the report, then the results: where results.json is, everything is."""
    outcomes: list[results.TaskOutcome] = []
    shown: list[exhibits.Exhibit] = []
    for i, job in enumerate(jobs):
        arrays = features.load(job.place)
        outcome, exhibit = probing.probe(spec, job.task, job.source, arrays, encoder, world.device, _steps_counter(len(jobs), i, progress))
        outcomes.append(outcome)
        shown.append(exhibit)
    made = _results(spec, encoder, outcomes)
    progress("Saving", 0, 1)
    bucket.write(urls.join(spec.results, report.FILE), report.html(made, shown, history.checkpoints(made, spec.results, bucket)).encode())
    bucket.write(urls.join(spec.results, results.FILE), results.file(made))
    progress("Saving", 1, 1)
    return _words(made, spec.results)


def _results(spec: contract.EvalSpec, encoder: encoders.Encoder, outcomes: list[results.TaskOutcome]) -> results.Results:
    return results.Results(
        protocol="; ".join(dict.fromkeys(o.recipe["protocol"] for o in outcomes)),
        model=results.ModelFacts(
            source=encoder.source,
            architecture=encoder.architecture,
            step=encoder.step,
            run=encoder.run,
            weights_digest=encoder.digest,
            pooling=encoder.pooling,
            image_size_px=spec.image_size_px,
            normalization=encoder.normalization,
        ),
        tasks=outcomes,
        rank_me=statistics.mean(o.rank_me for o in outcomes),
        od_corr=statistics.mean(o.od_corr for o in outcomes),
        versions=results.versions(torch.version.cuda),
    )


def _words(made: results.Results, folder: str) -> LastWords:
    return LastWords(
        reason="Completed",
        message=", ".join(f"{t.task} {t.mean:.3f} ± {t.std:.3f}" for t in made.tasks),
        results=[t.in_status() for t in made.tasks],
        rank_me=made.rank_me,
        od_corr=made.od_corr,
        report_url=urls.join(folder, results.FILE),
    )
