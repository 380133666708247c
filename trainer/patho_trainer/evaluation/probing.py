"""From the features of a task to its outcome: probes or decoders for every seed, their scores, and what the report shows."""

# N samples, F width of the features, R runs, C classes

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
import torch
from pydantic import alias_generators

from patho_api import evaluate as contract
from patho_trainer.evaluation import encoder as encoders
from patho_trainer.evaluation import exhibits, features, linear, metrics, protocols, results, segmentation, sources
from patho_trainer.evaluation.datasets.dataset import TaskData

AnySource: TypeAlias = sources.Images | sources.Tiles | sources.Patches
Progress = Callable[[int, int], None]
LABEL_FREE_SAMPLES = 25_600  # what RankMe's authors found enough


def probe(
    spec: contract.EvalSpec,
    task: contract.Task,
    source: AnySource,
    arrays: features.Arrays,
    encoder: encoders.Encoder,
    device: torch.device,
    progress: Progress,
) -> tuple[results.TaskOutcome, exhibits.Exhibit]:
    """Train and score every run of a task; `progress` gets (steps done, steps at most)."""
    if isinstance(source, sources.Tiles):
        return _segment(spec, task, source, arrays, encoder, device, progress)
    return _classify(spec, task, source, arrays, device, progress)


def _classify(
    spec: contract.EvalSpec,
    task: contract.Task,
    source: sources.Images | sources.Patches,
    arrays: features.Arrays,
    device: torch.device,
    progress: Progress,
) -> tuple[results.TaskOutcome, exhibits.Exhibit]:
    data, features_NF = source.data, torch.from_numpy(arrays[features.FEATURES]).to(device)
    owners_N = np.arange(len(features_NF)) if isinstance(source, sources.Images) else arrays["slides"]  # rows of data.samples
    labels_N = torch.tensor([s.label for s in data.samples], device=device)[torch.from_numpy(owners_N).to(device)]
    rows = _rows(data, owners_N)
    splits = {name: linear.Labelled(features_NF[rows[name]], labels_N[rows[name]]) for name in data.splits}
    train, choosing, scoring = (splits[name] for name in ("train", data.chosen_on, data.scored_on))
    recipe = protocols.recipe(spec.protocol, len(train.labels_N), len(choosing.labels_N), spec.max_steps)
    seeds = range(spec.seed, spec.seed + spec.runs)
    probes = linear.fit(train, choosing, classes=len(data.classes), recipe=recipe, seeds=seeds, progress=progress)
    confusion_RCC = metrics.confusion(probes.predict(scoring.features_ND), scoring.labels_N, len(data.classes))
    runs = [
        results.Run(seed=seed, score=score, chosen_at=chosen_at, best_epoch=epoch, steps=steps)
        for seed, score, chosen_at, epoch, steps in zip(
            seeds,
            metrics.balanced_accuracy(confusion_RCC).tolist(),
            probes.val_scores_R.tolist(),
            probes.best_epochs_R.tolist(),
            probes.steps_R.tolist(),
            strict=True,
        )
    ]
    counts = {name: len(split.labels_N) for name, split in splits.items()}
    outcome = _outcome(task, source, recipe, counts, runs, confusion_RCC, train.features_ND, results.BALANCED_ACCURACY)
    return outcome, exhibits.Exhibit(exhibits.scatter(scoring.features_ND, scoring.labels_N), ())


def _segment(
    spec: contract.EvalSpec,
    task: contract.Task,
    source: sources.Tiles,
    arrays: features.Arrays,
    encoder: encoders.Encoder,
    device: torch.device,
    progress: Progress,
) -> tuple[results.TaskOutcome, exhibits.Exhibit]:
    data = source.data
    tokens_NDGG, images_N3SS, masks_NSS = (torch.from_numpy(arrays[name]) for name in (features.FEATURES, "images", "masks"))
    patches = segmentation.Masked(tokens_NDGG, images_N3SS, masks_NSS, device)
    splits = {name: patches.part(rows) for name, rows in _rows(data, arrays["units"]).items()}
    train, choosing, scoring = (splits[name] for name in ("train", data.chosen_on, data.scored_on))
    recipe = protocols.segmentation(len(train), spec.max_steps or protocols.SEGMENTATION_STEPS)
    seeds, trained = range(spec.seed, spec.seed + spec.runs), []
    for i, seed in enumerate(seeds):
        count = lambda step, i=i: progress(i * recipe.max_steps + step, spec.runs * recipe.max_steps)  # noqa: E731  # for this run
        trained.append(
            segmentation.fit(
                train, choosing, classes=len(data.classes), normalization=encoder.normalization, recipe=recipe, seed=seed, progress=count
            )
        )
    counts = [segmentation.confusion(run.decoder, scoring, encoder.normalization, recipe.batch_size) for run in trained]
    runs = [
        results.Run(seed=seed, score=segmentation.dice(c), chosen_at=run.val_score, best_epoch=run.best_epoch, steps=run.steps)
        for seed, run, c in zip(seeds, trained, counts, strict=True)
    ]
    pixels_RCC = torch.stack([c.sum(dim=0) for c in counts])
    tokens_NF = torch.cat([batch.tokens_NDGG.mean(dim=(2, 3)) for batch in train.batches(recipe.batch_size)])
    sizes = {name: len(split) for name, split in splits.items()}
    outcome = _outcome(task, source, recipe, sizes, runs, pixels_RCC, tokens_NF, results.DICE)
    shown = scoring.take(torch.linspace(0, len(scoring) - 1, min(exhibits.PICTURES, len(scoring))).round().long())
    predicted_NSS = segmentation.predict(trained[0].decoder, shown, encoder.normalization, recipe.batch_size)
    return outcome, exhibits.Exhibit((), exhibits.pictures(shown.images_N3SS, shown.masks_NSS, predicted_NSS))


def _rows(data: TaskData, owners_N: np.ndarray) -> dict[str, torch.Tensor]:
    """Numbers of the rows of each split; `owners_N` says to which sample of the data set a row belongs."""
    splits_N = np.array([s.split for s in data.samples])[owners_N]
    return {name: torch.from_numpy(np.flatnonzero(splits_N == name)) for name in data.splits}


def _outcome(
    task: contract.Task,
    source: AnySource,
    recipe: protocols.Recipe,
    counts: dict[str, int],
    runs: Sequence[results.Run],
    confusion_RCC: torch.Tensor,
    train_NF: torch.Tensor,
    metric: str,
) -> results.TaskOutcome:
    scores, data = [run.score for run in runs], source.data
    sample_NF = train_NF[:: -(-len(train_NF) // LABEL_FREE_SAMPLES)]
    return results.TaskOutcome(
        task=data.task,
        kind=task.name,
        data=task.data,
        data_version=source.version,
        preprocessing=source.preprocessing,
        feature_width=train_NF.shape[1],
        classes=list(data.classes),
        samples=counts,
        chosen_on=data.chosen_on,
        scored_on=data.scored_on,
        recipe={alias_generators.to_camel(key): value for key, value in dataclasses.asdict(recipe).items()},
        metric=metric,
        mean=statistics.mean(scores),
        std=statistics.stdev(scores) if len(scores) > 1 else 0.0,
        runs=list(runs),
        confusion=metrics.shares(confusion_RCC).mean(dim=0).tolist(),
        rank_me=metrics.rank_me(sample_NF),
        od_corr=metrics.od_corr(sample_NF),
    )
