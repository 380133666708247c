"""Killed at any moment, a run goes on as if nothing had happened: real processes, SIGKILL."""

import pathlib
import random
import shutil
import signal

import pytest
import torch
from torch import distributed as dist

from patho_trainer import checkpoint, distributed, fencing, saving
from patho_trainer.data import storage
from tests.trainer import forks, runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
KILLED = -signal.SIGKILL
KILLS = 20


def by_step(entries: list[dict]) -> dict[int, dict]:
    """Entries by step; a step that was done twice must have been the same twice."""
    found: dict[int, dict] = {}
    for entry in entries:
        assert found.setdefault(entry["step"], entry) == entry
    return found


def spec(folder: pathlib.Path, **changes):
    return runs.spec(
        folder,
        **{
            "model__architecture": "test_vit",
            "training__steps": 60,
            "training__teacherMomentum": 0.9,
            "training__crops": {"globalSizePx": 32, "localSizePx": 16, "localCount": 1},
            "checkpoints__keep": 1,
        }
        | changes,
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> pathlib.Path:
    """A run that nothing disturbs."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert forks.gang(1, forks.train, spec(folder), folder) == [0]
    return folder


def test_killed_twenty_times_at_random_a_run_is_the_same_run_bit_by_bit(undisturbed, tmp_path):
    shutil.copytree(undisturbed / "index", tmp_path / "index")
    moments, kills, code = random.Random(0), 0, KILLED
    while code == KILLED:
        (code,) = forks.gang(1, forks.train_until_killed, spec(tmp_path), tmp_path, moments.randrange(35))
        kills += code == KILLED
    assert code == 0
    assert kills >= KILLS
    assert by_step(runs.steps(tmp_path / "space")) == by_step(runs.steps(undisturbed / "space"))


ALONE = distributed.World(rank=0, size=1, local_rank=0, node_rank=0, device=torch.device("cpu"))


def state(value: float) -> checkpoint.State:
    return {"method": {"teacher.backbone.w": torch.full((3,), value)}}


def place(folder: pathlib.Path, bucket: storage.Bucket) -> checkpoint.Place:
    return checkpoint.Place(f"{folder}/run", bucket, fencing.claim(f"{folder}/run", 1, bucket), folder / "scratch")


def save_until_killed(folder: pathlib.Path, lives: int) -> None:
    """Save step 10, then step 20 with `lives` requests to the bucket, and delete step 10."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mortal = forks.MortalBucket(-1)
    where = place(folder, mortal)
    saving.write(where, ALONE, 10, state(10.0), {}, keep=1)
    mortal.lives = lives
    saving.write(where, ALONE, 20, state(20.0), {}, keep=1)


@pytest.fixture
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_a_kill_at_any_request_of_a_save_leaves_a_whole_checkpoint_and_the_next_save_succeeds(tmp_path, group):
    lives, seen, code = 0, [], KILLED
    while code == KILLED:
        folder = tmp_path / str(lives)
        (code,) = forks.gang(1, save_until_killed, folder, lives)
        where, loaded = place(folder, storage.Bucket()), state(0.0)
        found = checkpoint.latest(where.root, where.bucket)
        checkpoint.load(where, ALONE, found.url, loaded)
        assert loaded["method"]["teacher.backbone.w"].tolist() == [found.step] * 3
        assert saving.write(where, ALONE, 30, state(30.0), {}, keep=1).step == 30
        assert [c.step for c in checkpoint.complete(where.root, where.bucket)] == [30]
        seen.append(found.step)
        lives += 1
    assert code == 0
    assert seen == sorted(seen)  # the old one until the new one is complete
    assert seen.count(10) > 5
    assert seen.count(20) > 3
