"""Fake nodes with eight GPUs each; their pods end when an annotation says so (manifests/kwok-stages.yaml)."""

import pathlib

from tests.cluster import controlplane, tools, waiting
from tests.cluster.cluster import Cluster, Manifest
from tests.cluster.processes import Processes

STAGES = pathlib.Path(__file__).parent / "manifests" / "kwok-stages.yaml"
LABELS = {"type": "kwok"}
EXIT_CODE = "test.pathoscale.dev/exit-code"
RUN_FOR = "test.pathoscale.dev/run-for"
LAST_WORDS = "test.pathoscale.dev/last-words"
PODS = "127.99.0.1/16"  # pods' addresses are on the loopback: what talks to a fake pod is refused at once, nothing leaves the machine


def start(processes: Processes, kubeconfig: pathlib.Path) -> None:
    """Start the kwok controller; it needs the rights of an administrator."""
    processes.start(
        "kwok",
        [
            tools.path("kwok"),
            f"--kubeconfig={kubeconfig}",
            "--manage-all-nodes=false",
            "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake",
            "--node-lease-duration-seconds=40",
            f"--server-address=127.0.0.1:{controlplane.free_port()}",
            f"--cidr={PODS}",
            f"--config={STAGES}",
        ],
    )


def add_nodes(cluster: Cluster, number: int) -> None:
    """Add fake nodes and wait until they are ready."""
    cluster.apply(*[_node(f"kwok-{i}") for i in range(number)])
    waiting.until(lambda: len(_ready(cluster)) >= number, what=f"{number} fake nodes ready")


def remove_nodes(cluster: Cluster) -> None:
    """Remove the fake nodes (of a cluster that goes on)."""
    cluster.kubectl("delete", "nodes", "--selector=type=kwok", "--ignore-not-found")


def end_pod(cluster: Cluster, pod: str, exit_code: int, last_words: str = "") -> None:
    """Let a fake pod end now."""
    cluster.kubectl("annotate", "pod", pod, f"{LAST_WORDS}={last_words}", f"{EXIT_CODE}={exit_code}", "--overwrite")


def _node(name: str) -> Manifest:
    size = {"cpu": "96", "memory": "1Ti", "pods": "110", "nvidia.com/gpu": "8", "ephemeral-storage": "4Ti"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": LABELS | {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"},
        },
        "status": {"allocatable": size, "capacity": size},
    }


def _ready(cluster: Cluster) -> list[Manifest]:
    conditions = [c for node in cluster.list("nodes", "type=kwok") for c in node["status"].get("conditions", [])]
    return [c for c in conditions if c["type"] == "Ready" and c["status"] == "True"]
