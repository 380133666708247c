"""The alarm when features degenerate, and the small decisions of a process about itself."""

import math

import pytest
import torch

from patho_api import common, names
from patho_trainer import cores, distributed, errors, fencing, monitors, task, verdict, worker, workspace
from patho_trainer.data import storage

K = 64
HEALTHY_ENTROPY = 0.5 * math.log(K)


def spread(rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(256, rank, generator=generator) @ torch.randn(rank, 32, generator=generator)


@pytest.mark.parametrize(
    ("rank", "entropy", "rankme_max", "collapsed"),
    [
        (32, HEALTHY_ENTROPY, 0.0, False),
        (1, HEALTHY_ENTROPY, 25.0, True),  # features on a line
        (32, math.log(K), 0.0, True),  # every image goes to all prototypes alike
        (32, 0.0, 0.0, True),  # every image goes to the same prototype
    ],
)
def test_degenerate_features_raise_the_alarm(rank, entropy, rankme_max, collapsed):
    assert monitors.judge(spread(rank), entropy, K, rankme_max).collapsed is collapsed


def test_the_highest_rank_is_remembered():
    assert monitors.judge(spread(4), HEALTHY_ENTROPY, K, rankme_max=30.0).rankme_max == 30.0


def test_features_are_in_the_order_of_the_patches():
    def brightness(images_BCHW):
        return images_BCHW.mean((1, 2, 3))[:, None]

    batches = [torch.full((2, 8, 8, 3), value, dtype=torch.uint8) for value in (0, 255)]
    found = monitors.features(brightness, batches, 4, common.Normalization(), torch.device("cpu"))
    assert found.flatten().tolist() == pytest.approx([-1, -1, 1, 1])


def compute(processes: int, **limits: str) -> common.Compute:
    return common.Compute(processes_per_node=processes, resources={"limits": {k.replace("_", "."): v for k, v in limits.items()}})


@pytest.mark.parametrize(("gpus_here", "processes", "device"), [(0, 2, "cpu"), (1, 2, "cpu"), (2, 2, "cuda"), (8, 1, "cuda")])
def test_gpus_are_used_when_every_process_gets_one(gpus_here, processes, device):
    assert distributed.choose_device(compute(processes), gpus_here) == device


def test_gpus_that_were_asked_for_and_are_not_there_are_an_error():
    wanted = common.Compute(processes_per_node=8, resources={"limits": {"nvidia.com/gpu": 8}})
    with pytest.raises(errors.InvalidConfiguration, match="8 GPUs a pod and 8 processes, but torch sees 0"):
        distributed.choose_device(wanted, 0)


@pytest.mark.parametrize(
    ("limit", "cpus_here", "processes", "threads"), [("", 8, 2, 4), ("4", 64, 2, 2), ("500m", 8, 1, 1), ("48", 8, 2, 4), ("", 2, 4, 1)]
)
def test_processes_share_the_cpus_of_their_pod(limit, cpus_here, processes, threads):
    limits = {"cpu": limit} if limit else {}
    assert cores.share(compute(processes, **limits), cpus_here) == threads


def test_processes_of_a_torchrun_of_ones_own_share_the_cpus_as_well(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(8))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert cores.here(compute(1)) == 2


def test_only_errors_that_would_come_again_become_verdicts():
    assert verdict.of(errors.DataNotFound("no slide"), "r").exit_code == 41
    assert verdict.of(fencing.Superseded("newer"), "r").ends_the_run
    assert not verdict.of(errors.Stopped("saved"), "r").ends_the_run
    assert verdict.of(storage.Transient("reset"), "r") is None


def test_the_first_verdict_stays(tmp_path):
    first, second = (verdict.of(errors.Diverged(text), "r") for text in ("cause", "consequence"))
    verdict.leave(first, tmp_path / "verdict.json")
    verdict.leave(second, tmp_path / "verdict.json")
    assert verdict.found(tmp_path / "verdict.json") == first


@pytest.mark.parametrize(("asking", "found"), [("run-1", True), ("run-2", False)])
def test_peers_see_the_verdict_of_their_own_run(tmp_path, asking, found):
    bucket = storage.Bucket()
    verdict.publish(verdict.of(errors.Diverged("nan"), "run-1"), str(tmp_path), 1, bucket)
    assert (verdict.published(str(tmp_path), 1, asking, bucket) is not None) is found


def test_a_stop_gives_way_to_a_verdict(tmp_path):
    verdict.leave(verdict.of(errors.Stopped("saved"), "r"), tmp_path / "verdict.json")
    verdict.leave(verdict.of(errors.Diverged("nan"), "r"), tmp_path / "verdict.json")
    assert verdict.found(tmp_path / "verdict.json").exit_code == 42


def test_each_start_notes_how_far_the_one_before_came(tmp_path):
    space = workspace.Workspace(tmp_path)
    assert workspace.begin_round(space) == [0]
    space.steps.write_text("step\n")
    assert workspace.begin_round(space) == [0, 5]


@pytest.mark.parametrize(
    ("marks", "fruitless"), [([0], False), ([0, 0, 0], False), ([0, 0, 0, 0], True), ([0, 9, 9, 9, 9], True), ([0, 0, 0, 9, 9], False)]
)
def test_three_failures_in_a_row_without_a_step_are_enough(marks, fruitless):
    assert worker.is_fruitless(marks) is fruitless


def test_a_missing_specification_is_explained():
    with pytest.raises(errors.InvalidConfiguration, match="apply a manifest"):
        task.read(["pretrain", "--run-id", "r", "--node-rank", "0"], {})


def test_a_wrong_specification_names_the_field():
    arguments = ["pretrain", "--run-id", "r", "--node-rank", "0"]
    with pytest.raises(errors.InvalidConfiguration, match=r"spec\.slides: required"):
        task.read(arguments, {names.ENV_SPEC: "{}"})
