"""One run of three real pods that is disturbed in every way that a node offers: in the end its losses are those of an undisturbed run."""

import datetime
import json
import math
import os
import pathlib
import re
import signal
import time
from collections.abc import Callable

import pytest

from patho_api import names
from patho_api.pretrain import PretrainSpec
from patho_operator import observed
from tests.cluster import release, runs, waiting
from tests.cluster.cluster import Cluster, Manifest, condition
from tests.cluster.laboratory import SLIDE, compute
from tests.trainer import runs as local

pytestmark = [pytest.mark.node, pytest.mark.slow, pytest.mark.timeout(1500)]

PATIENCE_SECONDS = 300
TRAINING = {
    "steps": 100_000,
    "batchSize": 6,
    "precision": "Float32",
    "crops": {"globalSizePx": 32, "localSizePx": 16, "localCount": 2},
    "prototypes": 256,
    "headHiddenWidth": 64,
    "headBottleneckWidth": 32,
}
COMMON = {"model": {"architecture": "vit_tiny_patch16_224"}, "patches": {"sizePx": 64, "magnifications": [{"mpp": 0.5}, {"mpp": 1.0}]}}


def pretrain(server: str) -> Manifest:
    storage = {"endpoint": server, "anonymous": True}
    spec = COMMON | {
        "slides": {"source": "gs://slides/", "index": "gs://work/index-disturbed", "storage": storage},
        "training": TRAINING,
        "checkpoints": {"url": "gs://work/runs/disturbed", "everySteps": 5},
        "compute": compute(nodes=3),
        "runPolicy": {"gracePeriodSeconds": 60, "reformTimeoutSeconds": 900},  # a busy machine takes minutes to import torch
    }
    return runs.resource(names.PRETRAIN, "disturbed", spec)


class Run:
    """The run, as seen through its pods and their processes on this machine."""

    def __init__(self, cluster: Cluster, name: str):
        self.cluster, self.name = cluster, name
        self.losses: dict[int, list[float]] = {}

    def status(self) -> Manifest:
        return self.cluster.get("ppt", self.name).get("status", {})

    def condition(self, kind: str) -> str:
        """Status of one of its conditions."""
        return condition(self.cluster.get("ppt", self.name), kind).get("status", "")

    def pod(self, index: int) -> str:
        """Name of the running pod of an index."""
        found = [p for p in runs.pods(self.cluster, self.name) if runs.index(p) == index and p["status"]["phase"] == "Running"]
        return found[-1]["metadata"]["name"] if found else ""

    def started(self) -> float:
        """When the trainer of the newest running pod began, by this machine's clock; the kubelet says it in whole seconds."""
        found = [observed.pod(pod) for pod in runs.pods(self.cluster, self.name)]
        return max((pod.started.timestamp() for pod in found if pod.running and pod.started), default=0.0)

    def process(self, index: int, module: str) -> int:
        """The process of a pod on this machine, once there is one: `patho_trainer` is the container's, `patho_trainer.worker` trains."""
        return waiting.until(lambda: self._process(index, module), what=f"{module} in pod {index}", seconds=PATIENCE_SECONDS)

    def _process(self, index: int, module: str) -> int:
        found = processes(runs.uid(self.cluster.get("ppt", self.name)), index, module)
        return found[0] if found else 0

    def step(self) -> int:
        """The newest step, after noting all losses that pod 0 knows; 0 while it knows none."""
        code = "import glob; print(open(glob.glob('/tmp/patho-*/steps.jsonl')[0]).read())"
        try:
            lines = self.cluster.kubectl("exec", self.pod(0), "--", "python", "-c", code).splitlines()
        except RuntimeError:
            return 0
        entries = [json.loads(line) for line in lines if line.endswith("}")]
        for entry in entries:
            self.losses.setdefault(entry["step"], []).append(entry["loss"])
        return entries[-1]["step"] if entries else 0

    def trained(self, since: float) -> float:
        """When pod 0 first said, after `since`, that it had made a step, perhaps one that had been made before; it says so of the first
        step of each round."""
        lines = self.cluster.kubectl("logs", "--timestamps", self.pod(0)).splitlines()
        said = [line.partition(" ")[0] for line in lines if re.match(r"\S+ step \d+/", line)]
        return next(when for text in said if (when := datetime.datetime.fromisoformat(text[:26] + "+00:00").timestamp()) > since)

    def beyond(self, step: int) -> int:
        """Wait for a later step."""
        return waiting.until(
            lambda: found if (found := self.step()) > step else 0, what=f"a step after {step}", seconds=PATIENCE_SECONDS, interval_seconds=1
        )


def processes(uid: str, index: int, module: str) -> list[int]:
    """Processes of this machine that run a module for one index of a run's attempts, in whatever pod."""
    found = []
    for file in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().decode().split("\0")
        except OSError:
            continue
        mine = any(w.startswith(uid) for w in words) and "--node-rank" in words and words[words.index("--node-rank") + 1] == str(index)
        if mine and module in words:
            found.append(int(file.parent.name))
    return found


def test_a_run_of_three_pods_survives_everything_with_the_losses_of_an_undisturbed_one(lab: Cluster, bucket: str, tmp_path: pathlib.Path):
    lab.apply(pretrain(bucket))
    run = Run(lab, "disturbed")
    run.beyond(5)
    acts: dict[str, Callable[[], object]] = {
        "a worker process is killed": lambda: kill_worker(run),
        "a container is killed": lambda: replace(run, 1, lambda: os.kill(run.process(1, "patho_trainer"), signal.SIGKILL)),
        "pod 2 is deleted": lambda: replace(run, 2, lambda: delete(run, 2)),
        "pod 0 is deleted": lambda: replace(run, 0, lambda: delete(run, 0)),
    }
    for name, act in acts.items():
        disturb(run, name, act)
    restart = lab.inside(release.NAMESPACE)
    disturb(run, "the operator is restarted", lambda: restart.kubectl("delete", "pods", "--all", "--wait=false"), harmless=True)
    assert run.status()["attempt"] == 1
    disturb(run, "a worker stands still", lambda: stall(run))
    disturb(run, "suspended and resumed", lambda: suspend_and_resume(run))
    assert run.status()["attempt"] == 3
    change(lab, {"suspend": True})
    runs.wait_for(lab, "disturbed", "Suspended", seconds=PATIENCE_SECONDS)
    expected = undisturbed(tmp_path, max(run.losses))
    assert all(math.isclose(loss, expected[step], rel_tol=1e-3) for step, losses in run.losses.items() for loss in losses)


def disturb(run: Run, name: str, act: Callable[[], object], *, harmless: bool = False) -> None:
    """Do something to the run, and tell how long it took until a step was made that it had not made before, and when it trained again."""
    reached, begin = run.step(), time.time()
    act()
    reached = max(reached, run.step())  # some may have been made until the act struck
    run.beyond(reached)
    told = f"a step beyond {reached} after {time.time() - begin:.0f} s"
    if not harmless:
        since = max(begin, run.started())
        told += f", the first one {run.trained(since) - since:.1f} s after " + ("the last pod began to run" if since > begin else "the act")
    print(f"\n{name}: {told}", flush=True)


def change(cluster: Cluster, policy: dict) -> None:
    cluster.kubectl("patch", "ppt", "disturbed", "--type=merge", "-p", json.dumps({"spec": {"runPolicy": policy}}))


def kill_worker(run: Run) -> None:
    """The agents begin another one in place."""
    old = run.process(1, "patho_trainer.worker")
    os.kill(old, signal.SIGKILL)
    waiting.until(lambda: run.process(1, "patho_trainer.worker") != old, what="another worker", seconds=PATIENCE_SECONDS)


def delete(run: Run, index: int) -> None:
    run.cluster.kubectl("delete", "pod", run.pod(index), "--grace-period=0", "--force", "--wait=false")


def replace(run: Run, index: int, act: Callable[[], object]) -> None:
    """Do what costs a pod, and wait for the next one: until then the others may still make steps."""
    old = run.pod(index)
    act()
    waiting.until(lambda: run.pod(index) not in ("", old), what=f"another pod {index}", seconds=PATIENCE_SECONDS)


def stall(run: Run) -> None:
    """Stop a worker in its tracks: the operator must notice, end the attempt, and begin another."""
    replace(run, 0, lambda: stop_worker(run))


def stop_worker(run: Run) -> None:
    os.kill(run.process(1, "patho_trainer.worker"), signal.SIGSTOP)
    change(run.cluster, {"stallTimeoutSeconds": 15})
    waiting.until(lambda: run.status()["attempts"][0].get("reason") == "Stalled", what="a stall", seconds=PATIENCE_SECONDS)
    change(run.cluster, {"stallTimeoutSeconds": 900})


def suspend_and_resume(run: Run) -> None:
    """All ranks save the same step and end with 143; the next attempt goes on from there."""
    change(run.cluster, {"suspend": True})
    # the phase says so from the moment that it is asked for; the condition, once all pods have saved and ended
    waiting.until(lambda: run.condition("Suspended") == "True", what="end of all pods", seconds=PATIENCE_SECONDS)
    assert run.status()["checkpoint"]["latest"]["step"] >= max(run.losses)
    change(run.cluster, {"suspend": False})


def undisturbed(folder: pathlib.Path, steps: int) -> dict[int, float]:
    """Losses by step of the same training in one process of this machine."""
    slides = {"slides": {"source": str(SLIDE), "index": f"{folder}/index"}, "checkpoints": {"url": f"{folder}/run", "everySteps": 1000}}
    with local.pod(PretrainSpec.model_validate(COMMON | slides | {"training": TRAINING}), folder) as pod:
        pod.wait_for(lambda now: now.step >= steps)
        return {entry["step"]: entry["loss"] for entry in local.steps(pod.space)}
