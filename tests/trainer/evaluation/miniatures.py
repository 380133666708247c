"""Small stand-ins with the exact form of the real thing: MHIST, folders of labelled images, a tiny ViT, a checkpoint."""

import csv
import io
import json

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from patho_api import evaluate
from patho_trainer.data import storage
from patho_trainer.evaluation import linear
from patho_trainer.evaluation.datasets import folder
from patho_trainer.models import vit

CPU = torch.device("cpu")
ARCHITECTURE = "test_vit"  # timm's own: 64 wide, 16 px patches
COLOURS = {"HP": (200, 120, 180), "SSA": (120, 90, 170), "stroma": (230, 190, 210)}
MHIST_COLUMNS = ("Image Name", "Majority Vote Label", "Number of Annotators who Selected SSA (Out of 7)", "Partition")
NORMALIZATION = {"mean": [0.6, 0.5, 0.4], "std": [0.2, 0.3, 0.4]}


def image(label: str, number: int, size_px: int = 48) -> np.ndarray:
    """A noisy field in the colour of its class."""
    random = np.random.default_rng([number, *label.encode()])
    return np.clip(random.normal(COLOURS[label], 12, (size_px, size_px, 3)), 0, 255).astype(np.uint8)


def png(array: np.ndarray, form: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, form)
    return data.getvalue()


def write_labelled(bucket: storage.Bucket, url: str, splits: tuple[str, ...] = ("train", "val", "test"), each: int = 6) -> None:
    numbered = {split: range(100 * i, 100 * i + each) for i, split in enumerate(splits)}
    folder.write(bucket, url, {split: {c: [image(c, n) for n in numbers] for c in COLOURS} for split, numbers in numbered.items()})


def write_csv(bucket: storage.Bucket, url: str, columns: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    text = io.StringIO()
    csv.writer(text).writerows([columns, *rows])
    bucket.write(url, text.getvalue().encode())


def mhist_rows(train: int = 8, test: int = 5) -> list[tuple[object, ...]]:
    labels = ["SSA", "HP"]
    return [(f"MHIST_a{n:02}.png", labels[n % 2], 6 if n % 2 == 0 else 1, "train" if n < train else "test") for n in range(train + test)]


def write_mhist(bucket: storage.Bucket, url: str) -> None:
    rows = mhist_rows()
    for n, (name, label, *_) in enumerate(rows):
        bucket.write(f"{url}/images/{name}", png(image(str(label), n, 32)))
    write_csv(bucket, f"{url}/annotations.csv", MHIST_COLUMNS, rows)


def backbone(seed: int = 0) -> vit.Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return vit.create(ARCHITECTURE)


def write_weights(bucket: storage.Bucket, url: str, seed: int = 0) -> None:
    bucket.write(url, safetensors.torch.save(backbone(seed).state_dict()))


def write_checkpoint(bucket: storage.Bucket, url: str) -> None:
    write_weights(bucket, f"{url}/state-1/teacher.safetensors")
    config = {"architecture": ARCHITECTURE, "imageSizePx": 160, "normalization": NORMALIZATION, "step": 20}
    bucket.write(f"{url}/state-1/config.json", json.dumps(config).encode())
    bucket.write(f"{url}/COMPLETE.json", json.dumps({"step": 20, "time": "2024-04-22T00:00:00Z", "state": "state-1"}).encode())


def task(data: str, name: str = "PatchClassification") -> evaluate.Task:
    return evaluate.Task.model_validate({"name": name, "data": data})


def spec(root: str, tasks: list[evaluate.Task], **fields: object) -> evaluate.EvalSpec:
    model = {"url": f"{root}/vit.safetensors", "architecture": ARCHITECTURE}
    values = {
        "model": model,
        "tasks": tasks,
        "runs": 2,
        "max_steps": 40,
        "image_size_px": 32,
        "batch_size": 4,
        "results": f"{root}/results",
    }
    return evaluate.EvalSpec.model_validate(values | fields)


def blobs(distance: float, samples: int = 300, classes: int = 3, width: int = 16, seed: int = 0) -> tuple[linear.Labelled, linear.Labelled]:
    """Two halves of a mixture of normal distributions whose means are `distance` standard deviations from the origin."""
    random = torch.Generator().manual_seed(seed)
    means_CD = torch.nn.functional.normalize(torch.randn(classes, width, generator=random), dim=1) * distance
    labels_N = torch.arange(2 * samples) % classes
    features_ND = means_CD[labels_N] + torch.randn(2 * samples, width, generator=random)
    return linear.Labelled(features_ND[:samples], labels_N[:samples]), linear.Labelled(features_ND[samples:], labels_N[samples:])
