"""Linear probes on frozen features: all runs of a task train at once, as one batched tensor program.

Runs differ in their seed only (start and order of samples), so R probes are one tensor and a step is one batched matrix product.
What a run computes does not depend on the others.
"""

# R runs, N samples, B samples a step, D feature width, P = D + 1 (weights, then bias), C classes,
# K outputs: C, or 1 for two classes (eva's form, with BCE)

import dataclasses
import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch.nn import functional

from patho_trainer import errors
from patho_trainer.evaluation import metrics, protocols


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Features (N, D) float32 and class indices (N,) int64, on one device."""

    features_ND: torch.Tensor
    labels_N: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Probes:
    """Trained probes; each run is at its own best epoch."""

    weights_RDK: torch.Tensor
    bias_RK: torch.Tensor
    val_scores_R: torch.Tensor
    """Balanced accuracy on the validation split, which chose the epoch."""
    best_epochs_R: torch.Tensor
    """Epochs trained up to the best, from 1."""
    steps_R: torch.Tensor
    """Steps until the run stopped."""

    def predict(self, features_ND: torch.Tensor) -> torch.Tensor:
        """Class indices (R, N)."""
        return _classes(torch.cat([self.weights_RDK.mT, self.bias_RK[..., None]], dim=2), features_ND)


def fit(
    train: Labelled,
    val: Labelled,
    *,
    classes: int,
    recipe: protocols.Recipe,
    seeds: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> Probes:
    """Trains one probe for each seed and keeps each at its best validation score.

    Validation happens after every whole epoch, as in kaiko-eva; an epoch that max_steps breaks off counts only where it is the first.
    `progress` gets (steps done, steps at most). The same inputs on the same kind of device give the same probes.
    Raises InvalidConfiguration when the two splits differ in feature width.
    """
    _check_widths(train, val)
    device = train.features_ND.device
    parameters_RKP = _start(seeds, train.features_ND.shape[1], 1 if classes == 2 else classes).to(device).requires_grad_()
    optimizer = _optimizer(parameters_RKP, recipe)
    best = _Best.of(parameters_RKP)
    step = epoch = 0
    while step < recipe.max_steps and not best.stopped_R.all():
        batches = _batches(seeds, epoch, len(train.labels_N), recipe.batch_size)
        validates = step + len(batches) <= recipe.max_steps or epoch == 0
        for batch_RB in batches[: recipe.max_steps - step]:
            optimizer.param_groups[0]["lr"] = protocols.learning_rate(recipe, step, epoch)
            _step(parameters_RKP, optimizer, train, batch_RB.to(device))
            step += 1
        best.steps_R[~best.stopped_R] = step
        if validates:
            best.update(parameters_RKP.detach(), _scores(parameters_RKP.detach(), val, classes), epoch, recipe.patience_epochs)
        if progress:
            progress(step, recipe.max_steps)
        epoch += 1
    return best.probes()


@dataclasses.dataclass
class _Best:
    """The best of each run so far; a run that has stopped changes no more."""

    parameters_RKP: torch.Tensor
    scores_R: torch.Tensor
    epochs_R: torch.Tensor
    steps_R: torch.Tensor
    stopped_R: torch.Tensor

    @classmethod
    def of(cls, parameters_RKP: torch.Tensor) -> "_Best":
        runs, device = parameters_RKP.shape[0], parameters_RKP.device
        zeros_R = torch.zeros(runs, dtype=torch.int64, device=device)
        return cls(
            parameters_RKP=parameters_RKP.detach().clone(),
            scores_R=torch.full((runs,), -math.inf, dtype=torch.float64, device=device),
            epochs_R=zeros_R.clone(),
            steps_R=zeros_R.clone(),
            stopped_R=zeros_R.bool(),
        )

    def update(self, parameters_RKP: torch.Tensor, scores_R: torch.Tensor, epoch: int, patience_epochs: int) -> None:
        going_R = ~self.stopped_R
        better_R = going_R & (scores_R > self.scores_R)
        self.parameters_RKP[better_R] = parameters_RKP[better_R]
        self.scores_R[better_R] = scores_R[better_R]
        self.epochs_R[better_R] = epoch + 1
        self.stopped_R |= (epoch + 1) - self.epochs_R >= patience_epochs

    def probes(self) -> Probes:
        return Probes(self.parameters_RKP[..., :-1].mT, self.parameters_RKP[..., -1], self.scores_R, self.epochs_R, self.steps_R)


def _check_widths(train: Labelled, val: Labelled) -> None:
    if train.features_ND.shape[1] != val.features_ND.shape[1]:
        raise errors.InvalidConfiguration(
            f"features of the training split are {train.features_ND.shape[1]} wide and those of the validation split"
            f" {val.features_ND.shape[1]}: compute both with the same model and pooling"
        )


def generator(*key: object) -> torch.Generator:
    """A CPU generator that depends on `key` alone: no state is carried from draw to draw, and every device draws the same."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest) >> 1)


def _start(seeds: Sequence[int], width: int, outputs: int) -> torch.Tensor:
    """Weights and bias, drawn like torch.nn.Linear's: uniform within 1 / sqrt(D)."""
    draws = [torch.rand(outputs, width + 1, generator=generator(seed, "start")) for seed in seeds]
    return (2 * torch.stack(draws) - 1) / math.sqrt(width)


def _batches(seeds: Sequence[int], epoch: int, samples: int, batch_size: int) -> tuple[torch.Tensor, ...]:
    """Sample numbers (R, B) of each step of an epoch."""
    orders = [torch.randperm(samples, generator=generator(seed, "order", epoch)) for seed in seeds]
    return torch.split(torch.stack(orders), batch_size, dim=1)


def _optimizer(parameters_RKP: torch.Tensor, recipe: protocols.Recipe) -> torch.optim.Optimizer:
    """Both update elementwise, so that one optimizer over all runs is one for each."""
    if recipe.optimizer == "AdamW":
        return torch.optim.AdamW([parameters_RKP], lr=recipe.learning_rate, weight_decay=recipe.weight_decay, fused=True)
    return torch.optim.SGD([parameters_RKP], lr=recipe.learning_rate, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay)


def _step(parameters_RKP: torch.Tensor, optimizer: torch.optim.Optimizer, train: Labelled, batch_RB: torch.Tensor) -> None:
    """One step of all runs; the gradient of the mean cross-entropy is written down, which halves the time against autograd."""
    runs, size = batch_RB.shape
    x_RBD = train.features_ND.index_select(0, batch_RB.flatten()).view(runs, size, -1)
    with torch.no_grad():
        logits_RBK = torch.bmm(x_RBD, parameters_RKP[..., :-1].mT) + parameters_RKP[:, None, :, -1]
        error_RBK = _probabilities(logits_RBK) - _targets(train.labels_N[batch_RB], logits_RBK.shape[2])
        gradient_RKD = torch.bmm(error_RBK.mT, x_RBD)
        parameters_RKP.grad = torch.cat([gradient_RKD, error_RBK.sum(dim=1)[..., None]], dim=2) / size
    optimizer.step()


def _probabilities(logits_RBK: torch.Tensor) -> torch.Tensor:
    return logits_RBK.sigmoid() if logits_RBK.shape[2] == 1 else logits_RBK.softmax(dim=2)


def _targets(labels_RB: torch.Tensor, outputs: int) -> torch.Tensor:
    return (labels_RB[..., None] if outputs == 1 else functional.one_hot(labels_RB, outputs)).float()


def _classes(parameters_RKP: torch.Tensor, features_ND: torch.Tensor) -> torch.Tensor:
    logits_RNK = features_ND @ parameters_RKP[..., :-1].mT + parameters_RKP[:, None, :, -1]
    return (logits_RNK[..., 0] > 0).long() if logits_RNK.shape[2] == 1 else logits_RNK.argmax(dim=2)


def _scores(parameters_RKP: torch.Tensor, split: Labelled, classes: int) -> torch.Tensor:
    return metrics.balanced_accuracy(metrics.confusion(_classes(parameters_RKP, split.features_ND), split.labels_N, classes))
