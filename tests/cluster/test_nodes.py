"""Two real nodes, one of which loses power, or its kubelet alone: the shipped podFailurePolicy replaces a pod only once it is Failed, and
who would say so is gone."""

import time
from collections.abc import Iterator

import pytest

from patho_api import names
from tests.cluster import node, runs, waiting
from tests.cluster.cluster import Cluster, Manifest
from tests.cluster.laboratory import compute
from tests.cluster.test_disturbed import COMMON, TRAINING, Run, processes

pytestmark = [pytest.mark.node, pytest.mark.chaos, pytest.mark.timeout(1500)]

PATIENCE_SECONDS = 400
GRACE_SECONDS, TOLERATED_SECONDS = 10, 5  # the default toleration of a node that does not answer is 5 min
UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATED_SECONDS}


@pytest.fixture
def doomed(real_node: node.Node, lab: Cluster) -> Iterator[node.Node]:
    """A second node beside the first."""
    second = node.start_another(real_node, 1)
    yield second
    second.lose_power()
    real_node.plane.cluster.kubectl("delete", "node", second.name)


def pretrain(server: str, name: str) -> Manifest:
    """Two pods on any real node, each on its own if it can be."""
    shape = compute(nodes=2)
    for replaced in ("nodeSelector", "tolerations"):
        del shape["podTemplate"]["spec"][replaced]
    shape["tolerations"] = [node.TOLERATION, UNREACHABLE]
    mine = {"labelSelector": {"matchLabels": {names.LABEL_RUN: name}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": mine}]}
    shape["podTemplate"]["spec"]["affinity"] = {"podAntiAffinity": apart}
    storage = {"endpoint": server, "anonymous": True}
    spec = COMMON | {
        "slides": {"source": "gs://slides/", "index": f"gs://work/index-{name}", "storage": storage},
        "training": TRAINING,
        "checkpoints": {"url": f"gs://work/runs/{name}", "everySteps": 5},
        "compute": shape,
        "runPolicy": {"gracePeriodSeconds": GRACE_SECONDS, "reformTimeoutSeconds": 900},
    }
    return runs.resource(names.PRETRAIN, name, spec)


def progress(lab: Cluster, run: str) -> tuple[int, str]:
    """(step, since when the run has been Running) as the status tells it; (0, "") while it does not run."""
    status = lab.get("ppt", run).get("status", {})
    running = next((c for c in status.get("conditions", []) if c["type"] == "Running" and c["status"] == "True"), None)
    return (status.get("progress", {}).get("step", 0), running["lastTransitionTime"]) if running else (0, "")


def test_a_gang_trains_again_after_a_node_has_lost_power(lab: Cluster, bucket: str, doomed: node.Node):
    lab.apply(pretrain(bucket, "bereft"))
    waiting.until(lambda: progress(lab, "bereft")[0] > 5, what="steps", seconds=PATIENCE_SECONDS)
    first, since = progress(lab, "bereft")
    pods = {pod["spec"]["nodeName"]: pod for pod in runs.pods(lab, "bereft")}
    assert set(pods) == {node.NAME, doomed.name}
    begin, lost = time.monotonic(), pods[doomed.name]
    doomed.lose_power()
    waiting.until(lambda: runs.uid(lost) not in map(runs.uid, runs.pods(lab, "bereft")), what="the lost pod goes", seconds=PATIENCE_SECONDS)
    gone = time.monotonic()
    runs.running(lab, "bereft", 2, seconds=PATIENCE_SECONDS)
    placed = time.monotonic()
    waiting.until(lambda: (now := progress(lab, "bereft"))[0] > first and now[1] > since, what="new steps", seconds=PATIENCE_SECONDS)
    print(
        f"\nnode of index {runs.index(lost)} lost: its pod was written off after {gone - begin:.0f} s, all pods ran "
        f"{placed - gone:.0f} s later, and a new step was shown {time.monotonic() - placed:.0f} s after that"
    )
    status = lab.get("ppt", "bereft")["status"]
    assert (status["attempt"], status["restarts"]) == (1, 0)
    lab.kubectl("delete", "ppt", "bereft")


def test_a_gang_whose_pod_lives_on_under_a_dead_kubelet_goes_on_and_is_whole_once_the_kubelet_is_back(
    lab: Cluster, bucket: str, doomed: node.Node
):
    """The pod is written off and has a successor, while its container still trains with the others. The kubelet that comes back ends the
    container, and the successor takes its place; nothing of it counts as an incident."""
    lab.kubectl("cordon", doomed.name)
    lab.apply(pretrain(bucket, "orphan"))
    runs.running(lab, "orphan", 2, seconds=PATIENCE_SECONDS)
    lab.kubectl("uncordon", doomed.name)
    lab.kubectl("delete", "pod", next(p["metadata"]["name"] for p in runs.pods(lab, "orphan") if runs.index(p) == 1))
    lost = waiting.until(lambda: on_node(lab, doomed.name), what="a pod on the doomed node", seconds=PATIENCE_SECONDS)
    first = waiting.until(lambda: progress(lab, "orphan")[0], what="steps", seconds=PATIENCE_SECONDS)
    waiting.until(lambda: progress(lab, "orphan")[0] > first, what="more steps", seconds=PATIENCE_SECONDS)
    before, begin = lab.get("ppt", "orphan")["status"], time.monotonic()
    doomed.stop_kubelet()
    waiting.until(lambda: runs.uid(lost) not in map(runs.uid, runs.pods(lab, "orphan")), what="the lost pod goes", seconds=PATIENCE_SECONDS)
    gone = time.monotonic()
    runs.running(lab, "orphan", 2, seconds=PATIENCE_SECONDS)
    placed, uid, run = time.monotonic(), runs.uid(lab.get("ppt", "orphan")), Run(lab, "orphan")
    assert len(processes(uid, 1, "patho_trainer")) == 2
    doomed.start_kubelet()
    waiting.until(lambda: len(processes(uid, 1, "patho_trainer")) == 1, what="end of the old container", seconds=PATIENCE_SECONDS)
    ended, reached = time.monotonic(), run.step()  # from here on none is made without the successor
    run.beyond(reached)
    print(f"\nkubelet gone: its pod was written off after {gone - begin:.0f} s, its successor ran {placed - gone:.0f} s later", end="")
    print(f"; kubelet back: the old container ended, and a step beyond {reached} was made {time.monotonic() - ended:.0f} s later")
    status = lab.get("ppt", "orphan")["status"]
    assert (status["attempt"], status["restarts"]) == (before["attempt"], before["restarts"])
    lab.kubectl("delete", "ppt", "orphan")


def on_node(lab: Cluster, name: str) -> Manifest | None:
    """The running pod of the run on a node."""
    found = [p for p in runs.pods(lab, "orphan") if p["spec"].get("nodeName") == name and p["status"]["phase"] == "Running"]
    return found[0] if found else None
