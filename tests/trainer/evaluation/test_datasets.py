import pathlib
import re

import pytest

from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation.datasets import folder, mhist
from tests.trainer.evaluation import miniatures

LABELLED = ("path", "label", "split")


def test_mhist_is_read_in_its_official_form(bucket: storage.Bucket, tmp_path: pathlib.Path):
    miniatures.write_mhist(bucket, f"{tmp_path}/mhist")
    found = mhist.read(miniatures.task(f"{tmp_path}/mhist", "MHIST"), bucket)
    official = [
        (name, ("SSA", "HP").index(label), {"train": "train", "test": "val"}[part]) for name, label, _, part in miniatures.mhist_rows()
    ]
    assert [(s.url.rpartition("/")[2], s.label, s.split) for s in found.samples] == official
    assert (found.classes, found.chosen_on, found.scored_on) == (("SSA", "HP"), "val", "val")


def test_folders_give_class_and_split(bucket: storage.Bucket, tmp_path: pathlib.Path):
    miniatures.write_labelled(bucket, str(tmp_path), each=2)
    bucket.write(f"{tmp_path}/train/HP/Thumbs.db", b"no image")
    found = folder.read(miniatures.task(f"{tmp_path}/"), bucket)
    assert found.classes == ("HP", "SSA", "stroma")
    assert [(s.split, s.label) for s in found.samples if s.split == "val"] == [("val", c) for c in (0, 0, 1, 1, 2, 2)]
    assert (found.chosen_on, found.scored_on) == ("val", "test")


@pytest.mark.parametrize("present", ["val", "test"])
def test_with_two_splits_the_second_one_stops_and_scores(present: str, bucket: storage.Bucket, tmp_path: pathlib.Path):
    miniatures.write_labelled(bucket, str(tmp_path), splits=("train", present), each=1)
    found = folder.read(miniatures.task(str(tmp_path)), bucket)
    assert (found.chosen_on, found.scored_on) == (present, present)


def test_a_table_of_labels_takes_the_place_of_folders(bucket: storage.Bucket, tmp_path: pathlib.Path):
    miniatures.write_labelled(bucket, f"{tmp_path}/all", splits=("x",), each=2)
    rows = [(f"all/x/{c}/0000{n}.png", c.lower(), ("train", "val")[n]) for c in ("HP", "SSA") for n in range(2)]
    miniatures.write_csv(bucket, f"{tmp_path}/labels.csv", LABELLED, rows)
    found = folder.read(miniatures.task(str(tmp_path)), bucket)
    assert found.classes == ("hp", "ssa")
    assert [(s.label, s.split) for s in found.samples] == [(0, "train"), (0, "val"), (1, "train"), (1, "val")]


HP, SSA, HP_VAL = (("train/HP/00000.png", "HP", "train"), ("train/SSA/00000.png", "SSA", "train"), ("val/HP/00000.png", "HP", "val"))


@pytest.mark.parametrize(
    ("rows", "error", "sentence"),
    [
        ([(HP[0], "HP", "valid")], errors.InvalidConfiguration, "unknown split 'valid': use train, val, test"),
        ([HP, (HP_VAL[0], "hp", "val")], errors.InvalidConfiguration, "unknown label 'hp': the classes are HP"),
        ([HP, (SSA[0], "", "train")], errors.InvalidConfiguration, "unknown label '': the classes are HP"),
        ([HP, (SSA[0],)], errors.InvalidConfiguration, "unknown split '': use train, val, test"),
        ([("gone.png", "HP", "train")], errors.DataNotFound, "1 annotated images are missing in .*, the first is gone.png"),
        ([HP], errors.DataNotFound, "too few samples: train has images, but train and one of val and test need some"),
        ([HP, HP_VAL], errors.DataNotFound, "too few samples: the only class is HP, a probe needs two"),
        ([HP, SSA, HP_VAL], errors.DataNotFound, "too few samples: class SSA has no image in split val"),
    ],
)
def test_a_wrong_table_is_one_sentence(rows, error, sentence: str, bucket: storage.Bucket, tmp_path: pathlib.Path):
    miniatures.write_labelled(bucket, str(tmp_path), splits=("train", "val"), each=1)
    miniatures.write_csv(bucket, f"{tmp_path}/labels.csv", LABELLED, rows)
    with pytest.raises(error, match=f"^task PatchClassification: .*{sentence}") as caught:
        folder.read(miniatures.task(str(tmp_path)), bucket)
    assert "\n" not in str(caught.value)


def test_a_table_without_a_column_names_it(bucket: storage.Bucket, tmp_path: pathlib.Path):
    miniatures.write_csv(bucket, f"{tmp_path}/labels.csv", ("path", "class", "split"), [HP])
    with pytest.raises(errors.InvalidConfiguration, match=r"labels\.csv lacks the column 'label': it needs path, label, split"):
        folder.read(miniatures.task(str(tmp_path)), bucket)


def test_a_table_that_is_no_text_is_refused(bucket: storage.Bucket, tmp_path: pathlib.Path):
    bucket.write(f"{tmp_path}/labels.csv", miniatures.png(miniatures.image("HP", 0)))
    with pytest.raises(errors.InvalidConfiguration, match="is not a CSV file in UTF-8"):
        folder.read(miniatures.task(str(tmp_path)), bucket)


def test_images_outside_of_classes_are_refused(bucket: storage.Bucket, tmp_path: pathlib.Path):
    bucket.write(f"{tmp_path}/train/a.png", b"")
    with pytest.raises(
        errors.InvalidConfiguration, match=re.escape("train/a.png lies in no folder of a split and a class: use train/<class>/")
    ):
        folder.read(miniatures.task(str(tmp_path)), bucket)


@pytest.mark.parametrize(
    ("kind", "sentence"), [("PatchClassification", "nothing lies below .*/nowhere: check the task's data"), ("MHIST", "nothing lies below")]
)
def test_a_wrong_path_says_so(kind: str, sentence: str, bucket: storage.Bucket, tmp_path: pathlib.Path):
    read = {"MHIST": mhist.read, "PatchClassification": folder.read}[kind]
    with pytest.raises(errors.DataNotFound, match=sentence):
        read(miniatures.task(f"{tmp_path}/nowhere", kind), bucket)


def test_mhist_without_its_annotations_names_the_file(bucket: storage.Bucket, tmp_path: pathlib.Path):
    bucket.write(f"{tmp_path}/images/MHIST_aaa.png", b"")
    with pytest.raises(errors.DataNotFound, match=r"annotations\.csv is missing in"):
        mhist.read(miniatures.task(str(tmp_path), "MHIST"), bucket)


def test_mhist_refuses_a_label_that_is_not_its_own(bucket: storage.Bucket, tmp_path: pathlib.Path):
    miniatures.write_csv(bucket, f"{tmp_path}/annotations.csv", miniatures.MHIST_COLUMNS, [("MHIST_aaa.png", "TA", 3, "train")])
    with pytest.raises(errors.InvalidConfiguration, match=r"images/MHIST_aaa.png has the unknown label 'TA': the classes are SSA, HP"):
        mhist.read(miniatures.task(str(tmp_path), "MHIST"), bucket)
