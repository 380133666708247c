"""The chart installed by Helm, and the operator as a process that has its service account's rights and no more."""

import json
import os
import pathlib
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping

from tests.cluster import controlplane, waiting
from tests.cluster.cluster import Cluster
from tests.cluster.processes import Processes

CHART = pathlib.Path(__file__).parents[2] / "charts" / "pathoscale"
NAME = "pathoscale"
NAMESPACE = "pathoscale-system"
DEPLOYMENT = "pathoscale"
TOKEN_LIFETIME = "4h"
IMPATIENT = {"PATHO_PROGRESS_SECONDS": "1", "PATHO_PUBLISH_SECONDS": "1"}  # asks pods and writes status more often than in production


def install(cluster: Cluster, values: dict[str, object]) -> None:
    """`helm upgrade --install` of the chart in its own namespace; the definitions go when it is uninstalled."""
    settings = [f"--set-json={key}={json.dumps(value)}" for key, value in {"crds.keep": False, **values}.items()]
    cluster.inside(NAMESPACE).helm("upgrade", "--install", NAME, str(CHART), "--create-namespace", *settings)


def uninstall(cluster: Cluster) -> None:
    """Remove the release, its definitions and its namespace."""
    cluster.inside(NAMESPACE).helm("uninstall", NAME, "--wait", "--timeout=60s")
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


class Operator:
    """`python -m patho_operator` on this machine, as the service account that the chart made."""

    def __init__(self, processes: Processes, cluster: Cluster, settings: Mapping[str, str] = IMPATIENT):
        self._processes = processes
        self._settings = settings
        self.port = controlplane.free_port()
        self._kubeconfig = as_service_account(cluster, processes.folder / "operator.kubeconfig")

    def start(self) -> None:
        """Start it and wait until it works."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")}
        own = {"KUBECONFIG": str(self._kubeconfig), "POD_NAMESPACE": NAMESPACE, "POD_NAME": "test-operator", "PATHO_PORT": str(self.port)}
        self._processes.start("operator", [sys.executable, "-m", "patho_operator"], kept | own | self._settings)
        waiting.until(lambda: self._processes.check("operator") and self._is_ready(), what="operator ready", seconds=90)

    def kill(self) -> None:
        """End it as a crash does."""
        self._processes.kill("operator")

    def metrics(self) -> str:
        """Its exposition."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        """What it said."""
        return self._processes.log("operator").read_text()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False


def as_service_account(cluster: Cluster, path: pathlib.Path, account: str = NAME, namespace: str = NAMESPACE) -> pathlib.Path:
    """The cluster's kubeconfig with the operator's (or another service account's) token in place of the administrator's rights."""
    config = json.loads(cluster.kubectl("config", "view", "--minify", "--raw", "--flatten", "-o", "json"))
    token = cluster.inside(namespace).kubectl("create", "token", account, f"--duration={TOKEN_LIFETIME}").strip()
    for user in config["users"]:
        user["user"] = {"token": token}
    path.touch(mode=0o600)
    path.write_text(json.dumps(config))
    return path
