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
    """A running node. Several live on this machine, on one bridge: each with a containerd, a cgroup and an address of its own."""

    plane: ControlPlane
    network: network.Network
    number: int = 0

    @property
    def name(self) -> str:
        """Of the Node object."""
        return f"real-{self.number}"

    @property
    def folder(self) -> pathlib.Path:
        """Where its files lie."""
        return self.network.folder / self.name

    @property
    def address(self) -> str:
        """Of its kubelet; the first node's is the bridge's own."""
        return self.network.address(self.number)

    @property
    def cgroup(self) -> str:
        """Holds all its pods; not below another node's, which would have to hand controllers down."""
        return f"{self.network.name}-{self.name}"

    def stop_kubelet(self) -> None:
        """The kubelet alone ends; containers go on, and nobody tells the API server."""
        self.plane.processes.kill(f"kubelet-{self.name}")

    def start_kubelet(self) -> None:
        """The kubelet comes back, and the node with it."""
        _start_kubelet(self)
        waiting.until(lambda: _is_ready(self), what=f"node {self.name} ready", seconds=60)

    def lose_power(self) -> None:
        """Kubelet, containerd and all containers end in an instant, and nobody tells the API server."""
        for process in ("kubelet", "containerd"):
            self.plane.processes.kill(f"{process}-{self.name}")
        leftovers.kill_members(self.cgroup)


def start(plane: ControlPlane) -> Node:
    """Start the first node and wait until it is ready and names resolve. `leftovers.remove` ends and removes everything."""
    net = plane.network
    network.up(net, plane.port)
    port = controlplane.free_port()
    _fill("Corefile", net.folder, GATEWAY=net.gateway, PORT=port, FOLDER=net.folder, NAME=net.name, PKI=plane.authority.folder)
    found = _start(Node(plane, net))
    _start_coredns(plane)
    waiting.until(lambda: plane.processes.check("coredns") and _answers(port), what="CoreDNS ready", seconds=60)
    return found


def start_another(first: Node, number: int) -> Node:
    """A further node beside the first one."""
    made = dataclasses.replace(first, number=number)
    network.add_address(first.network, made.address)
    return _start(made)


def _start(node: Node) -> Node:
    leftovers.make_cgroups(node.cgroup)
    _write_configuration(node)
    processes, containerd = node.plane.processes, f"containerd-{node.name}"
    processes.start(containerd, ["containerd", "--config", node.folder / "containerd.toml"])
    waiting.until(lambda: processes.check(containerd) and _ctr(node, "version"), what="containerd answers")
    _import_images(node)
    node.start_kubelet()
    return node


def _write_configuration(node: Node) -> None:
    (node.folder / "cni").mkdir(parents=True)
    _fill("containerd.toml", node.folder, FOLDER=node.folder, PAUSE=images.PAUSE)
    _fill(
        "kubelet.yaml",
        node.folder,
        FOLDER=node.folder,
        NAME=node.name,
        ADDRESS=node.address,
        PORT=controlplane.free_port(),
        CGROUP=node.cgroup,
        GATEWAY=node.network.gateway,
        PKI=node.plane.authority.folder,
    )
    (node.folder / "resolv.conf").write_text(f"nameserver {node.network.gateway}\n")
    (node.folder / "cni" / "10-pods.conflist").write_text(json.dumps(_cni(node.network)))


def _fill(name: str, folder: pathlib.Path, **values: object) -> None:
    """Write one of MANIFESTS with its @WORDS@ filled in."""
    text = (MANIFESTS / name).read_text()
    for key, value in values.items():
        text = text.replace(f"@{key}@", str(value))
    (folder / name).write_text(text)


def _cni(net: network.Network) -> dict[str, object]:
    """`isDefaultGateway` beside a default route fails ("file exists"); the route alone does. All nodes share the addresses."""
    addresses = {
        "type": "host-local",
        "dataDir": str(net.folder / "ipam"),
        "ranges": [[{"subnet": net.pods, "rangeStart": net.first_pod, "gateway": net.gateway}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {"type": "bridge", "bridge": net.name, "isGateway": True, "hairpinMode": True, "ipam": addresses}
    return {"cniVersion": "0.4.0", "name": net.name, "plugins": [bridge]}


def _import_images(node: Node) -> None:
    for name, make in (("pause", images.pause), ("pathoscale", images.pathoscale)):
        archive = node.folder / f"{name}.tar"
        make(archive)
        if not _ctr(node, "--namespace=k8s.io", "images", "import", str(archive)):
            raise RuntimeError(f"containerd does not take {archive}")
        archive.unlink()


def _start_kubelet(node: Node) -> None:
    plane, user = node.plane, f"system:node:{node.name}"
    config = plane.client(f"kubelet-{node.name}", user, "system:nodes")
    plane.authority.server(f"{node.name}-server", user, [node.name, node.address], "system:nodes")
    plane.processes.start(
        f"kubelet-{node.name}",
        [
            tools.path("kubelet"),
            f"--config={node.folder / 'kubelet.yaml'}",
            f"--kubeconfig={config}",
            f"--hostname-override={node.name}",
            f"--node-ip={node.address}",
            f"--root-dir={node.folder / 'kubelet'}",
            f"--cert-dir={node.folder / 'kubelet' / 'pki'}",
            f"--register-with-taints={TAINT}=:NoSchedule",
        ],
    )


def _start_coredns(plane: ControlPlane) -> None:
    plane.client("coredns", "coredns")
    plane.cluster.kubectl("apply", "-f", str(MANIFESTS / "coredns-rbac.yaml"))
    plane.processes.start("coredns", [tools.path("coredns"), "-conf", plane.network.folder / "Corefile"])


def _is_ready(node: Node) -> bool:
    node.plane.processes.check(f"kubelet-{node.name}")
    found = [n for n in node.plane.cluster.list("nodes") if n["metadata"]["name"] == node.name]
    return bool(found) and condition(found[0], "Ready").get("status") == "True"


def _ctr(node: Node, *arguments: str) -> bool:
    command = ["ctr", "--connect-timeout=2s", f"--address={node.folder / 'containerd.sock'}", *arguments]
    return subprocess.run(command, capture_output=True).returncode == 0


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


if __name__ == "__main__":
    print(" ".join(missing_packages()))  # for the script that runs the tests: what to install
