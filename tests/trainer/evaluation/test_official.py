"""The official forms are read as kaiko-eva reads them: same samples, labels, splits and pixels, by eva's own dataset classes."""

import collections
import hashlib
import json
import pathlib

import numpy as np
import pytest

from patho_trainer.data import storage
from patho_trainer.evaluation import encoder, features, images, sources
from patho_trainer.evaluation.datasets import bach, consep, crc, mhist, pcam
from tests.trainer import servers
from tests.trainer.evaluation import miniatures, official
from tests.trainer.evaluation.eva import place

READ = {"BACH": bach.read, "CRC": crc.read, "MHIST": mhist.read, "PCam": pcam.read}
WRITE = {
    "BACH": official.write_bach,
    "CRC": official.write_crc,
    "MHIST": miniatures.write_mhist,
    "PCam": official.write_pcam,
    "CoNSeP": official.write_consep,
}
PREFIX = {
    "BACH": "ICIAR2018_BACH_Challenge/Photos/",
    "CRC train": "NCT-CRC-HE-100K/",
    "CRC val": "CRC-VAL-HE-7K/",
    "MHIST": "images/",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("official")
    for name, write in WRITE.items():
        write(storage.Bucket(), f"{root}/{name}")
    return root


@pytest.fixture(scope="module")
def by_eva(folder: pathlib.Path) -> dict:
    if not place.installed():
        pytest.skip(place.NOT_INSTALLED)
    place.run("datasets", str(folder), f"{folder}/eva.json")
    return json.loads((folder / "eva.json").read_text())


def digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels, dtype=np.uint8).tobytes()).hexdigest()


def ours(task: str, folder: pathlib.Path, split: str) -> list:
    """(name as eva gives it, label, digest of the pixels) of a split, in the order of the data set."""
    bucket = storage.Bucket()
    data = READ[task](miniatures.task(f"{folder}/{task}", task), bucket)
    root = f"{folder}/{task}/" + PREFIX.get(f"{task} {split}", PREFIX.get(task, ""))
    found = []
    for sample in (s for s in data.samples if s.split == split):
        if sample.row >= 0:
            pixels = sources.hdf5.rows(bucket.head(sample.url), "x", sample.row, sample.row + 1, bucket)[0].transpose(2, 0, 1)
            name = f"camelyonpatch_level_2_split_{split}_x_{sample.row}"
        else:
            pixels, name = images.decode(bucket.read(sample.url), sample.url).numpy(), sample.url.removeprefix(root)
        found.append([name, sample.label, digest(pixels)])
    return found


@pytest.mark.slow
@pytest.mark.parametrize("task", READ)
def test_samples_labels_splits_and_pixels_are_evas(task: str, folder: pathlib.Path, by_eva: dict):
    assert {split: ours(task, folder, split) for split in by_eva[task]} == by_eva[task]


@pytest.mark.slow
def test_patches_and_merged_classes_of_consep_are_evas(folder: pathlib.Path, by_eva: dict, root: str):
    bucket = storage.Bucket()
    data = consep.read(miniatures.task(f"{folder}/CoNSeP", "CoNSeP"), bucket)
    source = sources.Tiles(data, 224, 4, bucket)
    arrays = source.embed(0, source.units, tiny(bucket, root), miniatures.CPU)
    masks = collections.Counter(map(digest, arrays["masks"]))
    means = sorted(float((image / 255 * 2 - 1).mean().round(5)) for image in arrays["images"])
    theirs = [patch for split in ("train", "val") for patch in by_eva["CoNSeP"][split]]
    assert masks == collections.Counter(patch[4] for patch in theirs)
    assert means == pytest.approx(sorted(patch[5] for patch in theirs), abs=2e-5)
    assert {s.image.url.rpartition("/")[2] for s in data.samples if s.split == "val"} == {patch[0] for patch in by_eva["CoNSeP"]["val"]}


def tiny(bucket: storage.Bucket, root: str) -> encoder.Encoder:
    return encoder.load(miniatures.spec(root, [miniatures.task(root)]).model, bucket, miniatures.CPU)


@pytest.mark.slow
def test_rows_of_pcam_are_read_out_of_a_bucket(s3: servers.Store, folder: pathlib.Path, root: str):
    for path in sorted((folder / "PCam").iterdir()):
        s3.put(path, f"PCam/{path.name}")
    bucket, local = s3.bucket(), storage.Bucket()
    model = tiny(local, root)
    found = [
        sources.Images(pcam.read(miniatures.task(url, "PCam"), place), 32, 5, place).embed(0, 24, model, miniatures.CPU)[features.FEATURES]
        for url, place in ((f"{s3.url}PCam", bucket), (f"{folder}/PCam", local))
    ]
    assert np.array_equal(*found)


def test_features_of_rows_of_an_hdf5_file_are_those_of_their_images(folder: pathlib.Path, root: str):
    bucket = storage.Bucket()
    data = pcam.read(miniatures.task(f"{folder}/PCam", "PCam"), bucket)
    model = tiny(bucket, root)
    found = sources.Images(data, 32, 5, bucket).embed(3, 14, model, miniatures.CPU)[features.FEATURES]
    x = sources.hdf5.rows(bucket.head(data.samples[0].url), "x", 0, 12, bucket)
    first = images.resize_and_crop(sources.torch.from_numpy(x[3]).permute(2, 0, 1), 32)
    assert found.shape == (11, 64)
    assert np.allclose(found[0], model(first[None])[0].numpy(), atol=1e-5)
