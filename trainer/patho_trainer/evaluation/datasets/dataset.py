"""What every data set is once it is read: classes, and images with a label and a split; and what must hold for it."""

import collections
import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence

from patho_api.evaluate import Task
from patho_trainer import errors
from patho_trainer.data import storage, urls

SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of an annotation: path below the data set's folder, class name, split."""

    path: str
    label: str
    split: str


@dataclasses.dataclass(frozen=True)
class Sample:
    """One image; `etag` changes when the object in the bucket does."""

    url: str
    label: int
    split: str
    etag: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The images of a task, in the order of its annotation; `label` is an index into `classes`."""

    task: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]

    @property
    def splits(self) -> tuple[str, ...]:
        """Splits that have images."""
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
    dataset = Dataset(name(task), classes, tuple(samples))
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


def _check_counts(dataset: Dataset) -> None:
    """A probe needs two classes, and balanced accuracy an image of each class in each split."""
    if "train" not in dataset.splits or len(dataset.splits) < 2:
        there = " and ".join(dataset.splits) or "no split"
        raise errors.DataNotFound(f"task {dataset.task}: too few samples: {there} has images, but train and one of val and test need some")
    if len(dataset.classes) < 2:
        raise errors.DataNotFound(f"task {dataset.task}: too few samples: the only class is {dataset.classes[0]}, a probe needs two")
    counts = collections.Counter((s.split, s.label) for s in dataset.samples)
    for split in dataset.splits:
        for label, class_name in enumerate(dataset.classes):
            if not counts[split, label]:
                raise errors.DataNotFound(f"task {dataset.task}: too few samples: class {class_name} has no image in split {split}")
