"""What the page shows, by its words and by the marks in its plots."""

import re
from xml.etree import ElementTree

import pytest
import torch

from patho_trainer.data import storage
from patho_trainer.evaluation import exhibits, history, published, report, results
from tests.trainer import servers
from tests.trainer.evaluation import test_compare as made

NOTHING = exhibits.Exhibit((), ())


def plots(page: str) -> dict[str, ElementTree.Element]:
    found = (ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL))
    return {plot.attrib["aria-label"]: plot for plot in found}


def checkpoint(step: int, score: float, **fields: object) -> results.Results:
    found = made.made(made.task([score, score + 0.01]), **fields)
    model = found.model.model_copy(update={"step": step, "run": "gs://r/run"})
    return found.model_copy(update={"model": model, "rank_me": float(step)})


def write(bucket: storage.Bucket, root: str, name: str, found: results.Results) -> str:
    bucket.write(f"{root}/{name}/results.json", results.file(found))
    return f"{root}/{name}"


def test_scores_stand_beside_those_of_the_paper_and_its_source():
    paper = made.task([0.8, 0.82], recipe={"protocol": "Paper (arXiv 2404.15217)"})
    page = report.html(made.made(paper), [NOTHING], [])
    plot = plots(page)["BACH against published scores"]
    assert len(plot.findall("circle")) == len(published.TABLE_I) == 12
    assert published.PAPER in page
    assert "kaiko ViT-L/14: 0.870 ± 0.005" in page


def test_scores_by_evas_protocol_stand_beside_evas_leaderboard():
    page = report.html(made.made(made.task([0.8, 0.82])), [NOTHING], [])
    assert "Virchow2: 0.883" in page
    assert published.PAPER not in page


def test_own_data_are_held_against_nothing_published():
    page = report.html(made.made(made.task([0.8, 0.82], kind="PatchClassification")), [NOTHING], [])
    assert "published" not in page


def test_curves_are_drawn_over_the_checkpoints_of_the_same_run(bucket: storage.Bucket, tmp_path):
    now = checkpoint(60, 0.9)
    folder = write(bucket, str(tmp_path), "c", now)
    for name, step, fields in (("a", 20, {}), ("b", 40, {}), ("other", 50, {"protocol": "Paper"})):
        write(bucket, str(tmp_path), name, checkpoint(step, step / 100, **fields))
    bucket.write(f"{tmp_path}/broken/results.json", b"{}")
    found = history.checkpoints(now, folder, bucket)
    assert [r.model.step for r in found] == [20, 40, 60]
    drawn = plots(report.html(now, [NOTHING], found))
    assert len(drawn["RankMe, mean over the tasks"].findall("circle")) == 3
    assert len(drawn["BACH, balanced accuracy"].findall("circle")) == 3


@pytest.mark.parametrize("found", [made.SAME, checkpoint(60, 0.9)])
def test_without_other_checkpoints_there_are_no_curves(found: results.Results, bucket: storage.Bucket, tmp_path):
    assert history.checkpoints(found, write(bucket, str(tmp_path), "x", found), bucket) == []


def test_credentials_for_one_folder_only_cost_the_curves_and_not_the_scores(tmp_path, capsys):
    class Narrow(storage.Bucket):
        def folders(self, url):
            raise storage.AccessDenied(f"access to {url} was denied")

    now = checkpoint(60, 0.9)
    assert history.checkpoints(now, write(Narrow(), str(tmp_path), "x", now), Narrow()) == []
    assert "no curves over checkpoints: access to" in capsys.readouterr().out


def test_a_scatter_separates_what_the_features_separate():
    labels_N = torch.arange(40) % 2
    points = exhibits.scatter(torch.randn(40, 8, generator=torch.Generator().manual_seed(0)) + 20 * labels_N[:, None], labels_N)
    left, right = ([p.x for p in points if p.label == label] for label in (0, 1))
    assert max(min(left), min(right)) > min(max(left), max(right))
    assert {p.x for p in points} >= {0.0, 1.0}


def test_a_picture_keeps_the_background_and_tints_the_classes():
    image_3SS = torch.full((3, 4, 4), 200, dtype=torch.uint8)
    mask_SS = torch.zeros(4, 4, dtype=torch.uint8)
    mask_SS[0, 0] = 1
    drawn = exhibits._over(image_3SS.permute(1, 2, 0).numpy(), mask_SS.numpy())
    assert (drawn[1:] == 200).all()
    assert (drawn[0, 0] != 200).any()


@pytest.mark.slow
def test_other_checkpoints_are_found_on_every_kind_of_store(store: servers.Store):
    bucket, root = store.bucket(), store.url.rstrip("/")
    write(bucket, root, "evals/a", checkpoint(20, 0.2))
    bucket.write(f"{root}/evals/a/features/k/part.npz", b"")
    now = checkpoint(60, 0.9)
    assert [r.model.step for r in history.checkpoints(now, write(bucket, root, "evals/b", now) + "/", bucket)] == [20, 60]
    assert bucket.folders(f"{root}/evals") == [f"{root}/evals/{name}" for name in "ab"]
