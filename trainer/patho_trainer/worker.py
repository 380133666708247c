"""A training process: joins the others, trains, and says why it ended. Started by torchrun's agent (see `launcher`)."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from types import FrameType

import torch

from patho_api import names, pretrain
from patho_trainer import checkpoint, context, distributed, errors, fencing, metrics, progress, task, verdict, workspace
from patho_trainer import pretrain as training

PR_SET_PDEATHSIG = 1
FRUITLESS_ROUNDS = 3  # failures of a lone pod in a row, without a step between them, after which it gives up


def main(arguments: list[str]) -> int:
    """Train as the arguments and the environment say; returns the exit code."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed agent must not leave workers that go on writing
    todo = task.read(arguments)
    assert isinstance(todo.spec, pretrain.PretrainSpec)
    space = workspace.at(todo.run_id, todo.node_rank)
    verdict.forget_stop(space.verdict)
    stop = _stoppable(space)
    try:
        training.train(_context(todo, todo.spec, space, stop))
    except errors.PathoError as error:
        return _give_up(error, todo, todo.spec, space)
    except Exception as error:
        traceback.print_exc()
        _remember(f"{type(error).__name__}: {error}", space)
        return 1  # a peer was lost, for instance: torchrun starts the workers again
    distributed.leave()
    return names.EXIT_DONE


def _context(todo: task.Task, spec: pretrain.PretrainSpec, space: workspace.Workspace, stop: threading.Event) -> context.Context:
    restarts = _begin_round(todo, spec, space)
    device = distributed.choose_device(spec.compute, torch.cuda.device_count())
    if spec.training.deterministic:
        distributed.be_deterministic()
    world = distributed.join(device, todo.node_rank)
    reporter = progress.Reporter(space, todo.run_id, enabled=world.reports)
    reporter.tell(restarts=restarts)
    root, bucket = spec.checkpoints.url, task.checkpoints_bucket(spec)
    claim = distributed.on_first(world, lambda: fencing.claim(root, todo.attempt, bucket))
    return context.Context(
        spec=spec,
        run_id=todo.run_id,
        attempt=todo.attempt,
        world=world,
        space=space,
        slides=task.slides_bucket(spec.slides.storage),
        place=checkpoint.Place(root, bucket, claim, space.scratch),
        reporter=reporter,
        metrics=metrics.TrainMetrics(),
        stop=stop,
        restarts=restarts,
    )


def _begin_round(todo: task.Task, spec: pretrain.PretrainSpec, space: workspace.Workspace) -> int:
    """Count a start, in one process of the pod; returns how many there were before.

    A lone pod whose workers fail again and again leaves a verdict: nobody else would notice. In a gang, rounds without a step are the
    others' coming and going, and the operator's to judge.
    """
    if os.environ["LOCAL_RANK"] != "0":
        return 0
    marks = workspace.begin_round(space)
    if spec.compute.nodes == 1 and is_fruitless(marks):
        why = space.failure.read_text() if space.failure.exists() else "they were killed; was there enough memory?"
        verdict.leave(verdict.fruitless(f"the workers failed {FRUITLESS_ROUNDS} times without a step: {why}", todo.run_id), space.verdict)
    space.failure.unlink(missing_ok=True)
    return len(marks) - 1


def is_fruitless(marks: Sequence[int]) -> bool:
    """Whether the last rounds all ended where they began; `marks` are the size of the file of steps at each start."""
    latest = marks[-FRUITLESS_ROUNDS - 1 :]
    return len(latest) > FRUITLESS_ROUNDS and len(set(latest)) == 1


def _stoppable(space: workspace.Workspace) -> threading.Event:
    """The event that SIGTERM sets. Where the run is over for good, there is nothing to save: the process ends at once."""
    stop = threading.Event()

    def handler(_: int, __: FrameType | None) -> None:
        left = verdict.found(space.verdict)
        if left is not None and left.ends_the_run:
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handler)
    return stop


def _remember(sentence: str, space: workspace.Workspace) -> None:
    """Keep the first failure of a round: what follows from it, such as a lost connection, is not the cause."""
    with contextlib.suppress(FileExistsError), space.failure.open("x") as file:
        file.write(sentence)


def _give_up(error: errors.PathoError, todo: task.Task, spec: pretrain.PretrainSpec, space: workspace.Workspace) -> int:
    """Leave a verdict, here and for the other pods, where trying again is pointless."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    last = verdict.of(error, todo.run_id)
    if last is None:
        _remember(str(error), space)
        return 1
    try:  # the peers first: once the verdict lies here, the agent ends this process
        if last.exit_code in names.PERMANENT_EXITS:
            verdict.publish(last, spec.checkpoints.url, todo.attempt, task.checkpoints_bucket(spec))
    finally:
        verdict.leave(last, space.verdict)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
