"""What can be wrong with a task: one clear sentence each, that names the task or the file, and the exit code that goes with it."""

import pathlib
import re
import shutil

import numpy as np
import pytest

from patho_api import names
from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation import run
from tests.trainer import slides
from tests.trainer.evaluation import miniatures, official

CONFIGURATION, DATA = names.EXIT_INVALID_CONFIGURATION, names.EXIT_NO_DATA
BACH = "ICIAR2018_BACH_Challenge/Photos"
PCAM = "camelyonpatch_level_2_split_"
WRITE = {
    "BACH": official.write_bach,
    "CRC": official.write_crc,
    "MHIST": miniatures.write_mhist,
    "PCam": official.write_pcam,
    "CoNSeP": official.write_consep,
    "PatchSegmentation": official.write_masks,
    "PatchClassification": miniatures.write_labelled,
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Every data set, whole."""
    root = tmp_path_factory.mktemp("whole")
    for name, write in WRITE.items():
        write(storage.Bucket(), f"{root}/{name}", **({"size_px": 250} if name == "CoNSeP" else {}))
    return root


def gone(path: str):
    return lambda root: (root / path).unlink()


def says(path: str, data: bytes):
    return lambda root: (root / path).write_bytes(data)


def nothing(root: pathlib.Path) -> None:
    shutil.rmtree(root)


def one_class(root: pathlib.Path) -> None:
    for split in ("train", "val", "test"):
        for other in ("SSA", "stroma"):
            shutil.rmtree(root / split / other)


ONES = official.hdf5(y=np.full((6, 1, 1, 1), 2, dtype=np.uint8))
BIG = np.zeros((250, 250))
BIG[0, 0] = 9
CASES = [
    *[(name, nothing, DATA, "nothing lies below .*: check the task's data") for name in WRITE],
    ("BACH", gone(f"{BACH}/InSitu/is017.tif"), DATA, "has 399 .tif images .* instead of 400: unpack"),
    (
        "BACH",
        lambda root: shutil.move(root / BACH / "Normal", root / BACH / "normal"),
        CONFIGURATION,
        "unknown class 'normal': the classes are Benign",
    ),
    ("BACH", says(f"{BACH}/Benign/b001.tif", b"II"), DATA, r"b001\.tif is not a readable image .*: replace it"),
    ("CRC", lambda root: shutil.rmtree(root / "CRC-VAL-HE-7K"), DATA, "no .tif image in .*CRC-VAL-HE-7K/ADI/: unpack"),
    ("CRC", lambda root: shutil.rmtree(root / "NCT-CRC-HE-100K" / "TUM"), DATA, "no .tif image in .*NCT-CRC-HE-100K/TUM/"),
    ("MHIST", gone("annotations.csv"), DATA, r"annotations\.csv is missing"),
    ("MHIST", gone("images/MHIST_a03.png"), DATA, r"1 annotated images are missing in .*, the first is images/MHIST_a03\.png"),
    ("PCam", gone(f"{PCAM}valid_y.h5"), DATA, f"{PCAM}valid_y.h5 is missing in .*: PCam has six .h5 files"),
    (
        "PCam",
        lambda root: (root / f"{PCAM}train_x.h5").rename(root / f"{PCAM}train_x.h5.gz"),
        DATA,
        r"train_x.h5 is missing in .* \(unpack it\)",
    ),
    ("PCam", says(f"{PCAM}test_x.h5", b"not an HDF5 file"), DATA, r"test_x\.h5 is not a readable HDF5 file"),
    ("PCam", says(f"{PCAM}valid_y.h5", ONES), CONFIGURATION, "has the unknown label 2 in row 0: 0 is no_tumor"),
    ("PCam", says(f"{PCAM}valid_y.h5", official.hdf5(z=np.zeros(3))), CONFIGURATION, "valid_y.h5 has no array 'y', only z"),
    ("PCam", says(f"{PCAM}test_y.h5", official.hdf5(y=np.zeros((2, 1, 1, 1)))), CONFIGURATION, r"shape \(6, 96, 96, 3\) and .* 2 labels"),
    ("CoNSeP", lambda root: shutil.rmtree(root / "Test"), DATA, "no .png image in .*Test/Images/: unpack CoNSeP"),
    ("CoNSeP", gone("Train/Labels/train_2.mat"), DATA, r"Train/Labels/train_2\.mat is missing"),
    ("CoNSeP", says("Train/Labels/train_2.mat", b"MATLAB 5.0"), DATA, r"train_2\.mat is not a readable MATLAB file"),
    ("CoNSeP", says("Train/Labels/train_2.mat", official.mat(inst_map=BIG)), CONFIGURATION, "has no field 'type_map'"),
    ("CoNSeP", says("Train/Labels/train_2.mat", official.mat(type_map=BIG)), CONFIGURATION, "unknown label 9 in type_map"),
    (
        "CoNSeP",
        says("Train/Labels/train_2.mat", official.mat(type_map=BIG[:9] * 0)),
        CONFIGURATION,
        "shape .* and its image .*: they must be",
    ),
    ("PatchSegmentation", gone("classes.txt"), DATA, r"classes\.txt is missing"),
    ("PatchSegmentation", says("classes.txt", b"background\n"), CONFIGURATION, "names 1 classes: write at least two"),
    (
        "PatchSegmentation",
        says("classes.txt", b"background\ncell\n"),
        CONFIGURATION,
        r"unknown label 2: classes\.txt names the classes 0 to 1",
    ),
    ("PatchSegmentation", gone("val/masks/1.png"), DATA, r"val/masks/1\.png is missing"),
    ("PatchSegmentation", lambda root: shutil.rmtree(root / "val"), DATA, "too few samples: train has images, but train and one of"),
    ("PatchSegmentation", says("val/masks/1.png", miniatures.png(np.zeros((9, 9, 3), np.uint8))), CONFIGURATION, "a mask with colours"),
    ("PatchSegmentation", says("val/images/1.png", b"?"), DATA, r"val/images/1\.png is not a readable image"),
    ("PatchClassification", one_class, DATA, "too few samples: the only class is HP, a probe needs two"),
    ("PatchClassification", lambda root: shutil.rmtree(root / "val" / "HP"), DATA, "too few samples: class HP has no image in split val"),
    ("PatchClassification", says("val/HP/00100.png", b"?"), DATA, r"val/HP/00100\.png is not a readable image"),
]


@pytest.mark.parametrize(("name", "damage", "code", "sentence"), CASES, ids=[f"{case[0]}-{i}" for i, case in enumerate(CASES)])
def test_a_wrong_task_is_one_sentence_and_its_exit_code(
    name: str, damage, code: int, sentence: str, written: pathlib.Path, bucket: storage.Bucket, root: str
):
    shutil.copytree(written / name, pathlib.Path(root, name), copy_function=link)
    damage(pathlib.Path(root, name))
    with pytest.raises(errors.PathoError, match=sentence) as caught:
        run.evaluate(miniatures.spec(root, [miniatures.task(f"{root}/{name}", name)]), bucket, progress=lambda stage, done, total: None)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
    assert re.search(f"task {name}|{root}/{name}", str(caught.value))


def link(source: str, target: str) -> None:
    """A copy: what is damaged must not be the original."""
    shutil.copyfile(source, target)


SLIDES = [
    ([("a.tif", "", "x")], CONFIGURATION, "a.tif has no patient: splits are by patient"),
    ([("a.tif", "p", "x"), ("b.tif", "p", "y")], CONFIGURATION, "patient p has the labels [xy] and [xy]: give all slides of a patient one"),
    ([("a.tif", "p", "")], DATA, "too few samples: no usable slide of .* has a label"),
    ([("a.tif", "p", "x"), ("b.tif", "q", "y")], DATA, "too few samples: train has images, but"),
    ([("none.tif", "p", "x")], DATA, "too few samples: no usable slide"),
]


@pytest.mark.parametrize(("rows", "code", "sentence"), SLIDES)
def test_a_wrong_manifest_of_slides_is_one_sentence(rows, code: int, sentence: str, bucket: storage.Bucket, root: str):
    for seed, name in enumerate(("a.tif", "b.tif")):
        slides.write(pathlib.Path(root, "TP53", name), slides.Recipe(sizes=((128, 128),), mpp=0.5, seed=seed))
    miniatures.write_csv(bucket, f"{root}/TP53/manifest.csv", ("url", "patient", "label"), rows)
    task = miniatures.task(f"{root}/TP53/manifest.csv", "TP53")
    with pytest.raises(errors.PathoError, match=sentence) as caught:
        run.evaluate(miniatures.spec(root, [task]), bucket, progress=lambda stage, done, total: None)
    assert caught.value.exit_code == code
    assert "\n" not in str(caught.value)
