"""DINOv2 on one process and on two, copied or sharded: masks, subsets, prototypes and neighbours do not depend on who holds them."""

import pathlib
import shutil

import pytest

from tests.trainer import forks, runs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TERMS = ("loss", "dino", "ibot", "koleo", "kde", "teacher_entropy", "gradientNorm")


def trained(folder: pathlib.Path, size: int, *, sharded: bool = False) -> list[dict]:
    wanted = runs.spec(
        folder,
        method="DINOv2",
        model__architecture="test_vit",
        training__centering="SinkhornKnopp",
        training__batchSize=6,
        training__lossGroupSize=2,  # three groups: two processes hold unequal shares
        training__dropPath=0.3,
        training__kdeWeight=0.05,
        training__steps=5,
        training__ibotSeparateHead=True,
        training__monitorEverySteps=3,
    )
    assert forks.gang(size, forks.train, wanted, folder, sharded) == [0] * size
    return runs.steps(folder / "space")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run in one process: its folder, its steps."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, trained(folder, 1)


@pytest.mark.parametrize("sharded", [False, True])
def test_two_processes_compute_what_one_does(alone, tmp_path, sharded):
    folder, expected = alone
    shutil.copytree(folder / "index", tmp_path / "index")
    found = trained(tmp_path, 2, sharded=sharded)
    assert [entry["step"] for entry in found] == [1, 2, 3, 4, 5]
    for term in TERMS:
        assert [entry[term] for entry in found] == pytest.approx([entry[term] for entry in expected], rel=1e-3)
