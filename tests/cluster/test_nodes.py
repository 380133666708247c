"""Two real nodes, one of which loses power: the shipped podFailurePolicy replaces a pod only once it is Failed, and its kubelet is gone."""

import time
from collections.abc import Iterator

import pytest

from patho_api import names
from tests.cluster import node, runs, waiting
from tests.cluster.cluster import Cluster, Manifest
from tests.cluster.laboratory import compute
from tests.cluster.test_disturbed import COMMON, TRAINING

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


def pretrain(server: str) -> Manifest:
    """Two pods on any real node, each on its own if it can be."""
    shape = compute(nodes=2)
    for replaced in ("nodeSelector", "tolerations"):
        del shape["podTemplate"]["spec"][replaced]
    shape["tolerations"] = [node.TOLERATION, UNREACHABLE]
    mine = {"labelSelector": {"matchLabels": {names.LABEL_RUN: "bereft"}}, "topologyKey": "kubernetes.io/hostname"}
    apart = {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "podAffinityTerm": mine}]}
    shape["podTemplate"]["spec"]["affinity"] = {"podAntiAffinity": apart}
    storage = {"endpoint": server, "anonymous": True}
    spec = COMMON | {
        "slides": {"source": "gs://slides/", "index": "gs://work/index-bereft", "storage": storage},
        "training": TRAINING,
        "checkpoints": {"url": "gs://work/runs/bereft", "everySteps": 5},
        "compute": shape,
        "runPolicy": {"gracePeriodSeconds": GRACE_SECONDS, "reformTimeoutSeconds": 900},
    }
    return runs.resource(names.PRETRAIN, "bereft", spec)


def progress(lab: Cluster) -> tuple[int, str]:
    """(step, since when the run has been Running) as the status tells it; (0, "") while it does not run."""
    status = lab.get("ppt", "bereft").get("status", {})
    running = next((c for c in status.get("conditions", []) if c["type"] == "Running" and c["status"] == "True"), None)
    return (status.get("progress", {}).get("step", 0), running["lastTransitionTime"]) if running else (0, "")


def test_a_gang_trains_again_after_a_node_has_lost_power(lab: Cluster, bucket: str, doomed: node.Node):
    lab.apply(pretrain(bucket))
    waiting.until(lambda: progress(lab)[0] > 5, what="steps", seconds=PATIENCE_SECONDS)
    first, since = progress(lab)
    pods = {pod["spec"]["nodeName"]: pod for pod in runs.pods(lab, "bereft")}
    assert set(pods) == {node.NAME, doomed.name}
    begin, lost = time.monotonic(), pods[doomed.name]
    doomed.lose_power()
    waiting.until(lambda: runs.uid(lost) not in map(runs.uid, runs.pods(lab, "bereft")), what="the lost pod goes", seconds=PATIENCE_SECONDS)
    gone = time.monotonic()
    runs.running(lab, "bereft", 2, seconds=PATIENCE_SECONDS)
    placed = time.monotonic()
    waiting.until(lambda: (now := progress(lab))[0] > first and now[1] > since, what="new steps", seconds=PATIENCE_SECONDS)
    print(
        f"\nnode of index {runs.index(lost)} lost: its pod was written off after {gone - begin:.0f} s, all pods ran "
        f"{placed - gone:.0f} s later, and a new step was shown {time.monotonic() - placed:.0f} s after that"
    )
    status = lab.get("ppt", "bereft")["status"]
    assert (status["attempt"], status["restarts"]) == (1, 0)
    lab.kubectl("delete", "ppt", "bereft")
