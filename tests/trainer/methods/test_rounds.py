"""Micro-batches take whole loss groups, and all processes have equally many."""

import pytest

from patho_trainer import config, errors
from patho_trainer.data import sampler
from patho_trainer.methods import rounds
from tests.trainer.methods import specs


def make(group=2, micro=4, batch=16, **training):
    return config.resolved(specs.make(method="DINOv2", batchSize=batch, lossGroupSize=group, microBatchSize=micro, **training))


@pytest.mark.parametrize(("group", "micro", "batch", "world"), [(2, 4, 16, 1), (2, 4, 20, 3), (1, 3, 10, 3), (4, 12, 20, 2), (8, 8, 8, 1)])
def test_micro_batches_are_whole_groups_no_larger_than_asked_and_as_many_everywhere(group, micro, batch, world):
    h, counts = make(group, micro, batch, koleoWeight=0), set()
    for rank in range(world):
        slots = sampler.rank_slots(batch, h.loss_groups, rank, world)
        parts = rounds.micro_batches(slots, h, world)
        counts.add(len(parts))
        assert sorted(i for part in parts for i in part) == list(range(len(slots)))
        for part in parts:
            owners = [slots[i] % h.loss_groups for i in part]
            assert len(part) <= micro
            assert all(owners.count(owner) == group for owner in owners)
    assert len(counts) == 1


def test_members_are_the_positions_of_each_group():
    h = make(group=2, batch=8)  # four groups
    assert rounds.members([1, 3, 5, 7], h).tolist() == [[0, 2], [1, 3]]


@pytest.mark.parametrize(
    ("training", "world", "sentence"),
    [
        ({"group": 4, "micro": 4, "batch": 12}, 2, "not shared out evenly over 2 processes.*set it to 8 or more"),
    ],
)
def test_groups_that_do_not_fit_are_refused(training, world, sentence):
    with pytest.raises(errors.InvalidConfiguration, match=sentence):
        rounds.check(make(**training), world)


def test_a_micro_batch_below_the_default_group_is_refused_with_the_way_out():
    spec = specs.make(method="DINOv2", batchSize=128, microBatchSize=16)
    with pytest.raises(errors.InvalidConfiguration, match=r"not a multiple of the 64 patches of a loss group.*set lossGroupSize to 16"):
        config.resolved(spec)


def test_unequal_shares_without_accumulation_are_fine():
    rounds.check(make(group=4, micro=12, batch=12), 2)
