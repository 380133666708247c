"""CRC in its official form: `<data>/NCT-CRC-HE-100K/<class>/*.tif` (train) and `<data>/CRC-VAL-HE-7K/<class>/*.tif` (val).

Kather et al., "100,000 histological images of human colorectal cancer and healthy tissue", Zenodo 1214456: 224 px at 0.5 um/px, nine
classes. As in kaiko-eva, the second set serves as validation split, so early stopping and score share it.
"""

from patho_api.evaluate import Task
from patho_trainer.data import storage
from patho_trainer.evaluation.datasets import dataset
from patho_trainer.evaluation.datasets.dataset import Dataset, Row

CLASSES = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
FOLDERS = {"train": "NCT-CRC-HE-100K/", "val": "CRC-VAL-HE-7K/"}


def read(task: Task, bucket: storage.Bucket) -> Dataset:
    """Images, labels and splits. Raises DataNotFound and InvalidConfiguration, see `dataset.build`."""
    found = dataset.objects(task, bucket)
    rows = [
        Row(path, label, split)
        for split, folder in FOLDERS.items()
        for path, label in dataset.classified(task, found, folder, CLASSES, (".tif",))
    ]
    return dataset.build(task, rows, found, CLASSES)
