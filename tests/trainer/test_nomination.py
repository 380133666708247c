"""An evaluation offers the checkpoint that it judged."""

import pathlib

import pytest

from patho_api import report
from patho_trainer import best, nomination
from patho_trainer.data import storage

TIME = "2024-04-22T00:00:00Z"


def words(score):
    result = {"task": "BACH", "metric": "balancedAccuracy", "mean": score, "std": 0.0, "runs": 5, "samples": 9}
    return report.LastWords(reason="Completed", results=[result])


@pytest.fixture
def url(tmp_path):
    """A complete checkpoint."""
    folder = tmp_path / "step-00000200"
    folder.mkdir()
    (folder / "COMPLETE.json").write_text("{}")
    return str(folder)


def test_the_judged_checkpoint_becomes_the_best(url, tmp_path):
    assert nomination.nominate(words(0.8), url, "BACH", storage.Bucket())
    found = best.found(str(tmp_path), storage.Bucket())
    assert (found.step, found.task, found.score) == (200, "BACH", 0.8)


@pytest.mark.parametrize(("where", "by"), [("step-00000200", ""), ("step-00000200", "CRC"), ("model.safetensors", "BACH")])
def test_other_evaluations_decide_nothing(url, tmp_path, where, by):
    assert not nomination.nominate(words(0.8), str(tmp_path / where), by, storage.Bucket())
    assert best.found(str(tmp_path), storage.Bucket()) is None


def test_a_checkpoint_that_is_gone_cannot_be_the_best(tmp_path, capsys):
    assert not nomination.nominate(words(0.8), str(tmp_path / "step-00000200"), "BACH", storage.Bucket())
    assert "raise checkpoints.keep" in capsys.readouterr().out


@pytest.mark.parametrize("before", [None, 100])
def test_a_checkpoint_that_is_pruned_while_it_is_offered_is_not_the_best(url, tmp_path, monkeypatch, before):
    root, bucket, offer = str(tmp_path), storage.Bucket(), best.offer
    if before:
        offer(root, report.BestCheckpoint(step=before, task="BACH", metric="balancedAccuracy", score=0.5, time=TIME), bucket)

    def offer_late(*args):
        (pathlib.Path(url) / "COMPLETE.json").unlink()
        return offer(*args)

    monkeypatch.setattr(best, "offer", offer_late)
    assert not nomination.nominate(words(0.8), url, "BACH", bucket)
    assert getattr(best.found(root, bucket), "step", None) == before


def test_a_bucket_that_refuses_costs_no_scores(url, tmp_path, capsys):
    (tmp_path / "best.json").mkdir()
    assert not nomination.nominate(words(0.8), url, "BACH", storage.Bucket())
    assert "cannot be kept as the best checkpoint" in capsys.readouterr().out
