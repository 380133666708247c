"""Removing a test node completely, also one whose run was killed: by what carries its slot's name, never by guess."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
from collections.abc import Iterator

from tests.cluster import network, waiting

CGROUPS = pathlib.Path("/sys/fs/cgroup")
CONTAINER_LOGS = pathlib.Path("/var/log/containers")
CNI_RESULTS = pathlib.Path("/var/lib/cni/results")
KUBELET_FOLDER = pathlib.Path("/var/lib/kubelet")


def make_cgroups(name: str) -> None:
    """A cgroup for everything the node runs: in each hierarchy (version 1) or in the one (version 2)."""
    for root in _hierarchies():
        (root / name).mkdir(exist_ok=True)
        if root.name == "cpu":  # else all pods together would get what one process of the machine gets
            (root / name / "cpu.shares").write_text(str(1024 * (os.cpu_count() or 1)))
        for setting in ("cpuset.cpus", "cpuset.mems") if root.name == "cpuset" else ():  # empty until written
            (root / name / setting).write_text((root / setting).read_text())


def remove(net: network.Network) -> None:
    """End and remove containers, mounts, bridge, rules, cgroups and files of a slot. Its daemons must have been stopped."""
    namespaces = list(_network_namespaces(net.folder))
    waiting.until(lambda: not _kill_all(net), what=f"end of all containers of {net.name}", seconds=30)
    _unmount(net.folder)
    for namespace in namespaces:
        subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)
    network.down(net)
    for name in _cgroups(net):
        _remove_cgroups(name)
    _remove_traces(net)
    if net.folder.exists():
        shutil.rmtree(net.folder)


def _hierarchies() -> list[pathlib.Path]:
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    return [h for h in CGROUPS.iterdir() if h.is_dir() and not h.is_symlink()]


def kill_members(cgroup: str) -> list[int]:
    """Kill every process in a cgroup and below; those that were found."""
    files = [file for root in _hierarchies() for file in (root / cgroup).rglob("cgroup.procs")]
    return _kill({int(pid) for file in files for pid in file.read_text().split()})


def _kill_all(net: network.Network) -> list[int]:
    """The same for the cgroups of the slot's nodes, and for containerd's shims of its folder."""
    return [*(pid for name in _cgroups(net) for pid in kill_members(name)), *_kill(set(_shims(net.folder)))]


def _cgroups(net: network.Network) -> list[str]:
    """Of the slot's nodes."""
    return sorted({found.name for root in _hierarchies() for found in root.glob(f"{net.name}-*")})


def _kill(found: set[int]) -> list[int]:
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return sorted(found)


def _shims(folder: pathlib.Path) -> Iterator[int]:
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = entry.read_bytes().decode(errors="replace").split("\0")
            if "containerd-shim" in words[0] and any(w.startswith(f"{folder}/") and w.endswith("containerd.sock") for w in words):
                yield int(entry.parent.name)


def _network_namespaces(folder: pathlib.Path) -> Iterator[str]:
    """Names of the namespaces that the nodes' pods live in, from containerd's own files."""
    for file in folder.glob("*/containerd/state/io.containerd.runtime.v2.task/k8s.io/*/config.json"):
        for namespace in json.loads(file.read_text())["linux"]["namespaces"]:
            if namespace["type"] == "network" and namespace.get("path", "").startswith(("/run/netns/", "/var/run/netns/")):
                yield pathlib.Path(namespace["path"]).name


def _unmount(folder: pathlib.Path) -> None:
    points = [line.split()[4] for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines()]
    for point in reversed([p for p in points if p.startswith(f"{folder}/")]):
        subprocess.run(["umount", "--lazy", point], check=False, capture_output=True)


def _remove_cgroups(name: str) -> None:
    for root in _hierarchies():
        folders = sorted((f for f in [root / name, *(root / name).rglob("*")] if f.is_dir()), key=lambda f: -len(f.parts))
        for folder in folders:
            folder.rmdir()


def _remove_traces(net: network.Network) -> None:
    """What kubelet and CNI leave outside the node's folder."""
    for link in CONTAINER_LOGS.glob("*.log"):
        if link.is_symlink() and str(link.readlink()).startswith(f"{net.folder}/"):
            link.unlink()
    containers = [file.name.removeprefix(f"{net.name}-").removesuffix("-eth0") for file in CNI_RESULTS.glob(f"{net.name}-*-eth0")]
    for container in containers:
        for file in CNI_RESULTS.glob(f"*-{container}-*"):
            file.unlink()
    shutil.rmtree(KUBELET_FOLDER / "device-plugins", ignore_errors=True)
    for empty in (KUBELET_FOLDER, CONTAINER_LOGS, CNI_RESULTS, CNI_RESULTS.parent):
        with contextlib.suppress(OSError):
            empty.rmdir()
