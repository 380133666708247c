"""Evaluations as whole pods: several processes share the features, a kill costs a part, and every end says why."""

import pathlib

import pytest

from patho_api import evaluate
from patho_trainer.data import storage
from patho_trainer.evaluation import results, run
from tests.cluster import waiting
from tests.trainer import runs
from tests.trainer.evaluation import miniatures, official

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a pod imports torch three times
TOGETHER = {"nodes": 1, "processesPerNode": 2}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    """BACH's 400 images, slides of patients, and weights."""
    root = tmp_path_factory.mktemp("data")
    miniatures.write_weights(storage.Bucket(), f"{root}/vit.safetensors")
    official.write_bach(storage.Bucket(), f"{root}/BACH")
    return str(root)


def spec(data: str, results_url: str, **fields: object) -> evaluate.EvalSpec:
    return miniatures.spec(data, [miniatures.task(f"{data}/BACH", "BACH")], results=results_url, image_size_px=160, **fields)


def scores(folder: str) -> list[float]:
    found = results.Results.model_validate_json(pathlib.Path(folder, "results.json").read_bytes())
    return [r.score for r in found.tasks[0].runs]


def parts(folder: str) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in pathlib.Path(folder, "features").rglob("part-*.npz")}


def lose_all_but(kept: int, folder: str) -> None:
    """As if the kill had come when `kept` parts were written: how many there were depends on the machine."""
    for path in sorted(pathlib.Path(folder, "features").rglob("part-*.npz"))[kept:]:
        path.unlink()
    pathlib.Path(folder, "results.json").unlink(missing_ok=True)


def test_a_killed_evaluation_on_two_processes_goes_on_and_equals_one_process(data: str, tmp_path: pathlib.Path):
    alone, together = f"{tmp_path}/alone", f"{tmp_path}/together"
    run.evaluate(spec(data, alone), storage.Bucket(), progress=lambda stage, done, total: None)
    wanted = spec(data, together, compute=TOGETHER)
    with runs.pod(wanted, tmp_path / "pod") as pod:
        waiting.until(lambda: len(parts(together)) >= 8, what="a few parts", seconds=runs.PATIENCE_SECONDS)
        pod.kill()
    lose_all_but(8, together)
    before = parts(together)
    with runs.pod(wanted, tmp_path / "pod") as pod:
        code, words = pod.end()
    assert (code, words.reason, words.results[0].samples) == (0, "Completed", 132)
    assert (len(before), len(parts(together))) == (8, 50)
    assert before.items() <= parts(together).items()
    assert scores(together) == pytest.approx(scores(alone), abs=0.03)


def test_data_that_one_process_cannot_read_end_the_pod_with_the_sentence(data: str, tmp_path: pathlib.Path):
    official.write_crc(storage.Bucket(), f"{tmp_path}/CRC")
    bad = next(pathlib.Path(tmp_path, "CRC", "CRC-VAL-HE-7K", "TUM").iterdir())
    bad.write_bytes(b"II*\0 no image")
    tasks = [miniatures.task(f"{tmp_path}/CRC", "CRC")]
    with runs.pod(miniatures.spec(data, tasks, results=f"{tmp_path}/out", compute=TOGETHER), tmp_path / "pod") as pod:
        code, words = pod.end()
    assert (code, words.reason) == (41, "DataNotFound")
    assert f"{bad.name} is not a readable image" in words.message
