"""Entrypoint of a pod: `python -m patho_trainer pretrain|evaluate --run-id ID --node-rank K --rank0-env NAME`.

Checks what can be checked first, then trains (through torchrun's agent) or evaluates (here), while it serves metrics and progress.
However it ends, it says why: an exit code of `patho_api.names`, a sentence, and the termination message.
"""

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from patho_api import evaluate, names, pretrain
from patho_api.report import LastWords
from patho_trainer import errors, lastwords, metrics, progress, server, task, verdict, workspace
from patho_trainer.data import storage

Ending = tuple[LastWords, int]


def main(arguments: list[str]) -> int:
    """Run the pod's task; returns the exit code."""
    signal.signal(signal.SIGTERM, _stop)  # Python as process 1 of a container would ignore it
    try:
        words, code = _run(task.read(arguments))
    except errors.PathoError as error:
        words, code = LastWords(reason=error.reason, message=_short(error)), error.exit_code
    except Exception as error:
        traceback.print_exc()
        words, code = LastWords(reason="Crashed", message=_short(f"{type(error).__name__}: {error}")), 1
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print(f"{words.reason}: {words.message}", file=sys.stderr if code else sys.stdout, flush=True)
    lastwords.say(words)
    return code


def _run(todo: task.Task) -> Ending:
    space = workspace.at(todo.run_id, todo.node_rank)
    shutil.rmtree(space.folder, ignore_errors=True)
    space.folder.mkdir(parents=True)
    metrics.prepare(space.metrics)
    port = server.start(space, int(os.environ.get(names.ENV_METRICS_PORT, names.PORT_METRICS))).server_port
    print(f"run {todo.run_id}, attempt {todo.attempt}, pod {todo.node_rank}: metrics and progress on port {port}", flush=True)
    if isinstance(todo.spec, pretrain.PretrainSpec):
        return _pretrain(todo, todo.spec, space)
    return _evaluate(todo, todo.spec, space)


def _pretrain(todo: task.Task, spec: pretrain.PretrainSpec, space: workspace.Workspace) -> Ending:
    from patho_trainer import preflight  # it imports torch: what comes before should not wait for it

    reporter = progress.Reporter(space, todo.run_id, enabled=todo.node_rank == 0)
    reporter.tell(total_steps=spec.training.steps)
    preflight.check(todo, spec)
    root, bucket = spec.checkpoints.url, task.checkpoints_bucket(spec)
    end = _launch("patho_trainer.worker", "pretrain", todo, space, lambda: verdict.published(root, todo.attempt, todo.run_id, bucket))
    return _ending(end, space)


def _launch(
    module: str, command: str, todo: task.Task, space: workspace.Workspace, peers: Callable[[], verdict.Verdict | None]
) -> verdict.Verdict | None:
    """Run the workers of this pod to their end; why they ended, None where they did what was asked."""
    from patho_trainer import cores, launcher

    gang = launcher.gang(todo, todo.spec.compute)
    if gang.nodes > 1:
        launcher.wait_for_rank0(gang)
    os.environ.setdefault("OMP_NUM_THREADS", str(cores.here(todo.spec.compute)))
    worker = ["-m", module, command, "--run-id", todo.run_id, "--node-rank", str(todo.node_rank)]
    return launcher.run(gang, space, worker, peers)


def _ending(end: verdict.Verdict | None, space: workspace.Workspace) -> Ending:
    """Last words of a pretraining pod, with what its progress report knows."""
    last = progress.read(space)
    facts = {} if last is None else {"step": last.step, "checkpoint": last.checkpoint}
    if end is None:
        where = f"; the last checkpoint is {last.checkpoint.url}" if last and last.checkpoint else ""
        return LastWords(reason="Completed", message=f"all steps are done{where}", **facts), names.EXIT_DONE
    return LastWords(reason=end.reason, message=_short(end.message), **facts), end.exit_code


def _evaluate(todo: task.Task, spec: evaluate.EvalSpec, space: workspace.Workspace) -> Ending:
    from patho_trainer import nomination, preflight

    bucket = task.slides_bucket(spec.storage)
    preflight.check_evaluation(spec, bucket)
    if spec.compute.nodes * spec.compute.processes_per_node == 1:
        words, code = _evaluate_here(todo, spec, space, bucket), names.EXIT_DONE
    else:
        words, code = _evaluate_together(todo, spec, space, bucket)
    nomination.nominate(words, spec.model.url, os.environ.get(names.ENV_BEST_BY, ""), bucket)
    return words, code


def _evaluate_here(todo: task.Task, spec: evaluate.EvalSpec, space: workspace.Workspace, bucket: storage.Bucket) -> LastWords:
    from patho_trainer.evaluation import run

    reporter = progress.Reporter(space, todo.run_id, enabled=True)
    words = run.evaluate(spec, bucket, progress=lambda stage, done, total: reporter.tell(stage=stage, step=done, total_steps=total))
    reporter.flush()
    assert words is not None, "the only process reports"
    return words


def _evaluate_together(todo: task.Task, spec: evaluate.EvalSpec, space: workspace.Workspace, bucket: storage.Bucket) -> Ending:
    def peers() -> verdict.Verdict | None:
        return verdict.published(spec.results, todo.attempt, todo.run_id, bucket)

    end = _launch("patho_trainer.evaluation.worker", "evaluate", todo, space, peers)
    if end is not None:
        message = "stopped; the features so far are kept" if end.exit_code == names.EXIT_STOPPED else _short(end.message)
        return LastWords(reason=end.reason, message=message), end.exit_code
    if space.words.exists():
        return LastWords.model_validate_json(space.words.read_bytes()), names.EXIT_DONE
    return LastWords(reason="Completed", message="its share of the features is done; the scores are pod 0's"), names.EXIT_DONE


def _stop(_: int, __: FrameType | None) -> None:
    raise errors.Stopped("stopped; nothing was lost")


def _short(error: object) -> str:
    return str(error)[:2048]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
