"""The pause that training sees when a checkpoint is written beside it, against a save that it waits for; wall time, interleaved rounds."""

import pathlib
import statistics
import time

import pytest
import torch
from torch import distributed as dist

from patho_api import common
from patho_trainer import checkpoint, distributed, fencing, optim, saving
from patho_trainer.methods import dino
from tests.bench import test_training
from tests.trainer import servers

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]
ROUNDS = 5
ALONE = distributed.World(rank=0, size=1, local_rank=0, node_rank=0, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def state() -> checkpoint.State:
    """Student, teacher and moments of ViT-Ti/16: 4 x 5.5 million parameters in float32, 90 MB."""
    method = dino.build(test_training.spec("vit_tiny_patch16_224"), "cpu")
    optimizer = optim.adamw(method.student, method.hyperparameters)
    return {"method": method.state_dict(), "optimizer": checkpoint.optimizer_state(method.student, optimizer)}


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: pathlib.Path):
    """A folder of this machine, and a bucket of an S3 server on the loopback."""
    if request.param == "disk":
        yield servers.Store(f"{tmp_path}/objects/", common.Storage())
        return
    with servers.s3_server() as endpoint:
        yield servers.s3_bucket(endpoint, tmp_path / "secret")


def test_the_pause_is_a_small_part_of_a_save(store: servers.Store, tmp_path: pathlib.Path):
    root, bucket = f"{store.url}run", store.bucket()
    place = checkpoint.Place(root, bucket, fencing.claim(root, 1, bucket), tmp_path / "scratch")
    saver, whole = saving.Saver(place, ALONE, keep=1), state()
    saver.begin(1, whole, {})  # makes room for the copy, once in a run
    saver.collect()
    pauses, saves = [], []
    for number in range(ROUNDS):
        begin = time.perf_counter()
        saver.begin(2 * number + 2, whole, {})
        pauses.append(time.perf_counter() - begin)
        saver.collect()
        begin = time.perf_counter()
        saving.write(place, ALONE, 2 * number + 3, whole, {}, keep=1)
        saves.append(time.perf_counter() - begin)
    saver.close()
    ratios = [a / b for a, b in zip(pauses, saves, strict=True)]
    waits, whole_ms = (1000 * statistics.median(seconds) for seconds in (pauses, saves))
    print(
        f"\n{'s3' if store.secret_dir else 'disk'}: training waits {waits:.0f} ms, a save takes {whole_ms:.0f} ms; "
        f"{100 * statistics.median(ratios):.1f} % ({100 * min(ratios):.1f} to {100 * max(ratios):.1f}, {ROUNDS} rounds)"
    )
    assert statistics.median(ratios) < 0.05
