"""Five sets of values and their renders. `python -m tests.chart.renders` writes the golden files anew: read the difference."""

import json
import os
import pathlib
import re
import subprocess
import tempfile
from typing import Any

from tests.cluster import tools

CHART = pathlib.Path(__file__).parents[2] / "charts" / "pathoscale"
GOLDEN = pathlib.Path(__file__).parent / "golden"
Values = dict[str, Any]

SETS: dict[str, Values] = {
    "defaults": {},
    "monitored": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "kube-prometheus-stack"}},
        "podMonitor": {"enabled": True, "labels": {"release": "kube-prometheus-stack"}},
        "prometheusRule": {"enabled": True, "runbooks": "https://wiki.example/runbooks"},
        "dashboards": {"enabled": True},
    },
    "namespaced": {"watchNamespaces": ["lab", "clinic"], "rbac": {"aggregate": False}, "crds": {"keep": False}},
    "available": {
        "replicas": 2,
        "priorityClassName": "system-cluster-critical",
        "networkPolicy": {
            "enabled": True,
            "runs": True,
            "metricsFrom": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}],
        },
    },
    "prescribed": {
        "image": {"repository": "registry.example/operator", "tag": "1.2.3", "pullPolicy": "Always"},
        "trainer": {"image": "registry.example/trainer:1.2.3"},
        "imagePullSecrets": [{"name": "registry-key"}],
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "given"},
        "crds": {"enabled": False},
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "podAnnotations": {"team": "pathology"},
        "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
    },
}


def helm(*words: str) -> "subprocess.CompletedProcess[str]":
    """Run helm, with no state of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        env = os.environ | {f"HELM_{name}_HOME": scratch for name in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run([str(tools.path("helm")), *words], env=env, capture_output=True, text=True, timeout=60)


def render(values: Values) -> str:
    """All manifests of a release named pathoscale in patho-system."""
    words = [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
    done = helm("template", "pathoscale", str(CHART), "--namespace", "patho-system", *words)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return done.stdout


def abridged(text: str) -> str:
    """Without what other tests compare: definitions, dashboards, alerts."""
    parts = [part for part in text.split("\n---\n") if "kind: CustomResourceDefinition" not in part]
    text = "\n---\n".join(parts)
    text = re.sub(r"^(  pathoscale-\w+\.json): .*$", r"\1: (charts/pathoscale/files/dashboards)", text, flags=re.MULTILINE)
    return re.sub(r"^spec:\n  groups:\n(  .*\n)+", "spec: (charts/pathoscale/files/alerts.yaml)\n", text, flags=re.MULTILINE)


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, values in SETS.items():
        (GOLDEN / f"{name}.yaml").write_text(abridged(render(values)))
