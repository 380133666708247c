import dataclasses
import itertools

import pytest
import torch
from torch.nn import functional

from patho_trainer import errors
from patho_trainer.evaluation import linear, metrics, protocols
from tests.trainer.evaluation import miniatures

BOTH = pytest.mark.parametrize("name", ["Eva", "Paper"])


def recipe(name: str, train: linear.Labelled, val: linear.Labelled, steps: int, **changes: object) -> protocols.Recipe:
    return dataclasses.replace(protocols.recipe(name, len(train.labels_N), len(val.labels_N), steps), **changes)


@BOTH
@pytest.mark.parametrize("classes", [2, 3])
def test_a_separable_problem_is_solved(name: str, classes: int):
    train, val = miniatures.blobs(distance=6, classes=classes)
    probes = linear.fit(train, val, classes=classes, recipe=recipe(name, train, val, 2000), seeds=range(3))
    scores_R = metrics.balanced_accuracy(metrics.confusion(probes.predict(val.features_ND), val.labels_N, classes))
    assert (scores_R > 0.95).all()
    assert torch.equal(scores_R, probes.val_scores_R)


def test_random_labels_are_predicted_at_chance():
    train, val = miniatures.blobs(distance=0, samples=1200)
    test = miniatures.blobs(distance=0, samples=1200, seed=1)[0]
    probes = linear.fit(train, val, classes=3, recipe=recipe("Eva", train, val, 200), seeds=range(5))
    scores_R = metrics.balanced_accuracy(metrics.confusion(probes.predict(test.features_ND), test.labels_N, 3))
    assert scores_R.mean() == pytest.approx(1 / 3, abs=0.03)


@BOTH
@pytest.mark.parametrize("classes", [2, 3])
def test_runs_trained_together_equal_runs_trained_alone(name: str, classes: int):
    train, val = miniatures.blobs(distance=1, classes=classes)
    plan = recipe(name, train, val, 60, batch_size=64)
    together = linear.fit(train, val, classes=classes, recipe=plan, seeds=[3, 4, 5])
    for r, seed in enumerate([3, 4, 5]):
        alone = linear.fit(train, val, classes=classes, recipe=plan, seeds=[seed])
        torch.testing.assert_close(together.weights_RDK[r], alone.weights_RDK[0], rtol=1e-4, atol=1e-5)
        assert together.val_scores_R[r] == alone.val_scores_R[0]


@BOTH
@pytest.mark.parametrize("classes", [2, 3])
def test_a_step_is_that_of_torch_on_the_mean_cross_entropy(name: str, classes: int):
    train, val = miniatures.blobs(distance=2, samples=40, classes=classes)
    plan = recipe(name, train, val, 12, batch_size=16, patience_epochs=99)
    ours = linear.fit(train, train, classes=classes, recipe=plan, seeds=[7])
    weights_by_epoch = torch_probe(train, classes, plan, seed=7)
    torch.testing.assert_close(ours.weights_RDK[0].T, weights_by_epoch[ours.best_epochs_R[0] - 1], rtol=1e-4, atol=1e-6)


def torch_probe(train: linear.Labelled, classes: int, plan: protocols.Recipe, seed: int) -> list[torch.Tensor]:
    """The same probe as an nn.Linear with autograd: its weights after each epoch."""
    start_KP = linear._start([seed], train.features_ND.shape[1], 1 if classes == 2 else classes)[0]
    head = torch.nn.Linear(start_KP.shape[1] - 1, start_KP.shape[0])
    head.load_state_dict({"weight": start_KP[:, :-1], "bias": start_KP[:, -1]})
    if plan.optimizer == "AdamW":
        optimizer = torch.optim.AdamW(head.parameters(), lr=1, weight_decay=plan.weight_decay)
    else:
        optimizer = torch.optim.SGD(head.parameters(), lr=1, momentum=0.9, nesterov=True)
    weights, step = [], itertools.count()
    for epoch in range(plan.max_steps // 3):  # 40 samples in batches of 16, 16, 8
        for batch_RB in linear._batches([seed], epoch, len(train.labels_N), plan.batch_size):
            optimizer.param_groups[0]["lr"] = protocols.learning_rate(plan, next(step), epoch)
            logits, labels = head(train.features_ND[batch_RB[0]]), train.labels_N[batch_RB[0]]
            binary = functional.binary_cross_entropy_with_logits(logits[:, 0], labels.float()) if classes == 2 else None
            optimizer.zero_grad()
            (functional.cross_entropy(logits, labels) if binary is None else binary).backward()
            optimizer.step()
        weights.append(head.weight.detach().clone())
    return weights


def test_the_same_seeds_give_the_same_bits():
    train, val = miniatures.blobs(distance=1)
    first, second = (linear.fit(train, val, classes=3, recipe=recipe("Eva", train, val, 30), seeds=[0, 1]) for _ in range(2))
    assert torch.equal(first.weights_RDK, second.weights_RDK)
    assert not torch.equal(first.weights_RDK[0], first.weights_RDK[1])


def test_a_run_stops_after_its_patience_and_keeps_its_best_epoch():
    train, val = miniatures.blobs(distance=6)
    seen = []
    plan = recipe("Eva", train, val, 5000, batch_size=256, patience_epochs=4, learning_rate=0.1)
    probes = linear.fit(train, val, classes=3, recipe=plan, seeds=[0, 1], progress=lambda done, most: seen.append((done, most)))
    assert probes.steps_R.tolist() == [2 * (epoch + 4) for epoch in probes.best_epochs_R.tolist()]  # two steps an epoch
    assert seen[-1] == (int(probes.steps_R.max()), 5000)


def test_an_epoch_that_is_broken_off_does_not_count():
    train, val = miniatures.blobs(distance=1)
    broken, whole = (
        linear.fit(train, val, classes=3, recipe=recipe("Eva", train, val, steps, batch_size=256, patience_epochs=9), seeds=[0, 1])
        for steps in (5, 4)  # two steps an epoch
    )
    assert torch.equal(broken.weights_RDK, whole.weights_RDK)
    assert (broken.steps_R.tolist(), whole.steps_R.tolist()) == ([5, 5], [4, 4])


def test_splits_of_different_width_are_refused():
    train, val = miniatures.blobs(distance=1)[0], miniatures.blobs(distance=1, width=8)[1]
    with pytest.raises(errors.InvalidConfiguration, match=r"16 wide .* 8: compute both with the same model"):
        linear.fit(train, val, classes=3, recipe=recipe("Eva", train, val, 5), seeds=[0])
