"""`make cluster-up`: a control plane with fake nodes that stays until `make cluster-down`."""

import os
import pathlib
import tempfile

from tests.chart import prometheus
from tests.cluster import controlplane, kwok, tools
from tests.cluster.processes import Processes

FAKE_NODES = 3


def folder() -> pathlib.Path:
    """Where the cluster lives; one for each user of the machine."""
    return pathlib.Path(tempfile.gettempdir(), f"pathoscale-cluster-{os.getuid()}")


def main() -> None:
    """Start the cluster and say how to use it."""
    if tools.missing():
        if reason := tools.reason_against_building():
            raise SystemExit(reason)
        tools.build()
    processes = Processes(folder(), outlive=True)
    if processes.pid("kube-apiserver"):
        raise SystemExit(f"the cluster is up: export KUBECONFIG={folder() / 'admin.kubeconfig'}")
    plane = controlplane.start(processes)
    kwok.start(processes, plane.cluster.kubeconfig)
    kwok.add_nodes(plane.cluster, FAKE_NODES)
    programs = [tools.path("kubectl").parent, tools.path("helm").parent, prometheus.folder()]
    shell = [f"export KUBECONFIG={plane.cluster.kubeconfig}", f"export PATH={':'.join(map(str, programs))}:$PATH"]
    (folder() / "env").write_text("\n".join(shell) + "\n")
    print(f"Kubernetes {tools.KUBERNETES} with {FAKE_NODES} fake nodes is up. In your shell, for kubectl, helm and prometheus:\n")
    print(f"  source {folder() / 'env'}\n")
    print("A fake pod runs until it is told how to end:  kubectl annotate pod NAME test.pathoscale.dev/exit-code=0")


if __name__ == "__main__":
    main()
