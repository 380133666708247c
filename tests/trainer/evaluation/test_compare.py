import json
import pathlib

import pytest
import rich.console
from click import testing

from patho_trainer import cli, errors
from patho_trainer.data import storage
from patho_trainer.evaluation import compare, results

RECIPE = {"protocol": "Eva (kaiko-eva 0.4.5)", "maxSteps": 12500}


def task(scores: list[float], label: str = "BACH", **fields: object) -> dict:
    mean = sum(scores) / len(scores)
    std = (sum((s - mean) ** 2 for s in scores) / max(1, len(scores) - 1)) ** 0.5
    runs = [{"seed": i, "score": s, "chosen_at": s, "best_epoch": 1, "steps": 1} for i, s in enumerate(scores)]
    known = {"task": label, "kind": "BACH", "data": "gs://d/bach", "data_version": "v", "preprocessing": "p", "feature_width": 4}
    known |= {"classes": ["a", "b"], "samples": {"train": 2, "val": 2}, "chosen_on": "val", "scored_on": "val", "recipe": RECIPE}
    known |= {"metric": "balancedAccuracy", "mean": mean, "std": std, "runs": runs, "confusion": [[1, 0], [0, 1]]}
    return known | {"rank_me": 1.0, "od_corr": 0.1} | fields


def made(*tasks: dict, **fields: object) -> results.Results:
    model = {"source": "m", "architecture": "vit", "step": None, "weights_digest": "d", "pooling": "CLS", "image_size_px": 224}
    model["normalization"] = {"mean": [0.5] * 3, "std": [0.5] * 3}
    whole = {"protocol": "Eva", "model": model, "tasks": list(tasks), "rank_me": 1.0, "od_corr": 0.1, "versions": {"torch": "2.15.0"}}
    return results.Results.model_validate(whole | fields)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ([0.80, 0.81, 0.82], [0.80, 0.82, 0.81], "within the spread"),
        ([0.80, 0.81, 0.82], [0.90, 0.91, 0.92], "better"),
        ([0.90, 0.91, 0.92], [0.80, 0.81, 0.82], "worse"),
        ([0.90], [0.80, 0.81], ""),
    ],
)
def test_a_difference_is_judged_by_the_spread_of_the_runs(a: list[float], b: list[float], verdict: str):
    (found,) = compare.differences(made(task(a)), made(task(b)))
    assert found.verdict == verdict
    assert found.change == pytest.approx(sum(b) / len(b) - sum(a) / len(a))


SAME = made(task([0.8, 0.9]))


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (made(task([0.8, 0.9]), protocol="Paper"), "protocols differ: Eva and Paper: such scores are not comparable"),
        (made(task([0.8, 0.9], recipe=RECIPE | {"maxSteps": 100})), "BACH: recipes differ: maxSteps 12500 and 100"),
        (made(task([0.8, 0.9], samples={"train": 2, "val": 3})), "BACH: the data differ: 2 train, 2 val and 2 train, 3 val"),
        (made(task([0.8, 0.9], metric="dice")), "another thing is measured"),
        (made(task([0.8, 0.9, 0.9])), "BACH: 2 and 3 runs"),
        (made(task([0.8, 0.9]), task([0.8, 0.9], "CRC")), "only b has CRC"),
        (made(task([0.8, 0.9]), versions={"torch": "2.16.0"}), "versions differ: torch 2.15.0 and 2.16.0"),
    ],
)
def test_what_makes_two_evaluations_incomparable_is_said(other: results.Results, sentence: str):
    (found,) = compare.warnings(SAME, other)
    assert sentence in found


def test_equal_evaluations_give_no_warning():
    assert compare.warnings(SAME, SAME) == []


def test_the_command_prints_a_table_and_the_notes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cli, "console", rich.console.Console(width=120))
    for name, each in (("a", SAME), ("b", made(task([0.7, 0.71]), protocol="Paper"))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "results.json").write_bytes(results.file(each))
    done = testing.CliRunner().invoke(cli.main, ["compare", f"{tmp_path}/a/results.json", f"{tmp_path}/b"])
    assert done.exit_code == 0
    assert "0.850 ± 0.071 (2)" in done.output
    assert "protocols differ: Eva and Paper" in " ".join(done.output.split())


def test_a_file_of_another_kind_is_one_sentence(tmp_path: pathlib.Path):
    (tmp_path / "x.json").write_text(json.dumps({"schemaVersion": 1}))
    with pytest.raises(errors.InvalidConfiguration, match=r"x\.json holds no results that this release can read \(\w+"):
        compare.load(f"{tmp_path}/x.json", storage.Bucket())
    with pytest.raises(errors.DataNotFound, match=r"nowhere/results\.json"):
        compare.load(f"{tmp_path}/nowhere", storage.Bucket())
