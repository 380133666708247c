"""torch.compile, with the compiler of this machine: the same numbers, through the whole loop."""

import functools
import shutil

import pytest

from patho_trainer import pretrain
from patho_trainer.models import vit
from tests.trainer import runs

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler: install g++"),
]


def losses(folder, index, method: str, local: int, *, compiled: bool) -> list[tuple[float, float]]:
    """Loss and gradient norm of three steps."""
    folder.mkdir()
    wanted = runs.spec(
        folder,
        method=method,
        model__architecture="test_vit",
        slides__index=str(index),
        training__steps=3,
        training__learningRate=1e-3,
        training__warmupSteps=0,
        training__crops={"globalSizePx": 32, "localSizePx": 16, "localCount": local},
        training__compile=compiled,
        checkpoints__everySteps=3,
    )
    with runs.process(wanted, folder) as ctx:
        pretrain.train(ctx)
        return [(entry["loss"], entry["gradientNorm"]) for entry in runs.steps(ctx.space.folder)]


@pytest.mark.parametrize(
    ("method", "local"), [("DINO", 2), ("DINOv2", 0)]
)  # crops of two sizes, and masks: each kernel takes half a second
def test_a_compiled_run_computes_what_an_eager_one_does(tmp_path, monkeypatch, method, local):
    monkeypatch.setattr(vit, "create", functools.partial(vit.create, depth=1))
    eager, compiled = (losses(tmp_path / str(flag), tmp_path / "index", method, local, compiled=flag) for flag in (False, True))
    assert [pytest.approx(step, rel=1e-4) for step in eager] == compiled
