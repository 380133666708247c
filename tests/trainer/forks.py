"""Real processes that start in milliseconds: forks of a server that has imported everything once."""

import contextlib
import dataclasses
import functools
import hashlib
import multiprocessing
import os
import pathlib
import signal
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from patho_api import pretrain as api
from patho_trainer import context, distributed, errors, pretrain, telemetry
from patho_trainer.data import storage, stream
from patho_trainer.models import vit
from tests.trainer import runs, servers

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.trainer.forks"])
PATIENCE_SECONDS = 240.0


class MortalBucket(storage.Bucket):
    """A bucket whose process is killed (SIGKILL) before one of its requests: the one after `lives` others."""

    def __init__(self, lives: int) -> None:
        super().__init__()
        self.lives = lives

    def suffer(self) -> None:
        """Use up one life."""
        if self.lives == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        self.lives -= 1

    def _call(self, url: str, *arguments: Any, **options: Any) -> Any:
        self.suffer()
        return super()._call(url, *arguments, **options)


def gang(size: int, target: Callable[..., None], *arguments: Any) -> list[int | None]:
    """Run `target(*arguments)` in `size` processes, each with the environment that torchrun gives; their exit codes."""
    port = servers.free_port()
    processes = [CONTEXT.Process(target=_as_rank, args=(rank, size, port, target, *arguments)) for rank in range(size)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE_SECONDS)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def shallow(patch: pytest.MonkeyPatch) -> None:
    """Backbones of two blocks: enough for one to be sharded apart from the next, and each costs a gang two exchanges a pass."""
    patch.setattr(vit, "create", functools.partial(vit.create, depth=2))


def _as_rank(rank: int, size: int, port: int, target: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    shallow(pytest.MonkeyPatch())
    names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in names.items()} | {"MASTER_ADDR": "127.0.0.1"})
    target(*arguments)


def train(wanted: api.PretrainSpec, folder: pathlib.Path, sharded: bool = False) -> None:
    """A rank that trains; notes its steps in `folder`/space of the reporting rank."""
    if sharded:
        distributed.SHARDED_FROM_PARAMETERS = 0
        warnings.filterwarnings("error", message="FSDP2")
    world = distributed.join("cpu", 0)
    with runs.context_in(world, wanted, folder, storage.Bucket()) as ctx:
        pretrain.train(ctx)
    distributed.leave()


def train_some(wanted: api.PretrainSpec, folder: pathlib.Path, last: int) -> None:
    """A rank that stops, with a checkpoint, after step `last`; every rank notes in `folder`/read-* which pixels each slot was given."""
    step = telemetry.Telemetry.step

    def step_and_note(self: telemetry.Telemetry, done: int, batch: stream.Batch, *rest: Any) -> None:
        step(self, done, batch, *rest)
        with (folder / f"read-{os.getpid()}").open("a") as file:
            for slot, image in zip(batch.slots, batch.images, strict=True):
                digest = hashlib.blake2b(image.numpy().tobytes(), digest_size=8).hexdigest()
                file.write(f"{done} {slot} {digest}\n")
        if done == last - 1:
            self._ctx.stop.set()  # as SIGTERM does: all agree on it in the next step

    telemetry.Telemetry.step = step_and_note  # type: ignore[method-assign]
    with runs.context_in(distributed.join("cpu", 0), wanted, folder, storage.Bucket()) as ctx, contextlib.suppress(errors.Stopped):
        pretrain.train(ctx)
    distributed.leave()


def learn_of_a_failure() -> None:
    """A rank that ends well where it is told what went wrong in the first one."""

    def fail() -> None:
        raise OSError("no space left")

    world = distributed.join("cpu", 0)
    with pytest.raises(errors.PathoError, match="OSError: no space left"):
        distributed.on_first(world, fail, world.saving)
    distributed.leave()


def train_until_killed(wanted: api.PretrainSpec, folder: pathlib.Path, lives: int) -> None:
    """A lone process that trains until it has made `lives` steps and requests beside training, and is then killed."""
    mortal = MortalBucket(-1)  # immortal until the first step is done
    step = telemetry.Telemetry.step

    def step_and_suffer(self: telemetry.Telemetry, *arguments: Any) -> None:
        step(self, *arguments)
        mortal.lives = lives if mortal.lives < 0 else mortal.lives
        mortal.suffer()

    telemetry.Telemetry.step = step_and_suffer  # type: ignore[method-assign]
    with runs.context_in(distributed.join("cpu", 0), wanted, folder, mortal) as ctx:
        pretrain.train(context_with_plain_slides(ctx))
    distributed.leave()


def context_with_plain_slides(ctx: context.Context) -> context.Context:
    """The same context, but reading slides costs no life: how many reads there are depends on threads."""
    return dataclasses.replace(ctx, slides=storage.Bucket())
