"""Segmentation of patches by kaiko-eva's decoder on frozen tokens, its loss and its score.

The features are computed once; a step is the decoder's alone.
"""

# B patches a step, N patches, D width of a token, G edge of the grid of tokens, S edge of a patch, C classes (0 is the background)

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.nn import functional

from patho_api.common import Normalization
from patho_trainer.evaluation import encoder, linear, protocols

HIDDEN = (64, 32, 32)  # channels of kaiko-eva's ConvDecoderWithImage
SMOOTH = 1e-5  # MONAI's
CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class Masked:
    """Tokens float32 (N, D, G, G), pixels uint8 (N, 3, S, S) and class indices uint8 (N, S, S) of patches, which may be more than fit into
    memory: files that are mapped. `rows_N`, where given, are those that count; `device` is where they are computed with."""

    tokens_NDGG: torch.Tensor
    images_N3SS: torch.Tensor
    masks_NSS: torch.Tensor
    device: torch.device = CPU
    rows_N: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.masks_NSS if self.rows_N is None else self.rows_N)

    def part(self, rows: torch.Tensor) -> "Masked":
        """The patches of these numbers, where they lie."""
        return dataclasses.replace(self, rows_N=rows if self.rows_N is None else self.rows_N[rows])

    def take(self, rows: torch.Tensor) -> "Masked":
        """A copy of the patches of these numbers, on the device."""
        rows = rows if self.rows_N is None else self.rows_N[rows]
        tokens, images, masks = (t[rows].to(self.device) for t in (self.tokens_NDGG, self.images_N3SS, self.masks_NSS))
        return Masked(tokens, images, masks, self.device)

    def batches(self, size: int) -> Iterator["Masked"]:
        """Copies of all patches in turn, on the device."""
        return map(self.take, torch.split(torch.arange(len(self)), size))


class Decoder(nn.Module):
    """Tokens twice as fine, then at the image's size beside its pixels: kaiko-eva's ConvDecoderWithImage."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.tokens = _block(width, HIDDEN[0])
        self.pixels = nn.Sequential(_block(HIDDEN[0] + 3, HIDDEN[1]), _block(HIDDEN[1], HIDDEN[2]))
        self.classifier = nn.Conv2d(HIDDEN[2], classes, kernel_size=1)

    def forward(self, tokens_BDGG: torch.Tensor, images_B3SS: torch.Tensor) -> torch.Tensor:
        """Logits (B, C, S, S); the images are normalised as the backbone saw them."""
        x = self.tokens(functional.interpolate(tokens_BDGG, scale_factor=2, mode="nearest"))
        x = functional.interpolate(x, images_B3SS.shape[-2:], mode="bilinear")
        logits_BCSS: torch.Tensor = self.classifier(self.pixels(torch.cat([x, images_B3SS], dim=1)))
        return logits_BCSS


def dice_loss(logits_BCSS: torch.Tensor, masks_BSS: torch.Tensor) -> torch.Tensor:
    """1 - Dice of the probabilities, over the whole batch, mean over all classes: MONAI's DiceLoss(softmax=True, batch=True)."""
    shares_BCSS = logits_BCSS.softmax(dim=1)
    truth_BCSS = functional.one_hot(masks_BSS.long(), logits_BCSS.shape[1]).movedim(-1, 1).to(shares_BCSS.dtype)
    common_C, total_C = (t.sum(dim=(0, 2, 3)) for t in (shares_BCSS * truth_BCSS, shares_BCSS + truth_BCSS))
    return (1 - (2 * common_C + SMOOTH) / (total_C + SMOOTH)).mean()


def dice(counts_NCC: torch.Tensor) -> float:
    """Dice without the background: mean over the classes that a patch has, then over the patches that have one (MONAI's DiceMetric
    with ignore_empty). `counts_NCC` are confusion counts of each patch, true classes in rows."""
    counts_NCC = counts_NCC.double()
    truth_NC, predicted_NC = counts_NCC.sum(dim=2)[:, 1:], counts_NCC.sum(dim=1)[:, 1:]
    there_NC = truth_NC > 0
    scores_NC = 2 * counts_NCC.diagonal(dim1=1, dim2=2)[:, 1:] / (truth_NC + predicted_NC).clamp_min(1)
    classes_N = there_NC.sum(dim=1)
    scores_N = (scores_NC * there_NC).sum(dim=1)[classes_N > 0] / classes_N[classes_N > 0]
    return float(scores_N.mean()) if len(scores_N) else 0.0


@dataclasses.dataclass(frozen=True)
class Trained:
    """A decoder at its best epoch."""

    decoder: Decoder
    val_score: float
    """Dice on the split that chose the epoch."""
    best_epoch: int
    """Epochs trained up to the best, from 1."""
    steps: int
    """Steps until the run stopped."""


def fit(
    train: Masked,
    val: Masked,
    *,
    classes: int,
    normalization: Normalization,
    recipe: protocols.Recipe,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Trained:
    """Train one decoder and keep it at its best validation score, measured after every whole epoch (of an
    epoch that max_steps breaks off only where it is the first), as in kaiko-eva. `progress` gets the steps done."""
    decoder = start(train.tokens_NDGG.shape[1], classes, seed).to(train.device)
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    best, step, epoch = Trained(decoder, -math.inf, 0, 0), 0, 0
    while step < recipe.max_steps and epoch - best.best_epoch < recipe.patience_epochs:
        order_N = torch.randperm(len(train), generator=linear.generator(seed, "order", epoch))
        batches = torch.split(order_N, recipe.batch_size)
        validates = step + len(batches) <= recipe.max_steps or epoch == 0
        for rows in batches[: recipe.max_steps - step]:
            optimizer.param_groups[0]["lr"] = protocols.learning_rate(recipe, step, epoch)
            train_step(decoder, optimizer, train.take(rows), normalization)
            step += 1
            progress(step)
        epoch += 1
        if not validates:
            break
        score = dice(confusion(decoder, val, normalization, recipe.batch_size))
        if score > best.val_score:
            best = Trained(copy.deepcopy(decoder), score, epoch, step)
    return dataclasses.replace(best, steps=step)


def start(width: int, classes: int, seed: int) -> Decoder:
    """A decoder with torch's own start of its layers, drawn from `seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=linear.generator(seed, "decoder"))))
        return Decoder(width, classes)


def train_step(decoder: Decoder, optimizer: torch.optim.Optimizer, batch: Masked, normalization: Normalization) -> float:
    """One step; returns its loss."""
    decoder.train()
    optimizer.zero_grad()
    logits_BCSS = decoder(batch.tokens_NDGG, encoder.normalized(batch.images_N3SS, normalization))
    loss = dice_loss(logits_BCSS, batch.masks_NSS)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss.item()


@torch.inference_mode()
def predict(decoder: Decoder, patches: Masked, normalization: Normalization, batch_size: int) -> torch.Tensor:
    """Class indices (N, S, S) uint8."""
    return torch.cat([_predicted(decoder, batch, normalization) for batch in patches.batches(batch_size)])


@torch.inference_mode()
def confusion(decoder: Decoder, patches: Masked, normalization: Normalization, batch_size: int) -> torch.Tensor:
    """Pixel counts (N, C, C) of each patch: true classes in rows, predicted ones in columns."""
    classes = decoder.classifier.out_channels
    return torch.cat(
        [_counts(batch.masks_NSS, _predicted(decoder, batch, normalization), classes) for batch in patches.batches(batch_size)]
    )


def _predicted(decoder: Decoder, batch: Masked, normalization: Normalization) -> torch.Tensor:
    decoder.eval()
    logits_BCSS: torch.Tensor = decoder(batch.tokens_NDGG, encoder.normalized(batch.images_N3SS, normalization))
    return logits_BCSS.argmax(dim=1).to(torch.uint8)


def _counts(masks_BSS: torch.Tensor, predicted_BSS: torch.Tensor, classes: int) -> torch.Tensor:
    patch_B1 = torch.arange(len(masks_BSS), device=masks_BSS.device)[:, None]
    cell_BP = (patch_B1 * classes + masks_BSS.flatten(1)) * classes + predicted_BSS.flatten(1)
    return torch.bincount(cell_BP.flatten(), minlength=len(masks_BSS) * classes**2).view(len(masks_BSS), classes, classes)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
