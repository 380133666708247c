"""Probes and decoders against kaiko-eva 0.4.5 on the same features: scores within its spread, CPU-seconds side by side.

eva gets its features from memory, which is its best case (its own data sets read a file for each); both run on one thread.
"""

import json
import pathlib
import statistics
import time

import numpy as np
import pytest
import torch

from patho_trainer.evaluation import encoder, linear, metrics, protocols, segmentation
from tests.trainer.evaluation import miniatures, test_segmentation
from tests.trainer.evaluation.eva import place

pytestmark = [pytest.mark.bench, pytest.mark.timeout(7200)]

WIDTH, RUNS = 384, 5  # features of a ViT-S
EVA_SEED = 7777  # not that of the data: heads drawn from the same stream of numbers as the class means would know them
# training and validation samples, classes, distance of the class means in standard deviations, steps (the protocol's 12,500 shortened)
PROBLEMS = {
    "BACH": (268, 132, 4, 4.0, 400),
    "CRC": (100_000, 7_180, 9, 3.0, 782),
    "PCam": (262_144, 32_768, 2, 1.0, 1024),
}


def problem(train: int, val: int, classes: int, distance: float, seed: int = 0) -> tuple[linear.Labelled, linear.Labelled]:
    random = torch.Generator().manual_seed(seed)
    means_CD = torch.nn.functional.normalize(torch.randn(classes, WIDTH, generator=random), dim=1) * distance

    def split(samples: int) -> linear.Labelled:
        labels_N = torch.randint(0, classes, (samples,), generator=random)
        return linear.Labelled(means_CD[labels_N] + torch.randn(samples, WIDTH, generator=random), labels_N)

    return split(train), split(val)


def by_eva(command: str, arrays: dict, config: dict, folder: pathlib.Path) -> tuple[list[float], float]:
    np.savez(f"{folder}/in.npz", **arrays)
    pathlib.Path(folder, "config.json").write_text(json.dumps(config))
    place.run(command, f"{folder}/in.npz", f"{folder}/config.json", f"{folder}/out.json", timeout_seconds=7000)
    found = json.loads(pathlib.Path(folder, "out.json").read_text())
    return found["scores"], found["cpu_seconds"]


def said(name: str, ours: list[float], theirs: list[float], seconds: float, eva_seconds: float) -> None:
    mean, other = statistics.mean(ours), statistics.mean(theirs)
    spread = statistics.stdev(ours), statistics.stdev(theirs)
    print(
        f"\n{name}: ours {mean:.4f} ± {spread[0]:.4f}, eva {other:.4f} ± {spread[1]:.4f} ({len(ours)} runs each);"
        f" CPU-seconds {seconds:.2f} against {eva_seconds:.1f}: {eva_seconds / seconds:.1f}x"
    )


def agree(ours: list[float], theirs: list[float]) -> bool:
    """Whether the means differ by less than three standard errors of their difference; one sample in 2,000 is always free."""
    error = (statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs)) ** 0.5
    return abs(statistics.mean(ours) - statistics.mean(theirs)) <= 3 * error + 5e-4


@pytest.mark.parametrize("name", PROBLEMS)
def test_linear_probes_score_as_eva_in_a_twentieth_of_its_time(name: str, tmp_path: pathlib.Path):
    torch.set_num_threads(1)
    samples, val_samples, classes, distance, steps = PROBLEMS[name]
    train, val = problem(samples, val_samples, classes, distance)
    recipe = protocols.eva(samples, steps)
    begin = time.process_time()
    probes = linear.fit(train, val, classes=classes, recipe=recipe, seeds=range(RUNS))
    ours = metrics.balanced_accuracy(metrics.confusion(probes.predict(val.features_ND), val.labels_N, classes)).tolist()
    seconds = time.process_time() - begin
    arrays = {
        f"{split}_{axis}": t.numpy()
        for split, d in (("train", train), ("val", val))
        for axis, t in (("x", d.features_ND), ("y", d.labels_N))
    }
    config = {"classes": classes, "max_steps": steps, "patience": recipe.patience_epochs, "runs": RUNS, "seed": EVA_SEED}
    theirs, eva_seconds = by_eva("fit", arrays, config, tmp_path)
    said(f"{name}, {steps} steps", ours, theirs, seconds, eva_seconds)
    assert agree(ours, theirs)
    assert eva_seconds > 20 * seconds


def test_decoders_score_as_evas_on_the_same_features(tmp_path: pathlib.Path):
    torch.set_num_threads(1)
    backbone, half, runs, steps = miniatures.backbone().eval(), test_segmentation.HALF, 6, 100
    splits = {name: test_segmentation.nuclei(count, seed) for name, count, seed in (("train", 16, 0), ("val", 8, 1000))}
    images = {name: encoder.normalized(each.images_N3SS, half) for name, each in splits.items()}
    begin = time.process_time()
    with torch.inference_mode():
        maps = {name: backbone.forward_intermediates(x, indices=1, norm=False, intermediates_only=True)[0] for name, x in images.items()}
    train, val = (segmentation.Masked(maps[name].clone(), splits[name].images_N3SS, splits[name].masks_NSS) for name in ("train", "val"))
    recipe = protocols.segmentation(len(train), steps)
    ours = [
        segmentation.fit(train, val, classes=test_segmentation.CLASSES, normalization=half, recipe=recipe, seed=seed).val_score
        for seed in range(runs)
    ]
    seconds = time.process_time() - begin
    arrays = {f"{name}_images": x.numpy() for name, x in images.items()} | {
        f"{name}_masks": each.masks_NSS.numpy() for name, each in splits.items()
    }
    weights = {f"weights.{name}": value.numpy() for name, value in backbone.state_dict().items()}
    config = {"architecture": miniatures.ARCHITECTURE, "width": 64, "classes": test_segmentation.CLASSES, "max_steps": steps}
    config |= {"patience": recipe.patience_epochs, "runs": runs, "seed": EVA_SEED}
    theirs, eva_seconds = by_eva("segment", arrays | weights, config, tmp_path)
    said(f"segmentation, {steps} steps", ours, theirs, seconds, eva_seconds)
    assert agree(ours, theirs)
