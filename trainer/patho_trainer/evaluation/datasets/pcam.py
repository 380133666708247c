"""PCam in its official form: `<data>/camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5`, 327,680 images of 96 px, binary.

Veeling et al., "Rotation Equivariant CNNs for Digital Pathology", arXiv 1806.03962 (Zenodo 2546921, unpacked). Images are rows of the
array `x` (N, 96, 96, 3) uint8 and are never unpacked: `hdf5` reads the rows it needs out of the object.
"""

from patho_api.evaluate import Task
from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation import hdf5
from patho_trainer.evaluation.datasets import dataset
from patho_trainer.evaluation.datasets.dataset import Dataset, Sample

CLASSES = ("no_tumor", "tumor")
FILES = {split: f"camelyonpatch_level_2_split_{name}" for split, name in (("train", "train"), ("val", "valid"), ("test", "test"))}


def read(task: Task, bucket: storage.Bucket) -> Dataset:
    """Images, labels and splits. Raises DataNotFound and InvalidConfiguration for files that are missing, damaged or of another shape."""
    found = dataset.objects(task, bucket)
    missing = [file for stem in FILES.values() for file in (f"{stem}_x.h5", f"{stem}_y.h5") if file not in found]
    if missing:
        hint = " (unpack it)" if f"{missing[0]}.gz" in found else ""
        raise errors.DataNotFound(f"task {dataset.name(task)}: {missing[0]} is missing in {task.data}{hint}: PCam has six .h5 files there")
    samples = [s for split, stem in FILES.items() for s in _split(task, split, found[f"{stem}_x.h5"], found[f"{stem}_y.h5"], bucket)]
    return dataset.checked(Dataset(dataset.name(task), CLASSES, tuple(samples)))


def _split(task: Task, split: str, x: storage.ObjectInfo, y: storage.ObjectInfo, bucket: storage.Bucket) -> list[Sample]:
    labels = hdf5.array(y, "y", bucket).reshape(-1).tolist()
    shape = hdf5.shape(x, "x", bucket)
    if len(shape) != 4 or shape[3] != 3 or shape[0] != len(labels):
        raise errors.InvalidConfiguration(
            f"task {dataset.name(task)}: {x.url} has the shape {shape} and {y.url} {len(labels)} labels: "
            "they must be (N, height, width, 3) and N"
        )
    strange = [i for i, label in enumerate(labels) if label not in (0, 1)]
    if strange:
        raise errors.InvalidConfiguration(
            f"task {dataset.name(task)}: {y.url} has the unknown label {labels[strange[0]]} in row {strange[0]}: "
            f"0 is {CLASSES[0]}, 1 is {CLASSES[1]}"
        )
    return [Sample(x.url, label, split, x.etag, row) for row, label in enumerate(labels)]
