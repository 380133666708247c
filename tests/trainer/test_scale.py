"""The same run on one process and on many, copied or sharded: the same patches, and losses within float tolerance."""

import pathlib
import shutil

import pytest
import torch

from patho_trainer import checkpoint
from patho_trainer.data import storage
from tests.trainer import forks, runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def spec(folder: pathlib.Path, **changes):
    small = {
        "model__architecture": "test_vit",
        "training__steps": 4,
        "training__learningRate": 1e-3,
        "training__warmupSteps": 1,
        "training__crops": {"globalSizePx": 32, "localSizePx": 16, "localCount": 2},
        "training__monitorEverySteps": 2,
        "checkpoints__everySteps": 2,
    }
    return runs.spec(folder, **small | changes)


def trained(folder: pathlib.Path, size: int, *, sharded: bool = False, **changes) -> list[dict]:
    assert forks.gang(size, forks.train, spec(folder, **changes), folder, sharded) == [0] * size
    return runs.steps(folder / "space")


@pytest.fixture(autouse=True)
def shallow(monkeypatch) -> None:
    """As in the processes."""
    forks.shallow(monkeypatch)


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> pathlib.Path:
    """A run in one process."""
    folder = tmp_path_factory.mktemp("alone")
    trained(folder, 1)
    return folder


@pytest.fixture(scope="module")
def of_four(alone, tmp_path_factory) -> pathlib.Path:
    """The same run in four processes, sharded."""
    folder = tmp_path_factory.mktemp("four")
    shutil.copytree(alone / "index", folder / "index")
    trained(folder, 4, sharded=True)
    return folder


def assert_the_same(found: list[dict], expected: list[dict]) -> None:
    assert [entry["step"] for entry in found] == [entry["step"] for entry in expected]
    for key in ("loss", "teacher_entropy", "gradientNorm"):
        assert [entry[key] for entry in found] == pytest.approx([entry[key] for entry in expected], rel=2e-4)


def test_whatever_goes_wrong_in_the_first_process_is_told_to_all():
    assert forks.gang(2, forks.learn_of_a_failure) == [0, 0]


@pytest.mark.parametrize(
    ("size", "sharded", "how"),
    [
        (2, False, {}),
        (2, True, {"training__activationCheckpointing": True}),
        (4, False, {}),
        (1, False, {"training__microBatchSize": 2}),
        (2, True, {"training__microBatchSize": 1}),
    ],
)
def test_processes_and_micro_batches_share_the_work_and_not_the_mathematics(alone, tmp_path, size, sharded, how):
    shutil.copytree(alone / "index", tmp_path / "index")
    found = trained(tmp_path, size, sharded=sharded, **how)
    assert_the_same(found, runs.steps(alone / "space"))


def test_sharded_processes_in_bfloat16_agree_with_one(alone, tmp_path):
    """To the rounding of bfloat16 (8 bits): products of matrices of another shape are summed in another order."""
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        shutil.copytree(alone / "index", folder / "index")
    whole = trained(one, 1, training__precision="BFloat16")
    parts = trained(two, 2, sharded=True, training__precision="BFloat16")
    assert [entry["loss"] for entry in parts] == pytest.approx([entry["loss"] for entry in whole], rel=2e-2)
    assert [entry["loss"] for entry in whole] != [entry["loss"] for entry in runs.steps(alone / "space")]


def read(folder: pathlib.Path) -> list[tuple[int, int, str]]:
    """Step, slot and a digest of the pixels of every patch that any process was given."""
    lines = [line.split() for file in folder.glob("read-*") for line in file.read_text().splitlines()]
    return sorted((int(step), int(slot), digest) for step, slot, digest in lines)


def test_a_run_on_two_then_one_then_four_processes_reads_the_same_pixels_and_its_losses_agree(alone, tmp_path):
    folders = tmp_path / "alone", tmp_path / "moving"
    for folder in folders:
        shutil.copytree(alone / "index", folder / "index")
    assert forks.gang(1, forks.train_some, spec(folders[0], training__steps=6), folders[0], 6) == [0]
    for size, last in ((2, 2), (1, 4), (4, 6)):
        assert forks.gang(size, forks.train_some, spec(folders[1], training__steps=6), folders[1], last) == [0] * size
    assert read(folders[1]) == read(folders[0])
    assert len(read(folders[0])) == 6 * 4
    found, expected = (runs.steps(folder / "space") for folder in reversed(folders))
    assert [entry["worldSize"] for entry in found] == [2] * 2 + [1] * 2 + [4] * 2
    assert_the_same(found, expected)


def test_dinov2_shards_too(tmp_path):
    wanted = {"method": "DINOv2", "training__steps": 2, "training__lossGroupSize": 2, "training__maskRatio": [0.3, 0.6]}
    whole = trained(tmp_path / "alone", 1, **wanted)
    shutil.copytree(tmp_path / "alone" / "index", tmp_path / "two" / "index")
    parts = trained(tmp_path / "two", 2, sharded=True, **wanted)
    assert_the_same(parts, whole)
    assert [entry["ibot"] for entry in parts] == pytest.approx([entry["ibot"] for entry in whole], rel=2e-4)


def test_four_sharded_processes_do_the_same(alone, of_four):
    assert_the_same(runs.steps(of_four / "space"), runs.steps(alone / "space"))


def teacher(folder: pathlib.Path) -> torch.Tensor:
    """All weights of the newest checkpoint's exported teacher."""
    backbone, _ = checkpoint.load_backbone(f"{folder}/run", storage.Bucket())
    return torch.cat([value.flatten() for value in backbone.state_dict().values()])


@pytest.mark.parametrize(("size", "sharded"), [(2, True), (1, False)])
def test_a_checkpoint_goes_on_in_a_world_of_another_size_and_kind(alone, of_four, tmp_path, size, sharded):
    """Four sharded processes saved step 2, others go on from it, and one process reads what those saved."""
    for name in ("index", "run"):
        shutil.copytree(of_four / name, tmp_path / name)
    shutil.rmtree(tmp_path / "run" / "step-00000004")
    found = trained(tmp_path, size, sharded=sharded)
    assert_the_same(found, runs.steps(alone / "space")[2:])
    torch.testing.assert_close(teacher(tmp_path), teacher(alone), rtol=1e-3, atol=1e-4)
