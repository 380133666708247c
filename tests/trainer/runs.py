"""Small real runs: specifications, a training process inside the test, and whole pods as processes."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import prometheus_client
import torch
from torch import distributed as dist

from patho_api import evaluate, launch, names, pretrain, report
from patho_trainer import checkpoint, context, distributed, fencing, metrics, progress, workspace
from patho_trainer.data import storage
from tests.trainer import slides

RUN_ID = "uid-1"
PATIENCE_SECONDS = 240.0


def spec(folder: pathlib.Path | str, **changes: Any) -> pretrain.PretrainSpec:
    """A tiny DINO run on the real slide, with index and checkpoints in `folder`; `changes` by dotted path, with `__` for dots."""
    body: dict[str, Any] = {
        "model": {"architecture": "vit_tiny_patch16_224"},
        "slides": {"source": str(slides.CMU), "index": f"{folder}/index"},
        "patches": {"sizePx": 64, "magnifications": [{"mpp": 0.5}, {"mpp": 1.0}]},
        "training": {
            "steps": 6,
            "batchSize": 4,
            "precision": "Float32",
            "prototypes": 64,
            "headHiddenWidth": 32,
            "headBottleneckWidth": 16,
            "monitorEverySteps": 1000,
            "crops": {"globalSizePx": 64, "localSizePx": 32, "localCount": 2},
        },
        "checkpoints": {"url": f"{folder}/run", "everySteps": 2},
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = body
        for name in parents:
            place = place.setdefault(name, {})
        place[last] = value
    return pretrain.PretrainSpec.model_validate(body)


@contextlib.contextmanager
def process(wanted: pretrain.PretrainSpec, folder: pathlib.Path, bucket: storage.Bucket | None = None) -> Iterator[context.Context]:
    """A world of one process, inside the test."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        world = distributed.World(rank=0, size=1, local_rank=0, node_rank=0, device=torch.device("cpu"))
        with context_in(world, wanted, folder, bucket or storage.Bucket()) as ctx:
            yield ctx
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def context_in(
    world: distributed.World, wanted: pretrain.PretrainSpec, folder: pathlib.Path, bucket: storage.Bucket
) -> Iterator[context.Context]:
    """What a process of `world` is given; all processes call it."""
    space = workspace.Workspace(folder / "space")
    space.folder.mkdir(parents=True, exist_ok=True)
    claim = distributed.on_first(world, lambda: fencing.claim(wanted.checkpoints.url, 1, bucket))
    yield context.Context(
        spec=wanted,
        run_id=RUN_ID,
        attempt=1,
        world=world,
        space=space,
        slides=bucket,
        place=checkpoint.Place(wanted.checkpoints.url, bucket, claim, space.scratch),
        reporter=progress.Reporter(space, RUN_ID, enabled=world.reports),
        metrics=metrics.TrainMetrics(prometheus_client.CollectorRegistry()),
        stop=threading.Event(),
    )


def steps(folder: pathlib.Path) -> list[dict[str, Any]]:
    """What a workspace's file says about each step."""
    file = workspace.Workspace(folder).steps
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@dataclasses.dataclass
class Pod:
    """The entrypoint as a process."""

    popen: subprocess.Popen[str]
    folder: pathlib.Path
    port: int
    node: int

    @property
    def space(self) -> pathlib.Path:
        return self.folder / f"patho-{RUN_ID}-{self.node}"

    def get(self, path: str) -> bytes:
        """What it serves."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
            return bytes(answer.read())

    def wait_for(self, condition: Callable[[report.ProgressReport], bool]) -> report.ProgressReport:
        """Until its progress is as wanted; as long as there is any, however slow."""
        end, before = time.monotonic() + PATIENCE_SECONDS, None
        while time.monotonic() < end:
            assert self.popen.poll() is None, f"the pod ended with {self.popen.returncode} before"
            found = progress.read(workspace.Workspace(self.space))
            if found and condition(found):
                return found
            if found and (found.stage, found.step) != before:
                end, before = time.monotonic() + PATIENCE_SECONDS, (found.stage, found.step)
            time.sleep(0.02)
        raise AssertionError(f"no progress in {PATIENCE_SECONDS:.0f} s")

    def worker_pid(self, rank: int) -> int:
        """The process of a rank."""
        for environ in pathlib.Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                text = environ.read_bytes()
                if f"PATHO_SCRATCH_DIR={self.folder}\0".encode() in text and f"\0RANK={rank}\0".encode() in text:
                    return int(environ.parent.name)
        raise AssertionError(f"no process has rank {rank}")

    @contextlib.contextmanager
    def held(self, rank: int) -> Iterator[None]:
        """While a worker stands still, and with it all that train together: others may take their time to look."""
        pid = self.worker_pid(rank)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """As a node that loses power."""
        self.popen.send_signal(signal.SIGKILL)
        self.popen.wait(PATIENCE_SECONDS)

    def stop(self, after: int) -> report.LastWords:
        """Stop it as a node does that is drained, after a step later than `after`; its last words."""
        self.wait_for(lambda now: now.stage == "Training" and now.step > after)
        self.popen.terminate()
        code, words = self.end()
        assert code == names.EXIT_STOPPED
        return words

    def end(self) -> tuple[int, report.LastWords]:
        """Wait for its end: exit code and last words."""
        code = self.popen.wait(PATIENCE_SECONDS)
        return code, report.LastWords.model_validate_json((self.folder / "words").read_bytes())


@contextlib.contextmanager
def pod(wanted: pretrain.PretrainSpec | evaluate.EvalSpec, folder: pathlib.Path, *, node: int = 0, rank0: str = "") -> Iterator[Pod]:
    """Pod `node` of a run of `wanted`, which finds pod 0 at `rank0`; killed in the end if it still runs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "words").unlink(missing_ok=True)
    env = os.environ | {
        names.ENV_SPEC: launch.spec_json(wanted),
        names.ENV_ATTEMPT: "1",
        names.ENV_SCRATCH_DIR: str(folder),
        names.ENV_TERMINATION_LOG: str(folder / "words"),
        names.ENV_METRICS_PORT: "0",
        names.ENV_RANK0_HOST: rank0,
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "OMP_NUM_THREADS": "1",
    }
    action = "evaluate" if isinstance(wanted, evaluate.EvalSpec) else "pretrain"
    command = [sys.executable, "-m", "patho_trainer", action, "--run-id", RUN_ID, "--node-rank", str(node)]
    command += ["--rank0-env", names.ENV_RANK0_HOST]
    with (
        (folder / "log").open("a") as log,
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=log, text=True) as popen,
    ):
        assert popen.stdout is not None
        port = re.search(r"port (\d+)$", popen.stdout.readline())
        threading.Thread(target=log.writelines, args=(popen.stdout,), daemon=True).start()
        try:
            yield Pod(popen, folder, int(port[1]) if port else 0, node)
        finally:
            if popen.poll() is None:
                popen.kill()
