"""Whole pods: entrypoint, torchrun's agent and two training processes, killed and stopped at will."""

import os
import pathlib
import signal

import pytest

from patho_api import names, report
from patho_trainer import checkpoint, errors, preflight, task, workspace
from patho_trainer.data import storage
from tests.trainer import runs, servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # a pod imports torch three times
ENDLESS = 100_000  # steps: whoever is to be disturbed is still at work, on any machine
COMPARED = 10  # steps that are the same in all runs


def spec(folder: pathlib.Path, **changes):
    return runs.spec(folder, **{"training__steps": ENDLESS, "training__warmupSteps": 1, "compute__processesPerNode": 2} | changes)


def by_step(entries: list[dict]) -> dict[int, dict]:
    """Entries of the steps that are compared; a step that was done twice must have been the same twice."""
    found: dict[int, dict] = {}
    for entry in entries:
        assert found.setdefault(entry["step"], entry) == entry
    return {step: found[step] for step in range(1, COMPARED + 1)}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run that nothing disturbs: what it served on the way, and its steps."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with runs.pod(spec(folder), folder) as pod:
        pod.wait_for(lambda now: now.step >= 2 and now.stage == "Training")
        served = {path: pod.get(path) for path in ("/metrics", "/progress", "/healthz")}
        pod.stop(after=COMPARED)
        return served, by_step(runs.steps(pod.space))


def test_a_run_ends_with_its_last_checkpoint(tmp_path):
    with runs.pod(spec(tmp_path, training__steps=3, compute__processesPerNode=1), tmp_path) as pod:
        code, words = pod.end()
        assert (code, words.reason, words.step, words.checkpoint.step) == (0, "Completed", 3, 3)
        assert [entry["step"] for entry in runs.steps(pod.space)] == [1, 2, 3]


def test_metrics_are_scraped_while_it_runs(undisturbed):
    page = undisturbed[0]["/metrics"].decode()
    for name in (names.TRAIN_STEP, names.TRAIN_IMAGES, names.TRAIN_LOSS, names.STREAM_PATCHES, names.CHECKPOINT_SECONDS):
        assert f"\n{name}" in page
    assert 'patho_train_data_wait_seconds_total{local_rank="1"}' in page


def test_progress_is_served_while_it_runs(undisturbed):
    found = report.ProgressReport.model_validate_json(undisturbed[0]["/progress"])
    assert (found.run_id, found.stage, found.total_steps) == (runs.RUN_ID, "Training", ENDLESS)
    assert found.step >= 2
    assert undisturbed[0]["/healthz"] == b"ok\n"


def test_a_run_that_is_killed_after_a_save_began_and_stopped_later_is_the_same_run_bit_by_bit(undisturbed, tmp_path):
    wanted, seen = spec(tmp_path), []
    with runs.pod(wanted, tmp_path) as pod:
        pod.wait_for(lambda now: now.step >= 4 and now.checkpoint is not None)
        pod.kill()
        seen += runs.steps(pod.space)
    assert checkpoint.latest(wanted.checkpoints.url, storage.Bucket()).step >= 2
    with runs.pod(wanted, tmp_path) as pod:
        words = pod.stop(after=seen[-1]["step"])
        assert (words.reason, words.checkpoint.step) == ("Stopped", words.step)
        seen += runs.steps(pod.space)
    with runs.pod(wanted, tmp_path) as pod:
        pod.stop(after=max(COMPARED, words.step))
        seen += runs.steps(pod.space)
    assert by_step(seen) == undisturbed[1]


def test_a_killed_worker_is_restarted_in_place_and_counted(undisturbed, tmp_path):
    with runs.pod(spec(tmp_path), tmp_path) as pod:
        pod.wait_for(lambda now: now.step >= 3)
        os.kill(pod.worker_pid(rank=1), signal.SIGKILL)
        found = pod.wait_for(lambda now: now.restarts == 1)
        pod.wait_for(lambda now: now.stage == "Training" and now.step > found.step)
        assert f"{names.TRAIN_RESTARTS} 1.0".encode() in pod.get("/metrics")
        pod.stop(after=COMPARED)
        assert by_step(runs.steps(pod.space)) == undisturbed[1]


def test_a_lost_pod_is_replaced_and_the_gang_goes_on(undisturbed, tmp_path):
    wanted = spec(tmp_path, compute__processesPerNode=1, compute__nodes=2)
    rank0 = f"localhost:{servers.free_port()}"
    with runs.pod(wanted, tmp_path / "0", rank0=rank0) as first:
        with runs.pod(wanted, tmp_path / "1", node=1, rank0=rank0) as lost:
            first.wait_for(lambda now: now.step >= 3)
            lost.kill()
            reached = runs.steps(first.space)[-1]["step"]
        with runs.pod(wanted, tmp_path / "1", node=1, rank0=rank0) as new:
            first.wait_for(lambda now: now.stage == "Training" and now.step > max(COMPARED, reached))
            for pod in (first, new):
                pod.popen.terminate()
            assert (first.end()[0], new.end()[0]) == (143, 143)
        found = by_step(runs.steps(first.space))
    assert [entry["loss"] for entry in found.values()] == [entry["loss"] for entry in undisturbed[1].values()]


@pytest.mark.parametrize(
    ("changes", "code", "reason", "sentence"),
    [
        (
            {"model__architecture": "vit_smal_patch16_224", "compute__processesPerNode": 1},
            40,
            "InvalidConfiguration",
            "did you mean vit_small_patch16_224",
        ),
        ({"slides__source": "/nowhere/", "compute__processesPerNode": 1}, 41, "DataNotFound", "/nowhere/"),
        ({"training__learningRate": 1e30, "training__warmupSteps": 0}, 42, "Diverged", "training.learningRate"),
    ],
)
def test_what_would_only_happen_again_ends_the_run(tmp_path, changes, code, reason, sentence):
    with runs.pod(spec(tmp_path, **changes), tmp_path) as pod:
        ended, words = pod.end()
    assert (ended, words.reason) == (code, reason)
    assert sentence in words.message
    assert workspace.Workspace(pod.space).rounds.read_text() == "0\n"
    assert (tmp_path / "run" / "verdict-1.json").exists()


def check(wanted) -> None:
    preflight.check(task.Task("PathoPretrain", wanted, 1, runs.RUN_ID, 0, ""), wanted)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"method": "DINOv2"}, "2 processes share 1 loss groups"),
        ({"method": "DINOv2", "training__lossGroupSize": 1}, "KoLeo needs a neighbour"),
        ({"checkpoints__url": "/proc/nowhere"}, r"^spec\.checkpoints\.url: "),
        ({"checkpoints__url": "nosuch://host/x"}, "use gs://"),
        ({"compute__resources": {"limits": {"nvidia.com/gpu": 64}}, "compute__processesPerNode": 64, "training__batchSize": 64}, "64 GPUs"),
    ],
)
def test_what_can_be_known_is_said_before_anything_starts(tmp_path, changes, sentence):
    with pytest.raises(errors.InvalidConfiguration, match=sentence):
        check(spec(tmp_path, **changes))


@pytest.mark.parametrize(
    ("field", "url"), [("slides__source", "s3://no-such-bucket/a.svs"), ("checkpoints__url", "s3://no-such-bucket/run")]
)
def test_a_bucket_that_does_not_exist_is_named(tmp_path, s3, monkeypatch, field, url):
    monkeypatch.setenv(names.ENV_SECRET_DIR, s3.secret_dir)
    with pytest.raises(errors.InvalidConfiguration, match=rf"spec\.{field.replace('__', '.')}: bucket s3://no-such-bucket/ does not exist"):
        check(spec(tmp_path, slides__storage=s3.storage.dump(), **{field: url}))
