"""etcd, API server, controller manager and scheduler as processes on this machine."""

import dataclasses
import pathlib
import socket
from collections.abc import Mapping, Sequence

from tests.cluster import pki, tools, waiting
from tests.cluster.cluster import Cluster, Refused
from tests.cluster.network import Network
from tests.cluster.processes import Processes

START_SECONDS = 90  # measured: 4 s on an idle machine; two busy cores need ten times that
Flags = Mapping[str, Sequence[str]]
QUICK_CLIENT = ("--kube-api-qps=500", "--kube-api-burst=1000")


@dataclasses.dataclass(frozen=True)
class ControlPlane:
    """A running control plane."""

    processes: Processes
    authority: pki.Authority
    network: Network
    port: int
    cluster: Cluster  # as administrator
    flags: Flags

    @property
    def folder(self) -> pathlib.Path:
        """Where everything lies."""
        return self.processes.folder

    def client(self, name: str, user: str, group: str = "", host: str = "127.0.0.1") -> pathlib.Path:
        """Kubeconfig of a new client, `user` of `group`."""
        certificate, key = self.authority.client(name, user, group)
        credentials = {"client-certificate": str(certificate), "client-key": str(key)}
        return pki.kubeconfig(self.folder / f"{name}.kubeconfig", f"https://{host}:{self.port}", self.authority.file, credentials)


def start(processes: Processes, network: Network | None = None, *, flags: Flags | None = None) -> ControlPlane:
    """Start all four and wait until they work. With a `network` the API listens for pods too, else on the loopback alone.

    `flags` are further ones by process; of two of the same name the later counts.
    """
    port = free_port()
    authority = pki.authority(processes.folder / "pki")
    admin = processes.folder / "admin.kubeconfig"
    plane = ControlPlane(processes, authority, network or Network(), port, Cluster(admin), flags or {})
    plane.client("admin", "admin", pki.ADMINS)
    _start_api_server(plane, _start_etcd(processes), "0.0.0.0" if network else "127.0.0.1")
    _start_controllers(plane)
    waiting.until(lambda: plane.cluster.exists("serviceaccount", "default"), what="default service account", seconds=START_SECONDS)
    return plane


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start_etcd(processes: Processes) -> str:
    client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
    processes.start(
        "etcd",
        [
            tools.path("etcd"),
            f"--data-dir={processes.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ],
    )
    return client


def _start_api_server(plane: ControlPlane, etcd: str, bind: str) -> None:
    names = ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local", "localhost"]
    certificate, key = plane.authority.server("apiserver", "kube-apiserver", [*names, "127.0.0.1", *_addresses(plane.network)])
    kubelet_certificate, kubelet_key = plane.authority.client("apiserver-kubelet", "kube-apiserver", pki.ADMINS)
    token_public, token_key = pki.token_key(plane.authority.folder)
    plane.processes.start(
        "kube-apiserver",
        [
            tools.path("kube-apiserver"),
            f"--etcd-servers={etcd}",
            f"--bind-address={bind}",
            f"--secure-port={plane.port}",
            f"--advertise-address={plane.network.gateway}",
            "--endpoint-reconciler-type=none",
            f"--tls-cert-file={certificate}",
            f"--tls-private-key-file={key}",
            f"--client-ca-file={plane.authority.file}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={token_public}",
            f"--service-account-signing-key-file={token_key}",
            f"--service-cluster-ip-range={plane.network.services}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            f"--kubelet-client-certificate={kubelet_certificate}",
            f"--kubelet-client-key={kubelet_key}",
            f"--kubelet-certificate-authority={plane.authority.file}",
            "--kubelet-preferred-address-types=InternalIP",
            *plane.flags.get("kube-apiserver", ()),
        ],
    )
    waiting.until(lambda: _ready(plane), what="API server ready", seconds=START_SECONDS)


def _start_controllers(plane: ControlPlane) -> None:
    """Dead nodes are noticed after 16 s, as the kubelet of node.py renews its lease every 4 s."""
    for name in ("kube-controller-manager", "kube-scheduler"):
        config = plane.client(name, f"system:{name}")
        command = [tools.path(name), f"--kubeconfig={config}", "--leader-elect=false", "--secure-port=0", *QUICK_CLIENT]
        if name == "kube-controller-manager":
            command += [
                "--use-service-account-credentials",
                f"--service-account-private-key-file={plane.authority.folder / 'tokens.key'}",
                f"--root-ca-file={plane.authority.file}",
                "--concurrent-job-syncs=20",
                "--node-monitor-period=2s",
                "--node-monitor-grace-period=16s",
            ]
        plane.processes.start(name, [*command, *plane.flags.get(name, ())])


def _addresses(network: Network) -> list[str]:
    return [network.gateway, network.api_service]


def _ready(plane: ControlPlane) -> bool:
    plane.processes.check("etcd")
    plane.processes.check("kube-apiserver")
    try:
        return plane.cluster.kubectl("get", "--raw", "/readyz") == "ok"
    except Refused:
        return False
