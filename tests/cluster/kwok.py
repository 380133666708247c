"""Fake nodes with eight GPUs each; their pods end when an annotation says so (manifests/kwok-stages.yaml)."""

import pathlib

from tests.cluster import controlplane, tools, waiting
from tests.cluster.cluster import Cluster, Manifest, condition
from tests.cluster.processes import Processes

STAGES = pathlib.Path(__file__).parent / "manifests" / "kwok-stages.yaml"
LABELS = {"type": "kwok"}
KIND = "test.pathoscale.dev/kind"  # label: whose process keeps the node alive
EXIT_CODE = "test.pathoscale.dev/exit-code"
RUN_FOR = "test.pathoscale.dev/run-for"
LAST_WORDS = "test.pathoscale.dev/last-words"
PODS = "127.99.0.1/16"  # pods' addresses are on the loopback: what talks to a fake pod is refused at once, nothing leaves the machine


def start(processes: Processes, kubeconfig: pathlib.Path, *, kind: str = "fake", lease_seconds: int = 40, cidr: str = PODS) -> None:
    """Start a kwok controller for the nodes of one kind; it needs the rights of an administrator. To kill it is to kill these nodes."""
    processes.start(
        process_name(kind),
        [
            tools.path("kwok"),
            f"--kubeconfig={kubeconfig}",
            "--manage-all-nodes=false",
            f"--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node={kind}",
            f"--node-lease-duration-seconds={lease_seconds}",
            f"--server-address=127.0.0.1:{controlplane.free_port()}",
            f"--cidr={cidr}",
            f"--config={STAGES}",
        ],
    )


def process_name(kind: str) -> str:
    """Name of the process that keeps the nodes of a kind alive."""
    return f"kwok-{kind}"


def add_nodes(cluster: Cluster, number: int, *, kind: str = "fake", pods: int = 110) -> list[str]:
    """Add nodes of a kind, labelled with it, and wait until they take pods; their names."""
    names = [f"{'kwok' if kind == 'fake' else kind}-{i}" for i in range(number)]
    cluster.apply(*[_node(name, kind, pods) for name in names])
    waiting.until(lambda: len(_ready(cluster, kind)) >= number, what=f"{number} nodes ready, {kind}")
    return names


def remove_nodes(cluster: Cluster) -> None:
    """Remove the fake nodes (of a cluster that goes on)."""
    cluster.kubectl("delete", "nodes", "--selector=type=kwok", "--ignore-not-found")


def end_pod(cluster: Cluster, pod: str, exit_code: int, last_words: str = "") -> None:
    """Let a fake pod end now."""
    cluster.kubectl("annotate", "pod", pod, f"{LAST_WORDS}={last_words}", f"{EXIT_CODE}={exit_code}", "--overwrite")


def _node(name: str, kind: str, pods: int) -> Manifest:
    size = {"cpu": "96", "memory": "1Ti", "pods": str(pods), "nvidia.com/gpu": "8", "ephemeral-storage": "4Ti"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": kind, "node.alpha.kubernetes.io/ttl": "0"},
            "labels": LABELS | {KIND: kind, "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
        },
        "status": {"allocatable": size, "capacity": size},
    }


def _ready(cluster: Cluster, kind: str) -> list[Manifest]:
    """Nodes that are ready and said to be so: a new node keeps a taint until the node controller has seen its condition."""
    return [
        node
        for node in cluster.list("nodes", f"{KIND}={kind}")
        if condition(node, "Ready").get("status") == "True" and not node["spec"].get("taints")
    ]
