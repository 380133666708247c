"""One process of an evaluation on several: started by torchrun's agent (see `launcher`).

Whatever ends it is told to its own pod and to the others at once: nothing is lost, so a new attempt goes on from the features there are.
"""

import ctypes
import signal
import sys
import traceback

import torch

from patho_api import evaluate, names
from patho_trainer import distributed, errors, progress, task, verdict, workspace
from patho_trainer.data import storage
from patho_trainer.evaluation import run

PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> int:
    """Evaluate as the arguments and the environment say; returns the exit code."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a killed agent must not leave workers behind
    todo = task.read(arguments)
    assert isinstance(todo.spec, evaluate.EvalSpec)
    space, bucket = workspace.at(todo.run_id, todo.node_rank), task.slides_bucket(todo.spec.storage)
    try:
        _evaluate(todo, todo.spec, space, bucket)
    except errors.PathoError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        return _give_up(
            verdict.Verdict(run_id=todo.run_id, exit_code=error.exit_code, reason=error.reason, message=str(error)), todo, bucket
        )
    except Exception as error:
        traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        return _give_up(verdict.Verdict(run_id=todo.run_id, exit_code=1, reason="Crashed", message=message), todo, bucket)
    distributed.leave()
    return names.EXIT_DONE


def _evaluate(todo: task.Task, spec: evaluate.EvalSpec, space: workspace.Workspace, bucket: storage.Bucket) -> None:
    world = distributed.join(distributed.choose_device(spec.compute, torch.cuda.device_count()), todo.node_rank)
    reporter = progress.Reporter(space, todo.run_id, enabled=world.reports)

    def tell(stage: str, done: int, total: int) -> None:
        reporter.tell(stage=stage, step=done, total_steps=total)

    words = run.evaluate(spec, bucket, progress=tell, world=world)
    if words is not None:
        reporter.flush()
        workspace.replace(space.words, words.model_dump_json(by_alias=True).encode())


def _give_up(end: verdict.Verdict, todo: task.Task, bucket: storage.Bucket) -> int:
    """The peers first: once the verdict lies in the workspace, the agent ends this process."""
    assert isinstance(todo.spec, evaluate.EvalSpec)
    try:
        verdict.publish(end, todo.spec.results, todo.attempt, bucket)
    finally:
        verdict.leave(end, workspace.at(todo.run_id, todo.node_rank).verdict)
    return end.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
