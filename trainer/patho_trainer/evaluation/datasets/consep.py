"""CoNSeP in its official form: `<data>/{Train,Test}/Images/*.png`, 41 images of 1000 px at 0.25 um/px, and `Labels/*.mat` beside.

Graham et al., "HoVer-Net", arXiv 1812.06499. As there and in kaiko-eva, epithelial classes (3, 4) become one, and so do the
spindle-shaped ones (5, 6, 7). Test serves as validation split: early stopping and score share it. Patches of 250 px tile an image.
"""

import io
from typing import Any

import numpy as np
import scipy.io
from numpy.typing import NDArray

from patho_api.evaluate import Task
from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation.datasets import dataset
from patho_trainer.evaluation.datasets.dataset import MaskedImage, MaskedImages

CLASSES = ("background", "other", "inflammatory", "epithelial", "spindle-shaped")
MERGED = np.array([0, 1, 2, 3, 3, 4, 4, 4], dtype=np.uint8)
FOLDERS = {"train": "Train/", "val": "Test/"}
PATCH_PX = 250
KEY = "type_map"


def read(task: Task, bucket: storage.Bucket) -> MaskedImages:
    """Images, masks and splits. Raises DataNotFound for missing files."""
    found = dataset.objects(task, bucket)
    samples = []
    for split, folder in FOLDERS.items():
        images = sorted(path for path in found if path.startswith(f"{folder}Images/") and path.endswith(".png"))
        for path in images:
            label = f"{folder}Labels/{path.removeprefix(f'{folder}Images/').removesuffix('.png')}.mat"
            samples.append(MaskedImage(found[path], dataset.the(label, task, found), split))
        if not images:
            raise errors.DataNotFound(
                f"task {dataset.name(task)}: no .png image in {task.data.rstrip('/')}/{folder}Images/: unpack CoNSeP there"
            )
    return MaskedImages(dataset.name(task), CLASSES, tuple(samples), PATCH_PX, decode)


def decode(data: bytes, url: str) -> NDArray[np.uint8]:
    """Class indices (H, W) of a `.mat` file. Raises DataNotFound for a damaged one, InvalidConfiguration for another content."""
    try:
        found: dict[str, Any] = scipy.io.loadmat(io.BytesIO(data), variable_names=[KEY])
    except Exception as broken:  # scipy raises whatever a damaged file leads to
        raise errors.DataNotFound(f"{url} is not a readable MATLAB file ({type(broken).__name__}): replace it") from broken
    if KEY not in found:
        raise errors.InvalidConfiguration(f"{url} has no field {KEY!r}: it is no label of CoNSeP")
    types = np.asarray(found[KEY]).astype(np.int64)
    if types.min() < 0 or types.max() >= len(MERGED):
        raise errors.InvalidConfiguration(f"{url} has the unknown label {types.max()} in {KEY}: CoNSeP has 0 to {len(MERGED) - 1}")
    return MERGED[types]
