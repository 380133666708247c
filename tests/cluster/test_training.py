"""The whole path on a real node: Helm installs the operator, `kubectl apply` trains on a real slide out of a GCS bucket, and a probe
scores the checkpoint. Two pods train together by torchrun; nothing is mocked."""

import json

import pytest

from patho_api import names
from tests.cluster import gcs, node, release, runs, waiting
from tests.cluster.cluster import Cluster, Manifest, condition
from tests.cluster.laboratory import compute

pytestmark = [pytest.mark.node, pytest.mark.timeout(900)]  # two pods import torch on a shared machine

STEPS = 20
SECRET, CANARY = "gcs-key", "canary-5d20c9b7aa"
# a key that obstore reads and takes no token for: the test's server asks for none
KEY = {"type": "service_account", "disable_oauth": True, "private_key": CANARY, "private_key_id": CANARY, "client_email": "runs@lab"}


def pretrain(server: str) -> Manifest:
    """20 steps of DINO with a tiny ViT on small crops, on two pods."""
    head = {"prototypes": 256, "headHiddenWidth": 64, "headBottleneckWidth": 32}
    crops = {"globalSizePx": 32, "localSizePx": 16, "localCount": 2}
    storage = {"endpoint": server, "secretName": SECRET}
    return runs.resource(
        names.PRETRAIN,
        "real",
        {
            "model": {"architecture": "vit_tiny_patch16_224"},
            "slides": {"source": "gs://slides/", "index": "gs://work/index", "storage": storage},
            "patches": {"sizePx": 64, "magnifications": [{"mpp": 0.5}, {"mpp": 1.0}]},
            "training": {"steps": STEPS, "batchSize": 8, "precision": "Float32", "crops": crops, **head},
            "checkpoints": {"url": "gs://work/runs/real", "everySteps": 10},
            "compute": compute(nodes=2),
        },
    )


def evaluation(server: str) -> Manifest:
    """A linear probe of the run's newest checkpoint."""
    return runs.resource(
        names.EVAL,
        "probe",
        {
            "model": {"pretrain": {"name": "real"}},
            "tasks": [{"name": "PatchClassification", "data": "gs://labelled/", "label": "colours"}],
            "runs": 2,
            "maxSteps": 50,
            "imageSizePx": 32,
            "results": "gs://work/evals/real",
            "storage": {"endpoint": server, "secretName": SECRET},
            "compute": compute(nodes=1),
        },
    )


@pytest.fixture(scope="module")
def trained(lab: Cluster, bucket: str) -> Manifest:
    """The run, once it has succeeded."""
    lab.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET}, "stringData": {"key.json": json.dumps(KEY)}})
    lab.apply(pretrain(bucket))
    return finished(lab, names.PRETRAIN, "real")


def test_the_operator_runs_in_a_pod_of_the_chart(lab: Cluster):
    pods = lab.inside(release.NAMESPACE).list("pods", "app.kubernetes.io/name=pathoscale-operator")
    assert [pod["spec"]["nodeName"] for pod in pods] == [node.NAME]
    assert pods[0]["spec"]["serviceAccountName"] == release.NAME


def test_two_pods_train_together(lab: Cluster, trained: Manifest):
    status = trained["status"]
    assert (status["phase"], status["attempt"], status["restarts"]) == ("Succeeded", 1, 0)
    pods = runs.pods(lab, "real")
    assert [runs.index(pod) for pod in pods] == [0, 1]
    assert [pod["status"]["phase"] for pod in pods] == ["Succeeded", "Succeeded"]
    assert f"{STEPS}/{STEPS} (100%)" in lab.kubectl("get", "ppt", "real")


def test_the_checkpoint_lies_in_the_bucket(trained: Manifest, bucket: str):
    assert trained["status"]["checkpoint"]["latest"]["step"] == STEPS
    found = gcs.objects(bucket, "work", f"runs/real/step-{STEPS:08}/")
    assert {name.rpartition("/")[2] for name in found} >= {"teacher.safetensors", "config.json", "COMPLETE.json"}


def test_the_checkpoint_is_scored_and_kubectl_shows_it(lab: Cluster, trained: Manifest, bucket: str):
    lab.apply(evaluation(bucket))
    status = finished(lab, names.EVAL, "probe")["status"]
    assert status["modelUrl"] == trained["status"]["checkpoint"]["latest"]["url"]
    assert [result["task"] for result in status["results"]] == ["colours"]
    assert f"colours {status['results'][0]['mean']:.2f}" in lab.kubectl("get", "pev", "probe")
    report = gcs.read(bucket, "work", status["reportURL"].removeprefix("gs://work/"))
    assert "colours" in json.dumps(json.loads(report))


def test_the_key_is_in_nothing_that_pods_say_or_write_and_in_no_object(lab: Cluster, trained: Manifest, bucket: str):
    logs = [lab.kubectl("logs", f"--selector={names.LABEL_RUN}={run}", "--tail=-1") for run in ("real", "probe")]
    logs += [lab.inside(release.NAMESPACE).kubectl("logs", f"deployment/{release.DEPLOYMENT}")]
    objects = lab.kubectl("get", "ppt,pev,jobs,pods,events,services", "-o", "json", "--show-managed-fields")
    written = {name: gcs.read(bucket, "work", name) for name in gcs.objects(bucket, "work", "")}
    assert all(logs)
    assert len(written) > 10
    assert [text for text in (*logs, objects) if CANARY in text] == []
    assert [name for name, content in written.items() if CANARY.encode() in content] == []


def finished(cluster: Cluster, kind: str, name: str) -> Manifest:
    """The resource once it has succeeded. If it fails, or takes too long, what its pods said is shown."""

    def look() -> Manifest | None:
        found = cluster.get(runs.SHORT[kind], name)
        ended = [c for c in ("Succeeded", "Failed") if condition(found, c).get("status") == "True"]
        return found if ended else None

    try:
        done = waiting.until(look, what=f"end of {name}", seconds=480, interval_seconds=1)
    except TimeoutError:
        done = cluster.get(runs.SHORT[kind], name)
    if condition(done, "Succeeded").get("status") != "True":
        logs = cluster.kubectl("logs", f"--selector={names.LABEL_RUN}={name}", "--tail=40", "--prefix")
        pytest.fail(f"{name} has not succeeded: {json.dumps(done['status'], indent=1)}\n{logs}")
    return done
