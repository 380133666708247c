"""The real node itself: restricted pods that run this machine's Python, find each other by name, and are gone afterwards."""

import pytest

from tests.cluster import images, volumes, waiting
from tests.cluster.cluster import Cluster, Manifest

pytestmark = pytest.mark.node


def pod(name: str, code: str, **more: object) -> Manifest:
    template = volumes.overlay("main")["spec"]
    container = template["containers"][0] | {
        "image": images.IMAGE,
        "command": ["python", "-c", code],
        "securityContext": {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
    }
    security = {"runAsNonRoot": True, "runAsUser": images.USER, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = template | {"restartPolicy": "Never", "securityContext": security, "containers": [container], **more}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "test"}}, "spec": spec}


def output(cluster: Cluster, name: str) -> str:
    """What the pod printed, once it has ended well."""
    phase = waiting.until(lambda: _ended(cluster, name), what=f"end of pod {name}", seconds=120)
    printed = cluster.kubectl("logs", name)
    assert phase == "Succeeded", printed
    return printed.strip()


def test_a_restricted_pod_runs_torch_from_the_volume(on_node: Cluster):
    volumes.provide_packages(on_node)
    on_node.apply(pod("torch", "import torch, patho_api.names; print(torch.ones(3).sum().item())"))
    assert output(on_node, "torch") == "3.0"


def test_pods_find_each_other_by_name_and_the_api_by_its_address(on_node: Cluster):
    volumes.provide_packages(on_node)
    service = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": {"app": "test"}}
    on_node.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "gang"}, "spec": service})
    listen = "import socket; s = socket.create_server(('', 29500)); c, _ = s.accept(); c.sendall(b'met')"
    on_node.apply(pod("first", listen, hostname="first", subdomain="gang"))
    waiting.until(lambda: on_node.get("pod", "first")["status"]["phase"] == "Running", what="pod first running")
    meet = f"""
import os, socket, ssl, time, urllib.request
def call():
    try: return socket.create_connection(('first.gang.{on_node.namespace}.svc', 29500), 5)
    except OSError: return None
while not (connection := call()): time.sleep(0.2)
api = f"https://{{os.environ['KUBERNETES_SERVICE_HOST']}}/version"
trusted = ssl.create_default_context(cafile='/var/run/secrets/kubernetes.io/serviceaccount/ca.crt')
print(connection.recv(3).decode(), urllib.request.urlopen(api, context=trusted, timeout=5).status)
"""
    on_node.apply(pod("second", meet, hostname="second", subdomain="gang"))
    assert output(on_node, "second") == "met 200"


def test_a_pod_cannot_reach_the_world(on_node: Cluster):
    volumes.provide_packages(on_node)
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 80), 5)\nexcept OSError as error: print(type(error).__name__)"
    on_node.apply(pod("curious", code))
    assert output(on_node, "curious") == "ConnectionRefusedError"


def _ended(cluster: Cluster, name: str) -> str:
    phase = cluster.get("pod", name)["status"]["phase"]
    return phase if phase in ("Succeeded", "Failed") else ""
