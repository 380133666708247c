"""One PathoEval, top to bottom: data sets, model, then for each task features, probes and scores; at the end the report."""

# N samples, F feature width

import dataclasses
import statistics
from collections.abc import Callable, Sequence

import torch
from pydantic import alias_generators

from patho_api import evaluate as contract
from patho_api.report import LastWords
from patho_trainer.data import storage, urls
from patho_trainer.evaluation import encoder as encoders
from patho_trainer.evaluation import features, linear, metrics, protocols, report, results
from patho_trainer.evaluation.datasets import folder, mhist
from patho_trainer.evaluation.datasets.dataset import Dataset

READERS = {"MHIST": mhist.read, "PatchClassification": folder.read}
LABEL_FREE_SAMPLES = 25_600  # what RankMe's authors found enough
Progress = Callable[[str, int, int], None]


def evaluate(spec: contract.EvalSpec, bucket: storage.Bucket, *, progress: Progress) -> LastWords:
    """Evaluate a model on all tasks; writes `results.json` and `report.html` to `spec.results`, and keeps the features there.

    `progress` gets (stage, done, total): Loading counts data sets, Evaluating images embedded, Training steps of the probes, each
    over all tasks. All data sets and the model are checked before anything is computed. Raises InvalidConfiguration, DataNotFound and
    Diverged, one sentence each.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    datasets = _read(spec.tasks, bucket, progress)
    encoder = encoders.load(spec.model, bucket, device)
    encoders.check_size(encoder, spec.image_size_px)
    outcomes = []
    for i, (task, dataset) in enumerate(zip(spec.tasks, datasets, strict=True)):
        features_NF = features.compute(
            dataset,
            encoder,
            image_size_px=spec.image_size_px,
            batch_size=spec.batch_size,
            bucket=bucket,
            cache_url=urls.join(spec.results, "features"),
            device=device,
            progress=_images_counter(datasets, i, progress),
        )
        outcomes.append(_probe(spec, task, dataset, features_NF, _steps_counter(datasets, i, progress)))
    return _finish(_results(spec, encoder, outcomes, features_NF.shape[1]), spec, bucket, progress)


def _images_counter(datasets: Sequence[Dataset], current: int, progress: Progress) -> Callable[[int], None]:
    before, total = (sum(len(d.samples) for d in part) for part in (datasets[:current], datasets))
    return lambda done: progress("Evaluating", before + done, total)


def _steps_counter(datasets: Sequence[Dataset], current: int, progress: Progress) -> Callable[[int, int], None]:
    """Probes that stop early leave a gap, so that every task counts the same."""
    return lambda done, most: progress("Training", current * most + done, len(datasets) * most)


def _read(tasks: Sequence[contract.Task], bucket: storage.Bucket, progress: Progress) -> list[Dataset]:
    found = []
    for i, task in enumerate(tasks):
        progress("Loading", i, len(tasks))
        found.append(READERS[task.name](task, bucket))
    progress("Loading", len(tasks), len(tasks))
    return found


def _probe(
    spec: contract.EvalSpec, task: contract.Task, dataset: Dataset, features_NF: torch.Tensor, progress: Callable[[int, int], None]
) -> results.TaskOutcome:
    """Train the probes of a task and score them."""
    splits = {name: _split(dataset, features_NF, name) for name in dataset.splits}
    train, choosing, scoring = (splits[name] for name in ("train", dataset.chosen_on, dataset.scored_on))
    recipe = protocols.recipe(spec.protocol, len(train.labels_N), len(choosing.labels_N), spec.max_steps)
    seeds = range(spec.seed, spec.seed + spec.runs)
    probes = linear.fit(train, choosing, classes=len(dataset.classes), recipe=recipe, seeds=seeds, progress=progress)
    confusion_RCC = metrics.confusion(probes.predict(scoring.features_ND), scoring.labels_N, len(dataset.classes))
    scores = metrics.balanced_accuracy(confusion_RCC).tolist()
    sample_NF = train.features_ND[:: -(-len(train.features_ND) // LABEL_FREE_SAMPLES)]
    return results.TaskOutcome(
        task=dataset.task,
        kind=task.name,
        data=task.data,
        data_version=features.version(dataset),
        classes=list(dataset.classes),
        samples={name: len(split.labels_N) for name, split in splits.items()},
        chosen_on=dataset.chosen_on,
        scored_on=dataset.scored_on,
        recipe={alias_generators.to_camel(key): value for key, value in dataclasses.asdict(recipe).items()},
        mean=statistics.mean(scores),
        std=statistics.stdev(scores) if len(scores) > 1 else 0.0,
        runs=[
            results.Run(seed=seed, score=score, chosen_at=chosen_at, best_epoch=epoch, steps=steps)
            for seed, score, chosen_at, epoch, steps in zip(
                seeds, scores, probes.val_scores_R.tolist(), probes.best_epochs_R.tolist(), probes.steps_R.tolist(), strict=True
            )
        ],
        confusion=metrics.shares(confusion_RCC).mean(dim=0).tolist(),
        rank_me=metrics.rank_me(sample_NF),
        od_corr=metrics.od_corr(sample_NF),
    )


def _split(dataset: Dataset, features_NF: torch.Tensor, name: str) -> linear.Labelled:
    rows = [i for i, sample in enumerate(dataset.samples) if sample.split == name]
    labels_N = torch.tensor([dataset.samples[i].label for i in rows], device=features_NF.device)
    return linear.Labelled(features_NF[rows], labels_N)


def _results(spec: contract.EvalSpec, encoder: encoders.Encoder, outcomes: list[results.TaskOutcome], width: int) -> results.Results:
    return results.Results(
        protocol=outcomes[0].recipe["protocol"],
        model=results.ModelFacts(
            source=encoder.source,
            architecture=encoder.architecture,
            step=encoder.step,
            weights_digest=encoder.digest,
            feature_width=width,
            pooling=encoder.pooling,
            image_size_px=spec.image_size_px,
            preprocessing=features.PREPROCESSING,
            normalization=encoder.normalization,
        ),
        tasks=outcomes,
        rank_me=statistics.mean(o.rank_me for o in outcomes),
        od_corr=statistics.mean(o.od_corr for o in outcomes),
        versions=results.versions(),
    )


def _finish(found: results.Results, spec: contract.EvalSpec, bucket: storage.Bucket, progress: Progress) -> LastWords:
    """Write report and results, in this order: where results.json is, everything is."""
    progress("Saving", 0, 1)
    bucket.write(urls.join(spec.results, report.FILE), report.html(found).encode())
    bucket.write(urls.join(spec.results, results.FILE), results.file(found))
    progress("Saving", 1, 1)
    return LastWords(
        reason="Completed",
        message=", ".join(f"{t.task} {t.mean:.3f} ± {t.std:.3f}" for t in found.tasks),
        results=[t.in_status() for t in found.tasks],
        rank_me=found.rank_me,
        od_corr=found.od_corr,
        report_url=urls.join(spec.results, results.FILE),
    )
