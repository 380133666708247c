"""Whether the mechanics learn: a small model on slides of `textures`, without labels, for several seeds; a probe on slides held out.

    make learn      (five seeds, about five CPU-minutes; writes docs/learning.svg)

The protocol, fixed before the seeds were run (on seed 100): 48 slides to train on, 16 held out, 36 tiles each, 6 classes in equal shares.
The probe is DINO's: a vote of the 20 nearest training tiles by the cosine of their standardised features, weighted by
exp(cosine / 0.07); balanced accuracy on the held-out slides, chance 0.167. It learns nothing, so that the features alone are judged.
Before training the same probe judges the weights that the same seed starts from.
"""

import dataclasses
import math
import pathlib
import statistics
import sys
from collections.abc import Sequence

import numpy as np
import safetensors.torch
import torch
from torch.nn import functional

from patho_api import common
from patho_api import pretrain as api
from patho_trainer import checkpoint, monitors, pretrain
from patho_trainer.data import slide, storage
from patho_trainer.evaluation import metrics
from patho_trainer.models import vit
from tests.bench import curves
from tests.trainer import runs, textures

ARCHITECTURE, CROP_PX = "test_vit", 64
SLIDES, HELD_OUT, EVERY, STEPS = 48, 16, 25, 100
NEIGHBOURS, VOTE_TEMPERATURE = 20, 0.07  # facebookresearch/dino eval_knn.py
WINDOW = 10  # steps that a loss is the mean of
Labelled = tuple[torch.Tensor, torch.Tensor]


@dataclasses.dataclass(frozen=True)
class Point:
    """One moment of a run."""

    step: int
    probe: float
    rankme: float
    loss: float
    """Mean of the steps before it; of the first steps at step 0."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Tiles uint8 (N, size, size, 3) and their classes (N,): of the slides that are trained on, and of those held out."""

    slides: pathlib.Path
    train: Labelled
    held_out: Labelled


def data(folder: pathlib.Path) -> Data:
    """Write the slides and read every tile."""
    made = textures.write(folder / "slides", SLIDES), textures.write(folder / "held-out", HELD_OUT, seed=1)
    return Data(folder / "slides", *(_tiles(each) for each in made))


def _tiles(made: list[tuple[pathlib.Path, list[int]]]) -> Labelled:
    images, labels = [], []
    for path, classes in made:
        opened = slide.open(str(path))
        for number, label in enumerate(classes):
            y, x = (textures.TILE_PX * i for i in divmod(number, textures.TILES))
            images.append(opened.read((x, y), textures.TILE_PX, textures.MPP))
            labels.append(label)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def start(file: pathlib.Path, seed: int) -> vit.Backbone:
    """Random weights in a file. Their variance is 1 / inputs: with timm's 0.02, meant for wide models, one this narrow needs half the run
    to grow them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone = vit.create(ARCHITECTURE, img_size_px=CROP_PX)
        for module in backbone.modules():
            if isinstance(module, torch.nn.Linear):
                torch.nn.init.normal_(module.weight, std=module.in_features**-0.5)
    safetensors.torch.save_file(backbone.state_dict(), file)
    return backbone


def spec(folder: pathlib.Path, source: pathlib.Path, weights: pathlib.Path, seed: int) -> api.PretrainSpec:
    """DINOv2 without masks, for few and small steps: a teacher that follows closely, sharp and balanced targets, few prototypes."""
    training = {
        "steps": STEPS,
        "batchSize": 64,
        "seed": seed,
        "learningRate": 2e-3,
        "lossGroupSize": 64,
        "centering": "SinkhornKnopp",
        "teacherTemperatureStart": 0.02,
        "teacherTemperature": 0.02,
        "teacherMomentum": 0.9,
        "koleoWeight": 0.5,
        "ibotWeight": 0.0,
        "maskProbability": 0.0,
        "prototypes": 64,
        "headHiddenWidth": 256,
        "headBottleneckWidth": 64,
        "dropPath": 0.0,
        "weightDecayEnd": 0.04,
        "layerDecay": 1.0,
        "patchEmbedLrMultiplier": 1.0,
        "freezeLastLayerSteps": 5,
        "augmentation": {"blurProbabilities": [0.2, 0.1, 0.1], "rotate90": True},
        "crops": {
            "globalSizePx": CROP_PX,
            "globalScale": [0.5, 1.0],
            "localSizePx": CROP_PX // 2,
            "localScale": [0.2, 0.5],
            "localCount": 4,
        },
    }
    changes = {f"training__{name}": value for name, value in training.items()}
    return runs.spec(
        folder,
        method="DINOv2",
        model={"architecture": ARCHITECTURE, "init": {"source": "URL", "url": str(weights)}},
        slides__source=f"{source}/",
        slides__foreground={"method": "None"},
        patches={"sizePx": textures.TILE_PX, "magnifications": [{"mpp": textures.MPP}], "coordinates": "Grid", "windowSteps": 4},
        checkpoints__everySteps=EVERY,
        checkpoints__keep=1000,
        **changes,
    )


def run(folder: pathlib.Path, found: Data, seed: int) -> list[Point]:
    """Train; the moments before the first step and at every checkpoint."""
    folder.mkdir()
    first = score(start(folder / "start.safetensors", seed), found)
    with runs.process(spec(folder, found.slides, folder / "start.safetensors", seed), folder) as ctx:
        pretrain.train(ctx)
        losses = [entry["loss"] for entry in runs.steps(ctx.space.folder)]
    points = [Point(0, *first, statistics.fmean(losses[:WINDOW]))]
    for saved in checkpoint.complete(f"{folder}/run", storage.Bucket()):
        backbone, _ = checkpoint.load_backbone(saved.url, storage.Bucket())
        points.append(Point(saved.step, *score(backbone, found), statistics.fmean(losses[saved.step - WINDOW : saved.step])))
    return points


def score(backbone: vit.Backbone, found: Data) -> tuple[float, float]:
    """Balanced accuracy of the probe on the held-out slides, and RankMe of the training features."""
    backbone.eval()
    train_ND, held_out_ND = (
        monitors.features(backbone, images.split(256), CROP_PX, common.Normalization(), torch.device("cpu"))
        for images, _ in (found.train, found.held_out)
    )
    labels_N, classes = found.train[1], len(textures.CLASSES)
    mean_D, std_D = train_ND.mean(0), train_ND.std(0) + 1e-6
    seen_ND, unseen_MD = (functional.normalize((x - mean_D) / std_D, dim=1) for x in (train_ND, held_out_ND))
    cosine_MK, nearest_MK = (unseen_MD @ seen_ND.T).topk(NEIGHBOURS)
    votes_MC = torch.zeros(len(unseen_MD), classes).scatter_add_(1, labels_N[nearest_MK], (cosine_MK / VOTE_TEMPERATURE).exp())
    confusion = metrics.confusion(votes_MC.argmax(1)[None], found.held_out[1], classes)
    return float(metrics.balanced_accuracy(confusion)[0]), metrics.rank_me(train_ND)


def shortcomings(seeds: Sequence[Sequence[Point]]) -> list[str]:
    """What speaks against "it learns", in sentences; empty if it does. Two standard deviations need three seeds or more."""
    begin, end = ([run[i].probe for run in seeds] for i in (0, -1))
    spread = statistics.stdev(end) if len(seeds) > 2 else 0.0
    found = []
    if statistics.fmean(end) - 2 * spread <= statistics.fmean(begin):
        found.append(f"the probe: {end}, from {begin} with random weights")
    if any(run[-1].rankme <= run[0].rankme for run in seeds):
        found.append(f"RankMe: {[(run[0].rankme, run[-1].rankme) for run in seeds]}")
    if any(not run[-1].loss < run[0].loss or not math.isfinite(run[-1].loss) for run in seeds):
        found.append(f"the loss: {[(run[0].loss, run[-1].loss) for run in seeds]}")
    return found


def picture(seeds: Sequence[Sequence[Point]]) -> str:
    """Loss, RankMe and probe over the steps: mean and one standard deviation over the seeds, as SVG."""
    titles = {"loss": "loss", "rankme": "RankMe", "probe": "20-NN balanced accuracy, held-out slides"}
    steps = [point.step for point in seeds[0]]
    return curves.svg({title: (steps, [[getattr(p, name) for p in run] for run in seeds]) for name, title in titles.items()})


def main(folder: pathlib.Path, seeds: int, out: pathlib.Path) -> None:
    torch.set_num_threads(1)
    found, done = data(folder), []
    for seed in range(seeds):
        done.append(run(folder / f"seed-{seed}", found, seed))
        for point in done[-1]:
            print(
                f"seed {seed} step {point.step:3d}  probe {point.probe:.3f}  RankMe {point.rankme:.1f}  loss {point.loss:.3f}", flush=True
            )
    for moment in zip(*done, strict=True):
        probes = [point.probe for point in moment]
        print(f"step {moment[0].step:3d}: probe {statistics.fmean(probes):.3f} +- {statistics.stdev(probes):.3f} over {seeds} seeds")
    out.write_text(picture(done))
    if missed := shortcomings(done):
        sys.exit("it does not learn: " + "; ".join(missed))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), pathlib.Path(sys.argv[3]))
