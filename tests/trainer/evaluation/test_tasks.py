"""Every task end to end on its miniature: data set, features, probes or decoders, results, report."""

import pathlib
import re

import numpy as np
import pytest

from patho_trainer import distributed, errors
from patho_trainer.data import storage
from patho_trainer.evaluation import results, run, sources
from patho_trainer.evaluation.datasets import slides
from tests.trainer import slides as made
from tests.trainer.evaluation import miniatures, official

SPLITS = {
    "BACH": ("val", "val"),
    "CRC": ("val", "val"),
    "PCam": ("val", "test"),
    "CoNSeP": ("val", "val"),
    "PatchSegmentation": ("val", "val"),
}
WRITE = {
    "BACH": official.write_bach,
    "CRC": official.write_crc,
    "PCam": official.write_pcam,
    "CoNSeP": official.write_consep,
    "PatchSegmentation": official.write_masks,
}


def outcome(root: str, name: str, bucket: storage.Bucket, **fields: object) -> results.TaskOutcome:
    spec = miniatures.spec(root, [miniatures.task(f"{root}/{name}", name)], **fields)
    words = run.evaluate(spec, bucket, progress=lambda stage, done, total: None)
    (found,) = results.Results.model_validate_json(bucket.read(f"{root}/results/results.json")).tasks
    assert words.results == [found.in_status()]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITE)
def test_a_task_is_scored_on_evas_split(name: str, bucket: storage.Bucket, root: str):
    WRITE[name](bucket, f"{root}/{name}")
    found = outcome(root, name, bucket, max_steps=20, batch_size=16)
    assert (found.chosen_on, found.scored_on) == SPLITS[name]
    assert found.mean > 0.05
    assert np.isfinite([found.rank_me, found.od_corr, found.std]).all()


@pytest.mark.slow
def test_a_decoder_learns_nuclei_that_colours_give_away(bucket: storage.Bucket, root: str):
    official.write_masks(bucket, f"{root}/PatchSegmentation", each=3)
    found = outcome(root, "PatchSegmentation", bucket, max_steps=40, runs=1)
    assert (found.metric, found.samples) == ("dice", {"train": 12, "val": 12})
    assert found.mean > 0.7


@pytest.mark.slow
def test_the_report_of_a_segmentation_shows_patches_inside_the_file(bucket: storage.Bucket, root: str):
    official.write_masks(bucket, f"{root}/PatchSegmentation")
    outcome(root, "PatchSegmentation", bucket, max_steps=2, runs=1)
    page = pathlib.Path(root, "results", "report.html").read_text()
    assert len(re.findall(r'<img alt="[^"]*" src="data:image/png;base64,', page)) == 3 * 6
    assert page.count("<img") == 3 * 6


def write_slides(bucket: storage.Bucket, root: str, patients: int = 10) -> str:
    """Two slides a patient, mutated and not, one slide without a label; the tissue of the mutated ones is darker."""
    rows: list[tuple[object, ...]] = [("plain.tif", "px", "")]
    sizes = ((256, 256), (128, 128))
    made.write(pathlib.Path(root, "TP53", "plain.tif"), made.Recipe(sizes=sizes, mpp=0.5, seed=999))
    for n in range(2 * patients):
        path = pathlib.Path(root, "TP53", f"s{n}.tif")
        made.write(path, made.Recipe(sizes=sizes, mpp=0.5, seed=n))
        rows.append((path.name, f"p{n // 2}", ("mutated", "wild")[n // 2 % 2]))
    miniatures.write_csv(bucket, f"{root}/TP53/manifest.csv", ("url", "patient", "label"), rows)
    return f"{root}/TP53/manifest.csv"


@pytest.mark.slow
def test_tp53_streams_patches_of_slides_and_splits_by_patient(bucket: storage.Bucket, root: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sources, "PATCHES_A_SLIDE", 16)
    manifest = write_slides(bucket, root)
    spec = miniatures.spec(root, [miniatures.task(manifest, "TP53")], image_size_px=32)
    words = run.evaluate(spec, bucket, progress=lambda stage, done, total: None)
    (found,) = results.Results.model_validate_json(bucket.read(words.report_url)).tasks
    assert found.classes == ["mutated", "wild"]
    assert sum(found.samples.values()) == 20 * 16
    assert (found.chosen_on, found.scored_on) == ("val", "test")
    assert all(share > 0.1 for share in (count / (20 * 16) for count in found.samples.values()))


def slide(patient: str, label: str) -> slides.catalogs.Slide:
    return slides.catalogs.Slide(id=f"{patient}-{label}", url="u", patient=patient, label=label)


def test_patients_are_dealt_out_class_by_class():
    dealt = slides.deal([slide(f"{label}{n}", label) for label in "ab" for n in range(10)], "TP53")
    counts = [[dealt[f"{label}{n}"] for n in range(10)].count(split) for label in "ab" for split in ("train", "val", "test")]
    assert counts == [6, 2, 2, 6, 2, 2]


@pytest.mark.parametrize(
    ("wrong", "sentence"), [([slide("", "a")], "has no patient"), ([slide("p", "a"), slide("p", "b")], "patient p has the labels a and b")]
)
def test_slides_that_cannot_be_split_by_patient_are_refused(wrong, sentence: str):
    with pytest.raises(errors.InvalidConfiguration, match=sentence):
        slides.deal(wrong, "TP53")


def test_one_rank_alone_is_the_reporting_one():
    world = distributed.alone()
    assert (world.size, world.reports) == (1, True)
