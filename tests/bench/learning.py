"""Whether the mechanics learn: a small model on slides of `textures`, without labels, for several seeds; a probe on slides held out.

    OMP_NUM_THREADS=1 python -m tests.bench.learning FOLDER [SEEDS]

Prints for each seed, before training and at every checkpoint: balanced accuracy of a linear probe on the class of texture (trained on the
slides of training, chance 0.25), RankMe, loss; then mean and standard deviation over the seeds. About a CPU-minute a seed.
"""

import dataclasses
import pathlib
import statistics
import sys

import numpy as np
import torch

from patho_api import common
from patho_api import pretrain as api
from patho_trainer import checkpoint, monitors, pretrain
from patho_trainer.data import slide, storage
from patho_trainer.evaluation import linear, metrics, protocols
from patho_trainer.methods import dinov2
from tests.trainer import runs, textures

SLIDES, HELD_OUT, PATCH_PX = 48, 16, 64
Labelled = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Point:
    """One moment of a run."""

    step: int
    probe: float
    rankme: float
    loss: float


def spec(folder: pathlib.Path, source: pathlib.Path, seed: int, steps: int = 160) -> api.PretrainSpec:
    """DINOv2 with balanced targets and a strong KoLeo: of what was tried, what learns most within 10,000 patches."""
    training = {
        "steps": steps,
        "batchSize": 64,
        "seed": seed,
        "learningRate": 2e-3,
        "warmupSteps": 10,
        "lossGroupSize": 64,
        "centering": "SinkhornKnopp",
        "teacherTemperatureStart": 0.02,
        "teacherTemperature": 0.02,
        "teacherMomentum": 0.98,
        "koleoWeight": 1.0,
        "ibotWeight": 0.3,
        "prototypes": 128,
        "headHiddenWidth": 256,
        "headBottleneckWidth": 64,
        "normLastLayer": False,
        "dropPath": 0.0,
        "layerDecay": 1.0,
        "patchEmbedLrMultiplier": 1.0,
        "freezeLastLayerSteps": 5,
        "crops": {"globalSizePx": PATCH_PX, "localSizePx": PATCH_PX // 2, "localCount": 4},
    }
    changes = {f"training__{name}": value for name, value in training.items()}
    return runs.spec(
        folder,
        method="DINOv2",
        model__architecture="test_vit",
        slides__source=f"{source}/",
        slides__foreground={"method": "None"},
        patches__sizePx=PATCH_PX,
        patches__magnifications=[{"mpp": textures.MPP}],
        patches__windowSteps=4,
        checkpoints__everySteps=40,
        checkpoints__keep=1000,
        **changes,
    )


def patches(made: list[tuple[pathlib.Path, list[int]]]) -> Labelled:
    """Every patch of every tile: uint8 (N, size, size, 3) and the classes (N,)."""
    images, labels = [], []
    for path, classes in made:
        opened = slide.open(str(path))
        for number, label in enumerate(classes):
            top, left = (textures.TILE_PX * i for i in divmod(number, textures.TILES))
            for y in range(top, top + textures.TILE_PX, PATCH_PX):
                for x in range(left, left + textures.TILE_PX, PATCH_PX):
                    images.append(opened.read((x, y), PATCH_PX, textures.MPP))
                    labels.append(label)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def score(backbone: torch.nn.Module, train: Labelled, held_out: Labelled) -> tuple[float, float]:
    """Balanced accuracy of the probe on held-out slides, and RankMe of the features."""
    backbone.eval()
    features = [
        monitors.features(backbone, images.split(256), PATCH_PX, common.Normalization(), torch.device("cpu"))
        for images, _ in (train, held_out)
    ]
    mean, std = features[0].mean(0), features[0].std(0) + 1e-6
    seen, unseen = (linear.Labelled((f - mean) / std, labels) for f, (_, labels) in zip(features, (train, held_out), strict=True))
    recipe = dataclasses.replace(protocols.recipe("Eva", len(train[1]), len(held_out[1]), max_steps=600), learning_rate=3e-3)
    # every fourth slide of training chooses the epoch: the held-out ones are only scored
    chooses = torch.arange(len(train[1])) // (textures.TILES**2 * (textures.TILE_PX // PATCH_PX) ** 2) % 4 == 3
    fit, val = (linear.Labelled(seen.features_ND[rows], seen.labels_N[rows]) for rows in (~chooses, chooses))
    probe = linear.fit(fit, val, classes=len(textures.CLASSES), recipe=recipe, seeds=[0])
    confusion = metrics.confusion(probe.predict(unseen.features_ND), unseen.labels_N, len(textures.CLASSES))
    return float(metrics.balanced_accuracy(confusion)[0]), metrics.rank_me(features[0])


def run(folder: pathlib.Path, wanted: api.PretrainSpec, train: Labelled, held_out: Labelled) -> list[Point]:
    """Train; the moments before the first step and at every checkpoint."""
    points = [Point(0, *score(dinov2.build(wanted, "cpu").teacher.backbone, train, held_out), float("nan"))]
    with runs.process(wanted, folder) as ctx:
        pretrain.train(ctx)
        losses = [entry["loss"] for entry in runs.steps(ctx.space.folder)]
    for found in checkpoint.complete(wanted.checkpoints.url, storage.Bucket()):
        backbone, _ = checkpoint.load_backbone(found.url, storage.Bucket())
        points.append(Point(found.step, *score(backbone, train, held_out), statistics.fmean(losses[found.step - 10 : found.step])))
    return points


def main(folder: pathlib.Path, seeds: int) -> None:
    torch.set_num_threads(1)
    made = textures.write(folder / "slides", SLIDES), textures.write(folder / "held-out", HELD_OUT, seed=1)
    train, held_out = (patches(each) for each in made)
    curves = []
    for seed in range(seeds):
        place = folder / f"seed-{seed}"
        place.mkdir()
        curves.append(run(place, spec(place, folder / "slides", seed), train, held_out))
        for point in curves[-1]:
            print(
                f"seed {seed} step {point.step:3d}  probe {point.probe:.3f}  RankMe {point.rankme:.1f}  loss {point.loss:.3f}", flush=True
            )
    for moment in zip(*curves, strict=True):
        probes = [point.probe for point in moment]
        spread = statistics.stdev(probes) if len(probes) > 1 else float("nan")
        print(f"step {moment[0].step:3d}: probe {statistics.fmean(probes):.3f} +- {spread:.3f} over {len(probes)} seeds")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5)
