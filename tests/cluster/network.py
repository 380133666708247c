"""The network of a real node: a bridge that pods hang on, with this machine as gateway.

Several test nodes can live on one machine: each claims a slot, and everything that carries a name or an address is of that slot.
"""

import contextlib
import dataclasses
import fcntl
import pathlib
import subprocess
from collections.abc import Iterator
from typing import Self

SLOTS = 8
FORWARDING = pathlib.Path("/proc/sys/net/ipv4/ip_forward")


@dataclasses.dataclass(frozen=True)
class Network:
    """Addresses and names of one slot."""

    slot: int = 0

    @property
    def gateway(self) -> str:
        """This machine, as pods see it, and its first node."""
        return self.address(0)

    def address(self, number: int) -> str:
        """Of a node."""
        return f"10.{88 + self.slot}.0.{number + 1}"

    @property
    def pods(self) -> str:
        """Addresses of pods and gateway."""
        return f"10.{88 + self.slot}.0.0/17"

    @property
    def first_pod(self) -> str:
        """The lowest address that a pod gets."""
        return f"10.{88 + self.slot}.1.1"

    @property
    def services(self) -> str:
        """Cluster addresses."""
        return f"10.{88 + self.slot}.128.0/24"

    @property
    def api_service(self) -> str:
        """Cluster address of the API server: always the first."""
        return f"10.{88 + self.slot}.128.1"

    @property
    def name(self) -> str:
        """Of bridge, CNI network, cgroup and folder."""
        return f"patho{self.slot}"

    @property
    def folder(self) -> pathlib.Path:
        """State of the node; the same for every run, so that what a killed run left is found."""
        return pathlib.Path(f"/tmp/pathoscale-node-{self.slot}")

    @classmethod
    @contextlib.contextmanager
    def claim(cls) -> Iterator[Self]:
        """A slot that nobody uses. The kernel gives it back when this process ends, however it ends."""
        for slot in range(SLOTS):
            with open(f"/tmp/pathoscale-slot-{slot}.lock", "w") as lock, contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield cls(slot)
                return
        raise RuntimeError(f"all {SLOTS} slots for test nodes are in use on this machine")


def up(network: Network, api_port: int) -> None:
    """Make the bridge, and the rules that lead pods to the API server and nowhere else outside."""
    (network.folder / "ip_forward").write_text(FORWARDING.read_text())  # the CNI plugin turns it on
    _run("ip", "link", "add", network.name, "type", "bridge")
    _run("ip", "address", "add", f"{network.gateway}/17", "dev", network.name)
    _run("ip", "link", "set", network.name, "up")
    (network.folder / "api-port").write_text(str(api_port))
    for table, chain, *rule in _rules(network, api_port):
        _run("iptables", "-w", "-t", table, "-I", chain, *rule)


def add_address(network: Network, address: str) -> None:
    """Give the bridge the address of a further node; it goes with the bridge."""
    _run("ip", "address", "add", f"{address}/32", "dev", network.name)


def down(network: Network) -> None:
    """Remove what `up` made, whatever of it exists."""
    if (port := network.folder / "api-port").exists():
        for table, chain, *rule in _rules(network, int(port.read_text())):
            _try("iptables", "-w", "-t", table, "-D", chain, *rule)
        FORWARDING.write_text((network.folder / "ip_forward").read_text())
    _try("ip", "link", "delete", network.name)


def _rules(network: Network, api_port: int) -> list[list[str]]:
    """No kube-proxy: one rule for the one Service with a cluster address. Pods reach each other and this machine, nothing else."""
    to_api = ["-p", "tcp", "-d", network.api_service, "--dport", "443", "-j", "DNAT", "--to-destination", f"{network.gateway}:{api_port}"]
    return [
        ["nat", "PREROUTING", "-s", network.pods, *to_api],
        ["filter", "FORWARD", "-s", network.pods, "!", "-d", network.pods, "-j", "REJECT"],
        ["filter", "FORWARD", "-s", network.pods, "-d", network.pods, "-j", "ACCEPT"],
        ["filter", "INPUT", "-i", network.name, "-j", "ACCEPT"],
    ]


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def _try(*command: str) -> None:
    subprocess.run(command, check=False, capture_output=True)
