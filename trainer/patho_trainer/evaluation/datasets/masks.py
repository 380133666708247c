"""PatchSegmentation: a user's own images with masks.

`<data>/<split>/images/NAME.png` (or .jpg, .tif) and `<data>/<split>/masks/NAME.png`, splits train, val and test, one of the last two may
be missing. A mask is a greyscale PNG of the image's size whose values are class indices; `<data>/classes.txt` names the classes, one a
line, the background first. Patches of the model's image size tile an image; what is left over at its right and lower edge is not used.
"""

import io
import pathlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from patho_api.evaluate import Task
from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation.datasets import dataset, folder
from patho_trainer.evaluation.datasets.dataset import MaskedImage, MaskedImages

CLASSES = "classes.txt"
MOST_CLASSES = 255


def read(task: Task, bucket: storage.Bucket) -> MaskedImages:
    """Images, masks and splits. Raises DataNotFound for missing files, InvalidConfiguration for a list of classes that is none."""
    found = dataset.objects(task, bucket)
    classes = _classes(task, bucket.read(dataset.the(CLASSES, task, found).url))
    samples = []
    for path in sorted(p for p in found if pathlib.PurePosixPath(p).suffix.lower() in folder.SUFFIXES):
        split, _, rest = path.partition("/images/")
        if split in dataset.SPLITS and rest:
            mask = dataset.the(f"{split}/masks/{pathlib.PurePosixPath(rest).with_suffix('.png')}", task, found)
            samples.append(MaskedImage(found[path], mask, split))
    read = MaskedImages(dataset.name(task), classes, tuple(samples), None, lambda data, url: decode(data, url, len(classes)))
    dataset.check_splits(read)
    return read


def decode(data: bytes, url: str, classes: int) -> NDArray[np.uint8]:
    """Class indices (H, W). Raises DataNotFound for a damaged file, InvalidConfiguration for colours and for indices without a class."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as broken:
        raise errors.DataNotFound(f"{url} is not a readable mask ({broken}): replace it") from broken
    if pixels.ndim != 2:
        raise errors.InvalidConfiguration(f"{url} is a mask with colours: write class indices as a greyscale PNG")
    if int(pixels.max()) >= classes:
        raise errors.InvalidConfiguration(f"{url} has the unknown label {pixels.max()}: {CLASSES} names the classes 0 to {classes - 1}")
    return pixels.astype(np.uint8)


def _classes(task: Task, data: bytes) -> tuple[str, ...]:
    names = tuple(line.strip() for line in data.decode("utf-8", "replace").splitlines() if line.strip())
    if not 2 <= len(names) <= MOST_CLASSES:
        raise errors.InvalidConfiguration(
            f"task {dataset.name(task)}: {CLASSES} in {task.data} names {len(names)} classes: write at least two, one a line, "
            "the background first"
        )
    return names
