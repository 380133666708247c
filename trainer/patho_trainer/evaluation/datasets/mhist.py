"""MHIST in its official form: `<data>/images/MHIST_*.png` and `<data>/annotations.csv`, binary, 2,175 + 977 images of 224 px.

Wei et al., "A Petri Dish for Histopathology Image Analysis", arXiv 2101.12355. Splits and class order are kaiko-eva's: the official
test partition serves as validation split, so early stopping and score share it.
"""

from patho_api.evaluate import Task
from patho_trainer.data import storage
from patho_trainer.evaluation.datasets import dataset
from patho_trainer.evaluation.datasets.dataset import Dataset, Row

ANNOTATIONS = "annotations.csv"
IMAGE, LABEL, PARTITION = "Image Name", "Majority Vote Label", "Partition"
CLASSES = ("SSA", "HP")  # sessile serrated adenoma, hyperplastic polyp
SPLITS = {"train": "train", "test": "val"}


def read(task: Task, bucket: storage.Bucket) -> Dataset:
    """Images, labels and splits. Raises DataNotFound and InvalidConfiguration, see `dataset.build`."""
    found = dataset.objects(task, bucket)
    table = dataset.table(task, ANNOTATIONS, (IMAGE, LABEL, PARTITION), found, bucket)
    rows = [Row(f"images/{row[IMAGE]}", row[LABEL], SPLITS.get(row[PARTITION], row[PARTITION])) for row in table]
    return dataset.build(task, rows, found, CLASSES)
