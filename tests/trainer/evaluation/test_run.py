import json
import pathlib
import re
from xml.etree import ElementTree

import pytest

from patho_api import evaluate
from patho_api.report import LastWords
from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation import results, run
from tests.trainer import servers
from tests.trainer.evaluation import miniatures


def done(spec: evaluate.EvalSpec, bucket: storage.Bucket) -> LastWords:
    return run.evaluate(spec, bucket, progress=lambda stage, done, total: None)


def outcome(root: str) -> results.Results:
    return results.Results.model_validate_json(pathlib.Path(root, "results", "results.json").read_bytes())


def two_tasks(bucket: storage.Bucket, root: str, **fields: object) -> evaluate.EvalSpec:
    miniatures.write_labelled(bucket, f"{root}/own")
    miniatures.write_mhist(bucket, f"{root}/mhist")
    return miniatures.spec(root, [miniatures.task(f"{root}/own"), miniatures.task(f"{root}/mhist", "MHIST")], **fields)


def test_colours_are_told_apart_by_a_probe_on_an_untrained_vit(bucket: storage.Bucket, root: str):
    miniatures.write_labelled(bucket, f"{root}/own", each=12)
    words = done(miniatures.spec(root, [miniatures.task(f"{root}/own")], max_steps=400, runs=3), bucket)
    assert words.results[0].mean > 0.95
    assert (words.results[0].runs, words.results[0].samples) == (3, 36)


def test_results_tell_everything_about_both_tasks(bucket: storage.Bucket, root: str):
    words = done(two_tasks(bucket, root, seed=10), bucket)
    found = outcome(root)
    assert [t.in_status() for t in found.tasks] == words.results
    assert [(t.chosen_on, t.scored_on, t.samples) for t in found.tasks] == [
        ("val", "test", {"train": 18, "val": 18, "test": 18}),
        ("val", "val", {"train": 8, "val": 5}),
    ]
    assert [r.seed for r in found.tasks[0].runs] == [10, 11]
    assert (words.reason, words.rank_me, words.report_url) == ("Completed", found.rank_me, f"{root}/results/results.json")


def test_a_second_evaluation_writes_the_same_bytes_without_embedding_again(bucket: storage.Bucket, root: str):
    spec = two_tasks(bucket, root)
    done(spec, bucket)
    first, times = files(root), written(root)
    done(spec, bucket)
    assert files(root) == first
    assert written(root) == times


def written(root: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in pathlib.Path(root, "results", "features").rglob("*.npz")}


def files(root: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in pathlib.Path(root, "results").rglob("*") if path.is_file()}


@pytest.mark.parametrize("change", [{"image_size_px": 48}, {"model": {"url": "ROOT/other.safetensors", "architecture": "test_vit"}}, {}])
def test_another_size_model_or_image_makes_new_features(change, bucket: storage.Bucket, root: str):
    miniatures.write_labelled(bucket, f"{root}/own", each=1)
    miniatures.write_weights(bucket, f"{root}/other.safetensors", seed=1)
    done(miniatures.spec(root, [miniatures.task(f"{root}/own")]), bucket)
    if not change:
        bucket.write(f"{root}/own/train/HP/00000.png", miniatures.png(miniatures.image("HP", 99)))
    change = json.loads(json.dumps(change).replace("ROOT", root))
    done(miniatures.spec(root, [miniatures.task(f"{root}/own")], **change), bucket)
    assert len(list(pathlib.Path(root, "results", "features").iterdir())) == 2


def test_progress_never_falls_back_within_a_stage(bucket: storage.Bucket, root: str):
    seen: dict[str, list[tuple[int, int]]] = {}
    run.evaluate(two_tasks(bucket, root), bucket, progress=lambda stage, *now: seen.setdefault(stage, []).append(now))
    assert set(seen) == {"Loading", "Evaluating", "Training", "Saving"}
    assert all(counts == sorted(counts) and len({total for _, total in counts}) == 1 for counts in seen.values())


def test_the_report_stands_alone_and_escapes_what_users_named(bucket: storage.Bucket, root: str):
    miniatures.write_labelled(bucket, f"{root}/own", splits=("train", "val"))
    pathlib.Path(root, "own", "train", "HP").rename(f"{root}/own/train/<b>")
    pathlib.Path(root, "own", "val", "HP").rename(f"{root}/own/val/<b>")
    done(miniatures.spec(root, [miniatures.task(f"{root}/own")]), bucket)
    page = pathlib.Path(root, "results", "report.html").read_text()
    assert [mark for mark in ("<b>", "<script", "http://", "https://", "<link") if mark in page] == []
    assert "&lt;b&gt;" in page
    plots = [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]
    assert [len(plot.findall("circle")) for plot in plots] == [2, 0, 18 + 3]  # runs; the confusion matrix; samples and the legend


def test_a_corrupt_image_ends_the_evaluation_with_its_name(bucket: storage.Bucket, root: str):
    miniatures.write_labelled(bucket, f"{root}/own")
    bucket.write(f"{root}/own/val/SSA/00102.png", b"not an image")
    with pytest.raises(errors.DataNotFound, match=r"own/val/SSA/00102\.png is not a readable image"):
        done(miniatures.spec(root, [miniatures.task(f"{root}/own")]), bucket)


def test_a_wrong_second_task_is_found_before_the_first_is_computed(bucket: storage.Bucket, root: str):
    miniatures.write_labelled(bucket, f"{root}/own")
    tasks = [miniatures.task(f"{root}/own"), miniatures.task(f"{root}/nowhere", "MHIST")]
    with pytest.raises(errors.DataNotFound, match="task MHIST: nothing lies below"):
        done(miniatures.spec(root, tasks), bucket)
    assert not pathlib.Path(root, "results").exists()


def test_a_model_that_has_diverged_is_said_so(bucket: storage.Bucket, root: str):
    miniatures.write_labelled(bucket, f"{root}/own")
    broken = miniatures.backbone()
    broken.norm.weight.data[0] = float("nan")
    bucket.write(f"{root}/vit.safetensors", miniatures.safetensors.torch.save(broken.state_dict()))
    with pytest.raises(errors.Diverged, match="are not finite: evaluate an earlier checkpoint"):
        done(miniatures.spec(root, [miniatures.task(f"{root}/own")]), bucket)


def test_a_checkpoint_is_evaluated_in_an_s3_bucket(s3: servers.Store):
    place, root = s3.bucket(), s3.url.rstrip("/")
    miniatures.write_labelled(place, f"{root}/own", each=2)
    miniatures.write_checkpoint(place, f"{root}/run/step-00000020")
    words = done(miniatures.spec(root, [miniatures.task(f"{root}/own")], model={"url": f"{root}/run"}), place)
    found = results.Results.model_validate_json(place.read(words.report_url))
    assert (found.model.step, found.tasks[0].mean) == (20, words.results[0].mean)
    assert {pathlib.PurePath(o.url).suffix for o in place.list(f"{root}/results/")} == {".json", ".html", ".npz"}
