"""A training step against the loop of facebookresearch/dino rebuilt around the same model: images per CPU-second, interleaved rounds.

Both train on the same patches, which lie in memory, with one thread. The opponent augments image by image with PIL and torchvision, puts
crops of one size through the backbone together and all through the head, sums the loss over pairs of views, clips each parameter by its
norm, steps AdamW, and moves the teacher, one parameter after the other.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from patho_api import pretrain
from patho_trainer import optim, schedules
from patho_trainer.data import augment
from patho_trainer.methods import dino
from tests.bench import pil

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUNDS, BATCH, PATCH_PX = 5, 16, 256
PARTS = ("augment", "forward and backward", "optimizer and teacher")


def spec(architecture: str) -> pretrain.PretrainSpec:
    head = {"prototypes": 1024, "headHiddenWidth": 256, "headBottleneckWidth": 64}
    return pretrain.PretrainSpec.model_validate(
        {
            "model": {"architecture": architecture},
            "slides": {"source": "/slides/", "index": "/index"},
            "checkpoints": {"url": "/run"},
            "training": {"batchSize": BATCH, "precision": "Float32", "dropPath": 0.0} | head,
        }
    )


class Stopwatch:
    """CPU-seconds of this process by part."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    def __call__(self, part: str, work: Callable[[], object]) -> object:
        begin = time.process_time()
        result = work()
        self.seconds[part] += time.process_time() - begin
        return result


class Ours:
    """The loop of `patho_trainer.pretrain` on one process, without the wrapper that averages over processes."""

    def __init__(self, wanted: pretrain.PretrainSpec, images_BHWC: torch.Tensor) -> None:
        self.method = dino.build(wanted, "cpu")
        self.optimizer = optim.adamw(self.method.student, self.method.hyperparameters)
        self.images_BHWC = images_BHWC
        self.watch = Stopwatch()

    def step(self, step: int) -> None:
        h = self.method.hyperparameters
        values = schedules.at(h, step)
        crops = self.watch("augment", lambda: augment.multi_crop(self.images_BHWC, h, h.seed, step, range(BATCH)))
        self.watch("forward and backward", lambda: dino.step(self.method, crops, values, step=step, slots=range(BATCH))["loss"].backward())
        self.watch("optimizer and teacher", lambda: self._move(values))

    def _move(self, values: schedules.Values) -> None:
        optim.clip(self.method.student, self.method.hyperparameters)
        optim.apply(values, self.optimizer)
        self.optimizer.step()
        self.optimizer.zero_grad()
        dino.update(self.method, values)


class Theirs:
    """The reference's loop around networks that start equal to ours."""

    def __init__(self, wanted: pretrain.PretrainSpec, images: list[Image.Image]) -> None:
        method = dino.build(wanted, "cpu")
        self.student, self.teacher, self.h = method.student, method.teacher, method.hyperparameters
        decayed = [p for p in self.student.parameters() if p.requires_grad and p.ndim > 1]
        rest = [p for p in self.student.parameters() if p.requires_grad and p.ndim <= 1]
        self.optimizer = torch.optim.AdamW([{"params": decayed}, {"params": rest, "weight_decay": 0.0}], lr=1e-6)
        self.center = torch.zeros(1, self.h.prototypes)
        self.images = images
        self.watch = Stopwatch()

    def step(self, _: int) -> None:
        crops = self.watch("augment", lambda: pil.multi_crop(self.images))
        self.watch("forward and backward", lambda: self._loss(crops).backward())
        self.watch("optimizer and teacher", self._move)

    def _through(self, network: torch.nn.Module, crops: list[torch.Tensor]) -> torch.Tensor:
        features = [network.backbone(torch.cat(crops[:2]))]
        if len(crops) > 2:
            features.append(network.backbone(torch.cat(crops[2:])))
        return network.head(torch.cat(features))

    def _loss(self, crops: list[torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            teacher = self._through(self.teacher, crops[:2])
        student = (self._through(self.student, crops) / 0.1).chunk(len(crops))
        targets = functional.softmax((teacher - self.center) / 0.04, dim=-1).chunk(2)
        pairs = [(t, s) for i, t in enumerate(targets) for j, s in enumerate(student) if i != j]
        loss = sum((-t * functional.log_softmax(s, dim=-1)).sum(-1).mean() for t, s in pairs) / len(pairs)
        self.center = self.center * 0.9 + teacher.mean(0, keepdim=True) * 0.1
        return loss

    def _move(self) -> None:
        for parameter in self.student.parameters():
            if parameter.grad is not None:
                factor = 3.0 / (parameter.grad.norm(2) + 1e-6)
                if factor < 1:
                    parameter.grad.mul_(factor)
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for mine, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                mine.mul_(0.996).add_(0.004 * other)


def shares(watch: Stopwatch) -> str:
    images = ROUNDS * BATCH
    return ", ".join(f"{part} {1000 * seconds / images:.1f}" for part, seconds in watch.seconds.items())


@pytest.mark.parametrize(("architecture", "floor"), [("test_vit", 1.2), ("vit_tiny_patch16_224", 1.0)])
def test_a_step_costs_less_than_the_references(architecture: str, floor: float):
    torch.set_num_threads(1)
    noise = np.random.default_rng(0).integers(0, 256, (BATCH, 8, 8, 3), dtype=np.uint8)
    pictures = [Image.fromarray(each).resize((PATCH_PX, PATCH_PX), Image.Resampling.BICUBIC) for each in noise]
    ours = Ours(spec(architecture), torch.from_numpy(np.stack([np.asarray(p) for p in pictures])))
    theirs = Theirs(spec(architecture), pictures)
    for loop in (ours, theirs):
        loop.step(0)  # first touches
        loop.watch = Stopwatch()
    ratios = []
    for number in range(1, ROUNDS + 1):
        cost = []
        for loop in (ours, theirs):
            begin = time.process_time()
            loop.step(number)
            cost.append(time.process_time() - begin)
        ratios.append(cost[1] / cost[0])
    rates = [ROUNDS * BATCH / sum(loop.watch.seconds.values()) for loop in (ours, theirs)]
    print(
        f"\n{architecture}: {rates[0]:.1f} images per CPU-second, reference loop {rates[1]:.1f}; ratio {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {ROUNDS} rounds)\n  ours, CPU ms an image: {shares(ours.watch)}\n"
        f"  reference: {shares(theirs.watch)}"
    )
    assert statistics.median(ratios) > floor
