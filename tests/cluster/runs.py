"""Runs on fake nodes: small manifests, and what is asked of them again and again."""

import json
from typing import Any

from patho_api import names
from tests.cluster import kwok, waiting
from tests.cluster.cluster import Cluster, Manifest, condition

SHORT = {names.PRETRAIN: "ppt", names.EVAL: "pev"}


def pretrain(name: str, *, nodes: int = 2, annotations: dict[str, str] | None = None, **run_policy: Any) -> Manifest:
    """A PathoPretrain whose fake pods carry `annotations` from the start."""
    compute = {"nodes": nodes, "podTemplate": {"metadata": {"annotations": annotations or {}}}}
    folders = {"slides": {"source": "gs://slides/", "index": "gs://work/index"}, "checkpoints": {"url": f"gs://work/{name}"}}
    return resource(names.PRETRAIN, name, {**folders, "compute": compute, "runPolicy": run_policy})


def evaluation(name: str, annotations: dict[str, str]) -> Manifest:
    """A PathoEval of a file in a bucket."""
    tasks = [{"name": "PatchClassification", "data": "gs://slides/patches"}]
    spec = {"model": {"url": "gs://work/a/step-00000010"}, "tasks": tasks, "results": f"gs://work/{name}"}
    return resource(names.EVAL, name, {**spec, "compute": {"podTemplate": {"metadata": {"annotations": annotations}}}})


def ends(exit_code: int, *, run_for: str = "1s", **last_words: Any) -> dict[str, str]:
    """Annotations that let every pod end by itself."""
    words = json.dumps(last_words) if last_words else ""
    return {kwok.EXIT_CODE: str(exit_code), kwok.RUN_FOR: run_for, kwok.LAST_WORDS: words}


def wait_for(cluster: Cluster, name: str, kind: str, *, of: str = names.PRETRAIN, seconds: float = 60) -> Manifest:
    """The resource once condition `kind` is True."""

    def look() -> Manifest | None:
        found = cluster.get(SHORT[of], name)
        seen.update(found.get("status", {}))
        return found if condition(found, kind).get("status") == "True" else None

    seen: dict[str, Any] = {}
    try:
        return waiting.until(look, what=f"{of} {name} {kind}", seconds=seconds) or {}
    except TimeoutError as error:
        raise TimeoutError(f"{error}; status: {json.dumps(seen, indent=1)}") from error


def pods(cluster: Cluster, run: str) -> list[Manifest]:
    """All pods of a run that the API server still shows, by index."""
    found = cluster.list("pods", f"{names.LABEL_RUN}={run}")
    return sorted(found, key=lambda pod: (index(pod), pod["metadata"]["creationTimestamp"]))


def running(cluster: Cluster, run: str, number: int, seconds: float = 60) -> list[Manifest]:
    """The run's pods once `number` of them run, by index."""

    def look() -> list[Manifest]:
        found = [p for p in pods(cluster, run) if p["status"]["phase"] == "Running" and "deletionTimestamp" not in p["metadata"]]
        return found if len(found) == number else []

    return waiting.until(look, what=f"{number} running pods of {run}", seconds=seconds)


def index(pod: Manifest) -> int:
    """Completion index."""
    return int(pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"])


def uid(manifest: Manifest) -> str:
    """What tells an object from a later one of the same name."""
    return str(manifest["metadata"]["uid"])


def end_all(cluster: Cluster, run: str, exit_code: int = 0) -> None:
    """Let all running pods of a run end, index 0 last: once it has succeeded the Job ends the others itself."""
    for pod in reversed(pods(cluster, run)):
        if pod["status"]["phase"] == "Running":
            kwok.end_pod(cluster, pod["metadata"]["name"], exit_code)


def resource(kind: str, name: str, spec: dict[str, Any]) -> Manifest:
    """A manifest of one of our kinds."""
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}
