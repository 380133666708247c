"""What every data set is once it is read: classes, and images with a label and a split; and what must hold for it."""

import collections
import csv
import dataclasses
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from patho_api.evaluate import Task
from patho_trainer import errors
from patho_trainer.data import catalog as catalogs
from patho_trainer.data import storage, urls

SPLITS = ("train", "val", "test")
Labels = TypeVar("Labels", "Dataset", "LabelledSlides")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of an annotation: path below the data set's folder, class name, split."""

    path: str
    label: str
    split: str


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One image; `etag` changes when the object in the bucket does. `row` is its number in the array of an HDF5 file, else -1."""

    url: str
    label: int
    split: str
    etag: str
    row: int = -1


@dataclasses.dataclass(frozen=True, slots=True)
class MaskedImage:
    """One image and the object that says the class of each of its pixels."""

    image: storage.ObjectInfo
    mask: storage.ObjectInfo
    split: str


@dataclasses.dataclass(frozen=True, slots=True)
class LabelledSlide:
    """One slide of a patient; its patches are read online."""

    slide: int
    """Index into the catalog's slides."""
    label: int
    split: str


@dataclasses.dataclass(frozen=True)
class TaskData:
    """What every kind of data set has: classes, and samples of splits."""

    task: str
    classes: tuple[str, ...]
    samples: tuple[Any, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have samples."""
        present = {s.split for s in self.samples}
        return tuple(s for s in SPLITS if s in present)

    @property
    def chosen_on(self) -> str:
        """Split that decides about early stopping; without a val split it is the test split, as kaiko-eva does for MHIST."""
        return "val" if "val" in self.splits else "test"

    @property
    def scored_on(self) -> str:
        """Split that the score is taken on; without a test split it is the val split."""
        return "test" if "test" in self.splits else "val"


@dataclasses.dataclass(frozen=True)
class Dataset(TaskData):
    """The images of a task, in the order of its annotation; `label` is an index into `classes`."""

    samples: tuple[Sample, ...]


@dataclasses.dataclass(frozen=True)
class MaskedImages(TaskData):
    """The images of a segmentation task; patches are cut from them by a grid. Class 0 is the background."""

    samples: tuple[MaskedImage, ...]
    patch_px: int | None
    """Edge of a patch in the image, which is then brought to the model's size; None: the model's size, cut 1:1."""
    decode_mask: Callable[[bytes, str], NDArray[np.uint8]]
    """Bytes and url of a mask object to class indices (H, W). Raises DataNotFound for a damaged file."""


@dataclasses.dataclass(frozen=True)
class LabelledSlides(TaskData):
    """The slides of a task, dealt out to splits by patient."""

    samples: tuple[LabelledSlide, ...]
    catalog: catalogs.Catalog


def name(task: Task) -> str:
    """How the task is called in results and sentences."""
    return task.label or task.name


def objects(task: Task, bucket: storage.Bucket) -> dict[str, storage.ObjectInfo]:
    """What lies below the task's folder, by relative path. Raises DataNotFound when nothing does."""
    address = urls.parse(task.data)
    root = address.url_of(f"{address.path.rstrip('/')}/".lstrip("/"))
    found = {info.url.removeprefix(root): info for info in bucket.list(task.data)}
    if not found:
        raise errors.DataNotFound(f"task {name(task)}: nothing lies below {task.data}: check the task's data and who may list it")
    return found


def the(file: str, task: Task, found: Mapping[str, storage.ObjectInfo]) -> storage.ObjectInfo:
    """The object at the path `file` of the data set. Raises DataNotFound where it is not there."""
    if file not in found:
        raise errors.DataNotFound(f"task {name(task)}: {file} is missing in {task.data}: put it there")
    return found[file]


def table(
    task: Task, file: str, columns: Sequence[str], found: Mapping[str, storage.ObjectInfo], bucket: storage.Bucket
) -> list[dict[str, str]]:
    """Rows of a CSV file of the data set. Raises DataNotFound without the file, InvalidConfiguration without one of `columns`."""
    if file not in found:
        raise errors.DataNotFound(f"task {name(task)}: {file} is missing in {task.data}: put the data set's annotation there")
    try:
        reader = csv.DictReader(io.StringIO(bucket.read(found[file].url).decode("utf-8-sig")), restval="", strict=True)
        rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as broken:
        raise errors.InvalidConfiguration(f"task {name(task)}: {found[file].url} is not a CSV file in UTF-8: {broken}") from broken
    missing = [c for c in columns if c not in (reader.fieldnames or ())]
    if missing:
        raise errors.InvalidConfiguration(
            f"task {name(task)}: {found[file].url} lacks the column {missing[0]!r}: it needs {', '.join(columns)}"
        )
    return rows


def classified(
    task: Task, found: Mapping[str, storage.ObjectInfo], folder: str, classes: Sequence[str], suffixes: tuple[str, ...]
) -> list[tuple[str, str]]:
    """(path, class) of the images in `<folder><class>/` and below, class by class, folder by folder, by name: the order of kaiko-eva.

    Raises DataNotFound where the folder or that of a class holds none, InvalidConfiguration for images in a folder that is no class.
    """
    images = [path for path in found if path.startswith(folder) and path.lower().endswith(suffixes)]
    by_class = collections.defaultdict(list)
    for path in sorted(images, key=lambda path: path.rpartition("/")[::2]):
        by_class[path.removeprefix(folder).partition("/")[0]].append(path)
    strange = [label for label in by_class if label not in classes]
    if strange:
        raise errors.InvalidConfiguration(
            f"task {name(task)}: {by_class[strange[0]][0]} is in the folder of the unknown class {strange[0]!r}: "
            f"the classes are {', '.join(classes)}"
        )
    missing = [label for label in classes if not by_class[label]]
    if missing:
        raise errors.DataNotFound(
            f"task {name(task)}: no {' or '.join(suffixes)} image in {task.data.rstrip('/')}/{folder}{missing[0]}/: "
            "unpack the data set there"
        )
    return [(path, label) for label in sorted(classes) for path in by_class[label]]


def build(task: Task, rows: Iterable[Row], found: Mapping[str, storage.ObjectInfo], classes: Sequence[str] | None = None) -> Dataset:
    """The data set that `rows` describe; classes None: the sorted labels of the training split.

    Raises DataNotFound for files that are not there and for classes without images, InvalidConfiguration for labels and splits that
    the data set does not have.
    """
    rows = list(rows)
    classes = tuple(classes) if classes else tuple(sorted({r.label for r in rows if r.split == "train" and r.label}))
    _check_values(task, rows, classes)
    _check_files(task, rows, found)
    samples = [Sample(found[r.path].url, classes.index(r.label), r.split, found[r.path].etag) for r in rows]
    return checked(Dataset(name(task), classes, tuple(samples)))


def checked(dataset: Labels) -> Labels:
    """The data set itself, once it is clear that a probe can be trained and scored on it; raises DataNotFound otherwise."""
    _check_counts(dataset)
    return dataset


def _check_values(task: Task, rows: Iterable[Row], classes: tuple[str, ...]) -> None:
    for row in rows:
        if row.split not in SPLITS:
            raise errors.InvalidConfiguration(
                f"task {name(task)}: {row.path} is of the unknown split {row.split!r}: use {', '.join(SPLITS)}"
            )
        if row.label not in classes:
            raise errors.InvalidConfiguration(
                f"task {name(task)}: {row.path} has the unknown label {row.label!r}: the classes are {', '.join(classes) or 'none'}"
            )


def _check_files(task: Task, rows: Iterable[Row], found: Mapping[str, storage.ObjectInfo]) -> None:
    missing = [r.path for r in rows if r.path not in found]
    if missing:
        raise errors.DataNotFound(
            f"task {name(task)}: {len(missing)} annotated images are missing in {task.data}, the first is {missing[0]}"
        )


def check_splits(data: TaskData) -> None:
    """Raise DataNotFound unless there is something to train on, and something to score on."""
    if "train" not in data.splits or len(data.splits) < 2:
        there = " and ".join(data.splits) or "no split"
        raise errors.DataNotFound(f"task {data.task}: too few samples: {there} has images, but train and one of val and test need some")


def _check_counts(dataset: Dataset | LabelledSlides) -> None:
    """A probe needs two classes, and balanced accuracy an image of each class in each split."""
    check_splits(dataset)
    if len(dataset.classes) < 2:
        raise errors.DataNotFound(f"task {dataset.task}: too few samples: the only class is {dataset.classes[0]}, a probe needs two")
    counts = collections.Counter((s.split, s.label) for s in dataset.samples)
    for split in dataset.splits:
        for label, class_name in enumerate(dataset.classes):
            if not counts[split, label]:
                raise errors.DataNotFound(f"task {dataset.task}: too few samples: class {class_name} has no image in split {split}")
