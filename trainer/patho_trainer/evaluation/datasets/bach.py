"""BACH in its official form: `<data>/ICIAR2018_BACH_Challenge/Photos/{Benign,InSitu,Invasive,Normal}/*.tif`, 400 images, four classes.

Aresta et al., "BACH: Grand Challenge on Breast Cancer Histology Images", arXiv 1808.04277. The official labels have no split: as in
kaiko-eva, the images are numbered in the order of their paths and dealt out so that no patient is on both sides (268 and 132 images).
"""

from patho_api.evaluate import Task
from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation.datasets import dataset
from patho_trainer.evaluation.datasets.dataset import Dataset, Row

FOLDER = "ICIAR2018_BACH_Challenge/Photos/"
CLASSES = ("Benign", "InSitu", "Invasive", "Normal")
VAL = ((41, 59), (60, 90), (139, 169), (240, 258), (260, 273), (345, 368))  # numbers of the images, from kaiko-eva 0.4.5
IMAGES = 400


def read(task: Task, bucket: storage.Bucket) -> Dataset:
    """Images, labels and splits. Raises DataNotFound and InvalidConfiguration, see `dataset.build`."""
    found = dataset.objects(task, bucket)
    paths = dataset.classified(task, found, FOLDER, CLASSES, (".tif",))
    if len(paths) != IMAGES:  # a number says which split an image belongs to: with one image less, all that follow would move
        raise errors.DataNotFound(
            f"task {dataset.name(task)}: {task.data}/{FOLDER} has {len(paths)} .tif images in the classes' folders instead of "
            f"{IMAGES}: unpack ICIAR2018_BACH_Challenge.zip there again"
        )
    rows = [Row(path, label, _split(i)) for i, (path, label) in enumerate(paths)]
    return dataset.build(task, rows, found, CLASSES)


def _split(number: int) -> str:
    return "val" if any(first <= number < end for first, end in VAL) else "train"
