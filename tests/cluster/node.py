"""A real node on this machine: Debian's containerd, a kubelet, CoreDNS, and images made from the interpreter at hand."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import urllib.error
import urllib.request

from tests.cluster import controlplane, images, leftovers, network, tools, waiting
from tests.cluster.cluster import condition
from tests.cluster.controlplane import ControlPlane

MANIFESTS = pathlib.Path(__file__).parent / "manifests"
NAME = "real-0"
TAINT = "test.pathoscale.dev/real"  # fake and real nodes live in one cluster: pods that do not ask for this one stay away
TOLERATION = {"key": TAINT, "operator": "Exists"}
SELECTOR = {"kubernetes.io/hostname": NAME}
COMMANDS = {  # command -> Debian package
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "ip": "iproute2",
    "/bin/busybox": "busybox-static",
}


def missing_packages() -> list[str]:
    """Debian packages that a real node needs and that are not installed."""
    return sorted({package for command, package in COMMANDS.items() if not shutil.which(command)})


def reason_against() -> str:
    """Why no real node can run here; empty if one can."""
    if os.getuid() != 0:
        return "a real node needs root"
    if pathlib.Path("/var/lib/kubelet/config.yaml").exists():
        return "this machine is a Kubernetes node already: a second kubelet would disturb it"
    if packages := missing_packages():
        return f"a real node needs packages that are not installed: apt-get install --no-install-recommends {' '.join(packages)}"
    return ""


@dataclasses.dataclass(frozen=True)
class Node:
    """The running node."""

    plane: ControlPlane
    network: network.Network


def start(plane: ControlPlane) -> Node:
    """Start the node and wait until it is ready and names resolve. `leftovers.remove` ends and removes everything."""
    net = plane.network
    network.up(net, plane.port)
    leftovers.make_cgroups(net.name)
    ports = {"kubelet": controlplane.free_port(), "coredns": controlplane.free_port()}
    _write_configuration(plane, ports)
    plane.processes.start("containerd", ["containerd", "--config", net.folder / "containerd.toml"])
    waiting.until(lambda: plane.processes.check("containerd") and _ctr(net, "version"), what="containerd answers")
    _import_images(net)
    _start_kubelet(plane)
    _start_coredns(plane)
    waiting.until(lambda: _is_ready(plane), what="node ready", seconds=60)
    waiting.until(lambda: plane.processes.check("coredns") and _answers(ports["coredns"]), what="CoreDNS ready", seconds=60)
    return Node(plane, net)


def _write_configuration(plane: ControlPlane, ports: dict[str, int]) -> None:
    net, folder = plane.network, plane.network.folder
    values = {"FOLDER": str(folder), "PAUSE": images.PAUSE, "NAME": net.name, "GATEWAY": net.gateway, "PKI": str(plane.authority.folder)}
    for name, port in (("containerd.toml", 0), ("kubelet.yaml", ports["kubelet"]), ("Corefile", ports["coredns"])):
        text = (MANIFESTS / name).read_text()
        for key, value in {**values, "PORT": str(port)}.items():
            text = text.replace(f"@{key}@", value)
        (folder / name).write_text(text)
    (folder / "resolv.conf").write_text(f"nameserver {net.gateway}\n")
    (folder / "cni").mkdir()
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(_cni(net)))


def _cni(net: network.Network) -> dict[str, object]:
    """`isDefaultGateway` beside a default route fails ("file exists"); the route alone does."""
    addresses = {
        "type": "host-local",
        "dataDir": str(net.folder / "ipam"),
        "ranges": [[{"subnet": net.pods, "rangeStart": net.first_pod, "gateway": net.gateway}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": net.name, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": net.name, "plugins": [bridge]}


def _import_images(net: network.Network) -> None:
    for name, make in (("pause", images.pause), ("pathoscale", images.pathoscale)):
        archive = net.folder / f"{name}.tar"
        make(archive)
        if not _ctr(net, "--namespace=k8s.io", "images", "import", str(archive)):
            raise RuntimeError(f"containerd does not take {archive}")
        archive.unlink()


def _start_kubelet(plane: ControlPlane) -> None:
    net = plane.network
    user = f"system:node:{NAME}"
    plane.client("kubelet", user, "system:nodes")
    plane.authority.server("kubelet-server", user, [NAME, net.gateway], "system:nodes")
    plane.processes.start(
        "kubelet",
        [
            tools.path("kubelet"),
            f"--config={net.folder / 'kubelet.yaml'}",
            f"--kubeconfig={plane.folder / 'kubelet.kubeconfig'}",
            f"--hostname-override={NAME}",
            f"--node-ip={net.gateway}",
            f"--root-dir={net.folder / 'kubelet'}",
            f"--cert-dir={net.folder / 'kubelet' / 'pki'}",
            f"--register-with-taints={TAINT}=:NoSchedule",
        ],
    )


def _start_coredns(plane: ControlPlane) -> None:
    plane.client("coredns", "coredns")
    plane.cluster.kubectl("apply", "-f", str(MANIFESTS / "coredns-rbac.yaml"))
    plane.processes.start("coredns", [tools.path("coredns"), "-conf", plane.network.folder / "Corefile"])


def _is_ready(plane: ControlPlane) -> bool:
    plane.processes.check("kubelet")
    found = [n for n in plane.cluster.list("nodes") if n["metadata"]["name"] == NAME]
    return bool(found) and condition(found[0], "Ready").get("status") == "True"


def _ctr(net: network.Network, *arguments: str) -> bool:
    command = ["ctr", "--connect-timeout=2s", f"--address={net.folder / 'containerd.sock'}", *arguments]
    return subprocess.run(command, capture_output=True).returncode == 0


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


if __name__ == "__main__":
    print(" ".join(missing_packages()))  # for the script that runs the tests: what to install
