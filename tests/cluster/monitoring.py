"""The Prometheus operator's own definitions of monitors and rules, out of its Go module (25 MB, in Go's cache)."""

import json
import os
import pathlib
import shutil
import subprocess

from tests.cluster import tools

MODULE = "github.com/prometheus-operator/prometheus-operator"
FOLDER = "example/prometheus-operator-crd"
PLURALS = ("servicemonitors", "podmonitors", "prometheusrules")


class NotThere(RuntimeError):
    """The module cannot be had here."""


def definitions() -> dict[str, pathlib.Path]:
    """File of each definition by its name; `kubectl apply --server-side` takes them. Raises NotThere."""
    if not shutil.which("go"):
        raise NotThere("Go is not installed: it fetches the Prometheus operator's definitions")
    command = ["go", "mod", "download", "-json", MODULE]
    environment = os.environ | {"GOTOOLCHAIN": "local", "GOWORK": "off", "GOFLAGS": "-mod=mod"}
    done = subprocess.run(command, cwd=tools.MODULES / "prometheus-operator", env=environment, capture_output=True, text=True)
    if done.returncode:
        raise NotThere(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    folder = pathlib.Path(json.loads(done.stdout)["Dir"]) / FOLDER
    return {f"{plural}.monitoring.coreos.com": folder / f"monitoring.coreos.com_{plural}.yaml" for plural in PLURALS}
