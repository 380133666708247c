"""A cluster as its users reach it: kubectl with a kubeconfig."""

import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
from typing import Any

from tests.cluster import tools, waiting

Manifest = dict[str, Any]


class Refused(RuntimeError):
    """kubectl or helm failed; the message is what it said."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Access to a cluster with the rights of `kubeconfig`; `namespace` is where commands go that do not name one."""

    kubeconfig: pathlib.Path
    namespace: str = "default"

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        """Output of a kubectl command. Raises Refused."""
        return _run([kubectl_binary(), f"--namespace={self.namespace}", *arguments], self.environment(), stdin)

    def helm(self, *arguments: str) -> str:
        """Output of a helm command. Raises Refused."""
        return _run([str(tools.path("helm")), f"--namespace={self.namespace}", *arguments], self.environment())

    def apply(self, *manifests: Manifest) -> None:
        """`kubectl apply` of objects."""
        self.kubectl("apply", "-f", "-", stdin="\n---\n".join(json.dumps(m) for m in manifests))

    def get(self, kind: str, name: str) -> Manifest:
        """One object. Raises Refused, also if there is none."""
        return json.loads(self.kubectl("get", kind, name, "-o", "json"))

    def list(self, kind: str, selector: str = "") -> list[Manifest]:
        """Objects of a kind that match a label selector."""
        return json.loads(self.kubectl("get", kind, f"--selector={selector}", "-o", "json"))["items"]

    def exists(self, kind: str, name: str) -> bool:
        """Whether there is such an object."""
        return bool(self.kubectl("get", kind, name, "--ignore-not-found", "-o", "name"))

    def wait_gone(self, kind: str, selector: str, seconds: float = 60) -> None:
        """Wait until no object of a kind matches. Raises TimeoutError."""
        waiting.until(
            lambda: not [o["metadata"]["name"] for o in self.list(kind, selector)], what=f"no {kind} with {selector}", seconds=seconds
        )

    def inside(self, namespace: str) -> "Cluster":
        """The same cluster, another namespace."""
        return dataclasses.replace(self, namespace=namespace)

    def environment(self) -> dict[str, str]:
        """What kubectl and helm get from the shell."""
        scratch = str(self.kubeconfig.parent / "client-cache")
        return os.environ | {
            "KUBECONFIG": str(self.kubeconfig),
            "KUBECACHEDIR": scratch,
            "HELM_CACHE_HOME": scratch,
            "HELM_CONFIG_HOME": scratch,
            "HELM_DATA_HOME": scratch,
        }


def kubectl_binary() -> str:
    """Our kubectl, or the machine's own when only a foreign cluster is used. Raises tools.NotBuilt."""
    if "kubectl" in tools.missing() and (found := shutil.which("kubectl")):
        return found
    return str(tools.path("kubectl"))


def condition(resource: Manifest, kind: str) -> Manifest:
    """One condition of an object's status; empty if it has none."""
    found = [c for c in resource.get("status", {}).get("conditions", []) if c["type"] == kind]
    return found[0] if found else {}


def _run(command: list[str], env: dict[str, str], stdin: str = "") -> str:
    done = subprocess.run(command, env=env, input=stdin, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise Refused(f"{pathlib.Path(command[0]).name} {' '.join(command[2:])}: {done.stderr.strip()}")
    return done.stdout
