"""Kubeflow Trainer and JobSet beside us on the bench's control plane: as processes with their shipped definitions, rights and webhooks.

Left out: their own management of certificates, leader election, runtimes for other frameworks. Client limits are the shipped ones.
"""

import base64
import dataclasses
import json
import pathlib
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import yaml

from tests.cluster import controlplane, release, tools, waiting
from tests.cluster.cluster import Cluster, Manifest
from tests.cluster.controlplane import ControlPlane

PROCESSES = ("jobset", "trainer")
SHIPPED, SAME_PODS = "torch-gang", "torch-same-pods"  # runtimes: with the shipped pod, and with one that is as ours
IMAGE = "pytorch/pytorch:2.13.0-cuda13.0-cudnn9-runtime"  # as in the shipped runtime
ACCOUNTS = {"jobset": ("jobset-system", "jobset-controller-manager"), "trainer": ("kubeflow-system", "kubeflow-trainer-controller-manager")}
Ports = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Rival:
    """Both, installed on a control plane; their processes come and go."""

    plane: ControlPlane
    ports: Ports

    @property
    def folder(self) -> pathlib.Path:
        """Where their settings, certificates and kubeconfigs are."""
        return self.plane.folder / "rival"

    def start(self) -> None:
        """Start both and wait until they are ready."""
        for name in PROCESSES:
            environment = {"KUBECONFIG": str(self.folder / f"{name}.kubeconfig"), "TMPDIR": str(self.folder)}
            command = [tools.path(name), f"--config={self.folder / name}.json", "--zap-log-level=2"]
            self.plane.processes.start(name, command, environment)
        for name in PROCESSES:
            waiting.until(_answers(self.plane, name, self.ports[f"{name}-health"]), what=f"{name} ready", seconds=90)

    def stop(self) -> None:
        """End both."""
        for name in PROCESSES:
            self.plane.processes.stop(name)


def install(plane: ControlPlane, pod: Manifest) -> Rival:
    """Install both, started, and wait until they answer. `pod` is the specification of our pods, for the runtime SAME_PODS."""
    folder = plane.folder / "rival"
    ports = {name: controlplane.free_port() for name in ("jobset", "jobset-health", "trainer", "trainer-health")}
    certificates = _certificates(plane, folder)
    hooks = []
    for name, objects in (("jobset", _jobset(folder, plane)), ("trainer", _trainer(folder, plane))):
        text = yaml.safe_dump_all(map(_single, _others(objects)))
        plane.cluster.inside(ACCOUNTS[name][0]).kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)
        hooks += [_hook(o, ports[name], plane.authority.file.read_bytes()) for o in objects if "Webhook" in o["kind"]]
    plane.cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    _configure(plane, folder, {"jobset": _jobset_settings(ports, certificates), "trainer": _trainer_settings(ports)})
    found = Rival(plane, ports)
    found.start()
    plane.cluster.apply(*hooks)
    waiting.until(lambda: _accepts(plane.cluster, pod), what="webhooks of Trainer and JobSet", seconds=60)
    return found


def trainjob(name: str, nodes: int, namespace: str, runtime: str) -> Manifest:
    """A TrainJob of so many pods."""
    command = {"command": ["sleep", "1000"]} if runtime == SHIPPED else {}
    spec = {"runtimeRef": {"name": runtime}, "trainer": {"numNodes": nodes} | command}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": metadata, "spec": spec}


def _runtimes(pod: Manifest) -> list[Manifest]:
    """The shipped pod sleeps and carries next to nothing; the other is what our operator makes, under the name that Trainer asks for."""
    shipped = {"restartPolicy": "Never", "containers": [{"name": "node", "image": IMAGE}]}
    ours = {k: v for k, v in pod.items() if k != "subdomain"} | {"containers": [pod["containers"][0] | {"name": "node"}]}
    return [_runtime(SHIPPED, shipped), _runtime(SAME_PODS, ours)]


def _runtime(name: str, pod: Manifest) -> Manifest:
    """The shipped torch runtime with what makes a gang restart: without failure policy and backoffLimit 0 there is none."""
    job = {"backoffLimit": 0, "template": {"spec": pod}}
    label = {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    jobs = [{"name": "node", "template": {"metadata": {"labels": label}, "spec": job}}]
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "ClusterTrainingRuntime",
        "metadata": {"name": name, "labels": {"trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"failurePolicy": {"maxRestarts": 50}, "replicatedJobs": jobs}},
        },
    }


def _accepts(cluster: Cluster, pod: Manifest) -> bool:
    try:
        cluster.apply(*_runtimes(pod))
    except RuntimeError:
        return False
    return True


def _jobset(folder: pathlib.Path, plane: ControlPlane) -> list[Manifest]:
    shutil.copytree(tools.source("jobset") / "config", folder / "jobset", copy_function=shutil.copyfile)
    return _rendered(folder / "jobset", "default", plane)


def _trainer(folder: pathlib.Path, plane: ControlPlane) -> list[Manifest]:
    """Without its own JobSet, which it names by a URL."""
    shutil.copytree(tools.source("trainer") / "manifests", folder / "trainer", copy_function=shutil.copyfile)
    file = folder / "trainer" / "overlays" / "manager" / "kustomization.yaml"
    file.write_text("\n".join(line for line in file.read_text().splitlines() if "third-party/jobset" not in line))
    return _rendered(folder / "trainer", "overlays/manager", plane)


def _writable(folder: pathlib.Path) -> None:
    """Go's module cache is read-only, and so are the folders copied from it."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _rendered(folder: pathlib.Path, overlay: str, plane: ControlPlane) -> list[Manifest]:
    _writable(folder)
    return [o for o in yaml.safe_load_all(plane.cluster.kubectl("kustomize", str(folder / overlay))) if o]


def _others(objects: list[Manifest]) -> list[Manifest]:
    """What is applied first: namespaces before what lies in them; processes and certificates are ours, and webhooks come last."""
    kept = [o for o in objects if o["kind"] not in ("Deployment", "Secret") and "Webhook" not in o["kind"]]
    return sorted(kept, key=lambda o: o["kind"] != "Namespace")


def _single(definition: Manifest) -> Manifest:
    """Without conversion: only one version is used."""
    spec = {k: v for k, v in definition.get("spec", {}).items() if k != "conversion"}
    return definition | {"spec": spec} if definition["kind"] == "CustomResourceDefinition" else definition


def _hook(configuration: Manifest, port: int, authority: bytes) -> Manifest:
    """A webhook configuration that points to a process on this machine."""
    bundle = base64.b64encode(authority).decode()

    def local(hook: dict[str, Any]) -> dict[str, Any]:
        url = f"https://127.0.0.1:{port}{hook['clientConfig']['service']['path']}"
        return hook | {"clientConfig": {"url": url, "caBundle": bundle}}

    return configuration | {"webhooks": [local(hook) for hook in configuration["webhooks"]]}


def _certificates(plane: ControlPlane, folder: pathlib.Path) -> pathlib.Path:
    """The folder where both look for them: controller-runtime's default below $TMPDIR."""
    found = folder / "k8s-webhook-server" / "serving-certs"
    found.mkdir(parents=True)
    certificate, key = plane.authority.server("rival", "webhook", ["localhost", "127.0.0.1"])
    shutil.copy(certificate, found / "tls.crt")
    shutil.copy(key, found / "tls.key")
    return found


def _configure(plane: ControlPlane, folder: pathlib.Path, settings: dict[str, Manifest]) -> None:
    """Settings and kubeconfigs, in the folder, by the processes' names."""
    for name in PROCESSES:
        (folder / f"{name}.json").write_text(json.dumps(settings[name]))
        namespace, account = ACCOUNTS[name]
        release.as_service_account(plane.cluster, folder / f"{name}.kubeconfig", account, namespace)


def _answers(plane: ControlPlane, name: str, port: int) -> Callable[[], bool]:
    def ask() -> bool:
        plane.processes.check(name)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    return ask


def _jobset_settings(ports: Ports, certificates: pathlib.Path) -> Manifest:
    return {
        "apiVersion": "config.jobset.x-k8s.io/v1alpha1",
        "kind": "Configuration",
        "leaderElection": {"leaderElect": False},
        "internalCertManagement": {"enable": False},
        "webhook": {"port": ports["jobset"], "host": "127.0.0.1", "certDir": str(certificates)},
        "metrics": {"bindAddress": f"127.0.0.1:{controlplane.free_port()}", "certDir": str(certificates)},
        "health": {"healthProbeBindAddress": f"127.0.0.1:{ports['jobset-health']}"},
        "clientConnection": {"qps": 500, "burst": 500},
    }


def _trainer_settings(ports: Ports) -> Manifest:
    election = {"leaderElect": False, "resourceName": "trainer.kubeflow.org", "resourceNamespace": ""}
    workers = {"TrainJob": 5, "TrainingRuntime": 1, "ClusterTrainingRuntime": 1}
    health = f"127.0.0.1:{ports['trainer-health']}"
    return {
        "apiVersion": "config.trainer.kubeflow.org/v1alpha1",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": health, "readinessEndpointName": "readyz", "livenessEndpointName": "healthz"},
        "metrics": {"bindAddress": f"127.0.0.1:{controlplane.free_port()}", "secureServing": False},
        "webhook": {"port": ports["trainer"], "host": "127.0.0.1"},
        "leaderElection": election | {"leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s"},
        "controller": {"groupKindConcurrency": {f"{kind}.trainer.kubeflow.org": number for kind, number in workers.items()}},
        "certManagement": {
            "enable": False,
            "webhookServiceName": "kubeflow-trainer-controller-manager",
            "webhookSecretName": "kubeflow-trainer-webhook-cert",
        },
        "clientConnection": {"qps": 50, "burst": 100},
        "statusServer": {"port": controlplane.free_port(), "qps": 5, "burst": 10},
    }
