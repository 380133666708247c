"""Kubernetes, etcd, kwok, Helm and friends, built from pinned Go modules into a cache folder outside the checkout.

`python -m tests.cluster.tools` builds what is missing (about ten minutes from an empty Go cache on two cores, once) and prints the
folder. Every module in tools/ is its own go.mod because `go install x@version` refuses modules with replace directives (Kubernetes).
"""

import dataclasses
import fcntl
import functools
import hashlib
import os
import pathlib
import re
import shutil
import subprocess
import time

MODULES = pathlib.Path(__file__).parent / "tools"
KUBERNETES = re.findall(r"^require k8s.io/kubernetes (v\S+)", (MODULES / "kubernetes" / "go.mod").read_text(), re.MULTILINE)[0]
OLDEST_GO = (1, 26)  # what kwok 0.8 and Helm 4.2 ask for
BUILD_HINT = "build them once with: python -m tests.cluster.tools"


class NotBuilt(RuntimeError):
    """A tool is not in the cache folder."""


@dataclasses.dataclass(frozen=True)
class Tool:
    """One binary: the folder of its go.mod under tools/ and its main package."""

    module: str
    package: str
    rival: bool = False  # only what `make bench` compares with: no test needs it


TOOLS = {
    "etcd": Tool("etcd", "go.etcd.io/etcd/server/v3"),
    "kube-apiserver": Tool("kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    "kube-controller-manager": Tool("kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    "kube-scheduler": Tool("kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    "kubelet": Tool("kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    "kubectl": Tool("kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    "kwok": Tool("kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    "helm": Tool("helm", "helm.sh/helm/v4/cmd/helm"),
    "fake-gcs-server": Tool("fake-gcs-server", "github.com/fsouza/fake-gcs-server"),
    "coredns": Tool("coredns", "github.com/coredns/coredns"),
    "toxiproxy": Tool("toxiproxy", "github.com/Shopify/toxiproxy/v2/cmd/server"),
    "jobset": Tool("jobset", "sigs.k8s.io/jobset", rival=True),
    "trainer": Tool("trainer", "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager", rival=True),
}


def path(name: str) -> pathlib.Path:
    """The binary `name`. Raises NotBuilt."""
    binary = _folder(TOOLS[name].module) / name
    if not binary.exists():
        raise NotBuilt(f"{name} is not in {binary.parent}: {BUILD_HINT}")
    return binary


def available() -> bool:
    """Whether every tool is built."""
    return not missing()


def missing(*, rivals: bool = False) -> list[str]:
    """Names of the tools that are not built: those of the tests, or those that are only compared with."""
    return [name for name, tool in TOOLS.items() if tool.rival is rivals and not (_folder(tool.module) / name).exists()]


def source(module: str) -> pathlib.Path:
    """Folder with the source of a tool's module, as Go has unpacked it (manifests lie there)."""
    package = next(tool.package for tool in TOOLS.values() if tool.module == module)
    command = ["go", "list", "-mod=readonly", "-f", "{{.Module.Dir}}", package]
    return pathlib.Path(_go(module, command, stdout=subprocess.PIPE).stdout.decode().strip())


def reason_against_building() -> str:
    """Why the tools cannot be built here; empty if they can."""
    if "PATHOSCALE_TOOLS" in os.environ:
        return f"PATHOSCALE_TOOLS={os.environ['PATHOSCALE_TOOLS']} lacks {', '.join(missing())}"
    if not shutil.which("go"):
        return f"Go is not installed: Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer builds the control plane"
    found = subprocess.run(["go", "env", "GOVERSION"], capture_output=True, text=True, check=True).stdout.strip()
    if (match := re.match(r"go(\d+)\.(\d+)", found)) and tuple(map(int, match.groups())) < OLDEST_GO:
        return f"{found} is too old: Go {OLDEST_GO[0]}.{OLDEST_GO[1]} or newer builds the control plane"
    return ""


def build(*, rivals: bool = False) -> None:
    """Build what is missing, one at a time, saying what is going on. Raises subprocess.CalledProcessError."""
    _root().mkdir(parents=True, exist_ok=True)
    with open(_root() / "lock", "w") as lock:  # a second run waits and then finds everything built
        fcntl.flock(lock, fcntl.LOCK_EX)
        names = missing(rivals=rivals)
        for number, name in enumerate(names, 1):
            started = time.monotonic()
            print(f"building {name} ({number} of {len(names)}) ...", end=" ", flush=True)
            _build(name)
            print(f"{time.monotonic() - started:.0f} s", flush=True)


def _build(name: str) -> None:
    tool = TOOLS[name]
    target = _folder(tool.module) / name
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(".partial")
    _go(tool.module, ["go", "build", "-mod=readonly", *_flags(tool.module), "-o", str(partial), tool.package])
    partial.rename(target)


def _go(module: str, command: list[str], stdout: int | None = None) -> subprocess.CompletedProcess[bytes]:
    env = os.environ | {"GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOWORK": "off"}
    return subprocess.run(command, cwd=MODULES / module, env=env, stdout=stdout, check=True)


def _flags(module: str) -> list[str]:
    """Without the version flags the server calls itself v0.0.0-master, and Helm's kubeVersion check fails."""
    words = ["-s", "-w"]
    if module == "kubernetes":
        minor = KUBERNETES.split(".")[1]
        values = {"gitVersion": KUBERNETES, "gitMajor": "1", "gitMinor": minor, "gitTreeState": "clean", "gitCommit": "unknown"}
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version"):
            words += [word for key, value in values.items() for word in ("-X", f"{package}.{key}={value}")]
    return ["-trimpath", "-ldflags", " ".join(words)]


def _root() -> pathlib.Path:
    """Folder of all builds. PATHOSCALE_TOOLS names a folder that holds the binaries themselves."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(cache).expanduser() / "pathoscale" / "tools"


@functools.cache
def _folder(module: str) -> pathlib.Path:
    if override := os.environ.get("PATHOSCALE_TOOLS"):
        return pathlib.Path(override)
    pinned = (MODULES / module / "go.mod").read_bytes() + (MODULES / module / "go.sum").read_bytes()
    key = hashlib.sha256(pinned + " ".join(_flags(module)).encode()).hexdigest()[:16]
    return _root() / f"{module}-{key}"


if __name__ == "__main__":
    if missing():
        if reason := reason_against_building():
            raise SystemExit(reason)
        print("building the control plane from pinned Go modules: about ten minutes the first time")
        build()
    print(f"tools are in {_root()}")
