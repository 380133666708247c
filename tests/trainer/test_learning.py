"""It learns: without labels, from slides, through the whole trainer. One seed here; `make learn` runs five and draws the curves."""

import pytest

from tests.bench import learning

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_training_without_labels_makes_textures_easier_to_tell_apart_on_slides_never_seen(tmp_path):
    assert learning.shortcomings([learning.run(tmp_path / "seed-0", learning.data(tmp_path), 0)]) == []


@pytest.mark.parametrize(
    ("probes", "rankme", "loss", "missed"),
    [
        ((0.45, 0.46, 0.44), 30, 4.0, []),
        ((0.47, 0.38, 0.41), 30, 4.0, ["the probe"]),
        ((0.45, 0.46, 0.44), 19, 5.1, ["RankMe", "the loss"]),
    ],
)
def test_a_run_that_does_not_learn_is_told_apart(probes, rankme, loss, missed):
    seeds = [[learning.Point(0, 0.38, 20.0, 5.0), learning.Point(9, probe, rankme, loss)] for probe in probes]
    assert [sentence.split(":")[0] for sentence in learning.shortcomings(seeds)] == missed
