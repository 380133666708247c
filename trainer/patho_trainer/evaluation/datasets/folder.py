"""PatchClassification: a user's own labelled images, in folders or in a table.

Folders: `<data>/train/<class>/*.png`, `<data>/val/<class>/...`, `<data>/test/<class>/...`; one of val and test may be missing.
Table: `<data>/labels.csv` with the columns path (below `<data>`), label, split (train, val or test); where it lies, folders do not count.
"""

import io
import pathlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy import typing as npt
from PIL import Image

from patho_api.evaluate import Task
from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation.datasets import dataset
from patho_trainer.evaluation.datasets.dataset import Dataset, Row

LABELS = "labels.csv"
COLUMNS = ("path", "label", "split")
SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")


def read(task: Task, bucket: storage.Bucket) -> Dataset:
    """Images, labels and splits. Raises DataNotFound and InvalidConfiguration, see `dataset.build`."""
    found = dataset.objects(task, bucket)
    if LABELS in found:
        return dataset.build(task, [Row(*(row[c] for c in COLUMNS)) for row in dataset.table(task, LABELS, COLUMNS, found, bucket)], found)
    return dataset.build(task, _rows(task, found), found)


def write(bucket: storage.Bucket, url: str, images: Mapping[str, Mapping[str, Sequence[npt.NDArray[np.uint8]]]]) -> None:
    """Write {split: {class: [uint8 RGB (H, W, 3)]}} as folders of PNG files that `read` understands."""
    for split, classes in images.items():
        for label, arrays in classes.items():
            for i, array in enumerate(arrays):
                bucket.write(f"{url.rstrip('/')}/{split}/{label}/{i:05}.png", _png(array))


def _rows(task: Task, paths: Iterable[str]) -> list[Row]:
    """Rows out of paths `<split>/<class>/...`; files that are no images do not count."""
    rows = []
    for path in (p for p in paths if pathlib.PurePosixPath(p).suffix.lower() in SUFFIXES):
        parts = path.split("/")
        if len(parts) < 3:
            raise errors.InvalidConfiguration(
                f"task {dataset.name(task)}: {path} lies in no folder of a split and a class: use train/<class>/, val/<class>/, or {LABELS}"
            )
        rows.append(Row(path, label=parts[1], split=parts[0]))
    return rows


def _png(array: npt.NDArray[np.uint8]) -> bytes:
    data = io.BytesIO()
    Image.fromarray(array).save(data, "PNG")
    return data.getvalue()
