"""Miniature data sets in the exact official forms: names, HDF5 keys, CSV columns, fields of .mat files, numbers that splits rest on."""

import io

import h5py
import numpy as np
import scipy.io

from patho_trainer.data import storage
from patho_trainer.evaluation.datasets import bach, crc
from tests.trainer.evaluation import miniatures

CONSEP = {"Train": ("train_1", "train_2", "train_10"), "Test": ("test_1", "test_2")}


def pixels(number: int, size_px: int = 8, tint: int = 0) -> np.ndarray:
    """uint8 RGB noise around a colour that `tint` names."""
    random = np.random.default_rng(number)
    base = np.array(list(miniatures.COLOURS.values())[tint % 3])
    return np.clip(random.normal(base + 20 * (tint // 3), 10, (size_px, size_px, 3)), 0, 255).astype(np.uint8)


def write_bach(bucket: storage.Bucket, url: str, size_px: int = 8) -> None:
    """400 images in four folders of 100, as ICIAR2018_BACH_Challenge.zip unpacks; and the table that lies beside."""
    photos = f"{url}/ICIAR2018_BACH_Challenge/Photos"
    for i, (folder, prefix) in enumerate(zip(bach.CLASSES, ("b", "is", "iv", "n"), strict=True)):
        for number in range(100):
            bucket.write(f"{photos}/{folder}/{prefix}{number + 1:03}.tif", miniatures.png(pixels(100 * i + number, size_px, i), "TIFF"))
    bucket.write(f"{photos}/microscopy_ground_truth.csv", b"b001.tif,Benign\n")


def write_crc(bucket: storage.Bucket, url: str, train: int = 3, val: int = 2) -> None:
    for folder, count in (("NCT-CRC-HE-100K", train), ("CRC-VAL-HE-7K", val)):
        for i, label in enumerate(crc.CLASSES):
            for n in range(count):
                name = f"{label}-{'ABCDEFGH'[n]}{'TCGA' if n % 2 else 'AAAA'}QNP.tif"
                bucket.write(f"{url}/{folder}/{label}/{name}", miniatures.png(pixels(1000 * len(folder) + 10 * i + n, tint=i), "TIFF"))


def write_pcam(bucket: storage.Bucket, url: str, sizes: tuple[int, int, int] = (12, 6, 6), size_px: int = 96) -> None:
    """The six files of Zenodo 2546921, unpacked: `x` (N, 96, 96, 3) and `y` (N, 1, 1, 1), uint8, chunked by image."""
    for split, (name, count) in enumerate(zip(("train", "valid", "test"), sizes, strict=True)):
        labels = np.arange(count) % 2
        x = np.stack([pixels(10_000 * split + n, size_px, int(label)) for n, label in enumerate(labels)])
        stem = f"{url}/camelyonpatch_level_2_split_{name}"
        bucket.write(f"{stem}_x.h5", hdf5(x=x, chunks=(1, *x.shape[1:])))
        bucket.write(f"{stem}_y.h5", hdf5(y=labels.astype(np.uint8).reshape(-1, 1, 1, 1)))


def hdf5(chunks: tuple[int, ...] | None = None, **arrays: np.ndarray) -> bytes:
    data = io.BytesIO()
    with h5py.File(data, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, chunks=chunks)
    return data.getvalue()


def type_map(number: int, size_px: int) -> np.ndarray:
    """Nuclei of all seven types as discs on a background, float64 as CoNSeP stores it."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[:size_px, :size_px]
    types = np.zeros((size_px, size_px))
    for n in range(60):
        centre, radius = random.integers(0, size_px, 2), random.integers(size_px // 40, size_px // 12)
        types[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2] = n % 7 + 1
    return types


def stained(types: np.ndarray, number: int) -> np.ndarray:
    """uint8 RGB in which a type shows."""
    noise = np.random.default_rng(number).normal(0, 8, (*types.shape, 1))
    shades = np.array([[230, 200, 220], *([60 + 25 * t, 40 + 5 * t, 180 - 20 * t] for t in range(1, 8))])
    return np.clip(shades[types.astype(int)] + noise, 0, 255).astype(np.uint8)


def write_consep(bucket: storage.Bucket, url: str, size_px: int = 500) -> None:
    """Images and labels as CoNSeP.zip unpacks (1000 px there); the label files also hold maps that nobody reads here."""
    for folder, names in CONSEP.items():
        for n, name in enumerate(names):
            types = type_map(n + len(folder), size_px)
            bucket.write(f"{url}/{folder}/Images/{name}.png", miniatures.png(stained(types, n)))
            bucket.write(f"{url}/{folder}/Labels/{name}.mat", mat(type_map=types, inst_map=types))


def mat(**fields: np.ndarray) -> bytes:
    data = io.BytesIO()
    scipy.io.savemat(data, fields)
    return data.getvalue()


def write_masks(bucket: storage.Bucket, url: str, each: int = 2, size_px: int = 64) -> None:
    """A user's own segmentation data: three classes."""
    bucket.write(f"{url}/classes.txt", b"background\nlymphocyte\ntumour\n")
    for s, split in enumerate(("train", "val")):
        for n in range(each):
            types = np.minimum(type_map(100 * s + n, size_px), 2)
            bucket.write(f"{url}/{split}/images/{n}.png", miniatures.png(stained(types * 3, n)))
            bucket.write(f"{url}/{split}/masks/{n}.png", miniatures.png(types.astype(np.uint8)))
