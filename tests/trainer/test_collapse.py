"""The alarm by a real collapse: without centring, every image goes to one prototype."""

import pytest

from patho_trainer import monitors, pretrain, progress
from tests.trainer import runs


@pytest.mark.parametrize(("center_momentum", "collapsed"), [(1.0, True), (0.9, False)])
def test_a_run_without_centring_collapses_and_says_so(tmp_path, monkeypatch, center_momentum, collapsed):
    """A centre with momentum 1 stays where it began, at 0."""
    monkeypatch.setattr(monitors, "PROBE_PATCHES", 64)
    wanted = runs.spec(
        tmp_path,
        model__architecture="test_vit",
        training__steps=15,
        training__batchSize=8,
        training__centerMomentum=center_momentum,
        training__learningRate=2e-3,
        training__warmupSteps=5,
        training__teacherMomentum=0.8,
        training__dropPath=0.0,
        training__freezeLastLayerSteps=0,
        training__crops={"globalSizePx": 32, "localSizePx": 16, "localCount": 2},
        training__monitorEverySteps=5,
        checkpoints__everySteps=15,
    )
    with runs.process(wanted, tmp_path) as ctx:
        pretrain.train(ctx)
        assert progress.read(ctx.space).collapsed is collapsed
