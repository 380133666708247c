"""Runs through a real API server, Job controller and scheduler, by the operator with its shipped rights; pods are fake."""

import json
import pathlib

import pytest

from patho_api import names
from tests.cluster import kwok, release, runs, waiting
from tests.cluster.cluster import Cluster, Manifest, Refused, condition

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]

EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "pretrain.yaml"


def test_the_example_becomes_one_indexed_job_and_succeeds(here: Cluster):
    here.kubectl("apply", "-f", str(EXAMPLE))
    assert [runs.index(pod) for pod in runs.running(here, "vits16", 2)] == [0, 1]
    runs.wait_for(here, "vits16", "Running")
    job = here.get("job", "vits16-pt-1")["spec"]
    assert (job["completionMode"], job["completions"], job["parallelism"], job["maxFailedIndexes"]) == ("Indexed", 2, 2, 0)
    assert here.get("service", "vits16-pt")["spec"]["clusterIP"] == "None"
    runs.end_all(here, "vits16")
    done = runs.wait_for(here, "vits16", "Succeeded")
    assert (done["status"]["phase"], done["status"]["attempt"], done["status"]["restarts"]) == ("Succeeded", 1, 0)
    assert "vits16" in (row := here.kubectl("get", "ppt"))
    assert "Succeeded" in row


def test_a_run_carries_no_finalizers_and_no_annotations_of_the_operator(here: Cluster):
    here.apply(runs.pretrain("plain"))
    found = runs.wait_for(here, "plain", "Running")["metadata"]
    assert "finalizers" not in found
    assert set(found.get("annotations", {})) <= {"kubectl.kubernetes.io/last-applied-configuration"}


def test_a_failed_pod_is_replaced_and_counted_once(here: Cluster):
    here.apply(runs.pretrain("replaced"))
    first = runs.running(here, "replaced", 2)
    kwok.end_pod(here, first[1]["metadata"]["name"], 1)
    waiting.until(lambda: len(runs.pods(here, "replaced")) == 3, what="a third pod")
    after = runs.running(here, "replaced", 2)
    assert runs.uid(after[0]) == runs.uid(first[0])
    runs.end_all(here, "replaced")
    status = runs.wait_for(here, "replaced", "Succeeded")["status"]
    assert (status["restarts"], status["attempt"]) == (1, 1)


def test_too_many_failures_end_in_failed_with_the_reason(here: Cluster):
    here.apply(runs.pretrain("crashing", annotations=runs.ends(1, reason="Crashed", message="CUDA error: device lost"), maxRestarts=0))
    failed = runs.wait_for(here, "crashing", "Failed")
    assert "maxRestarts" in condition(failed, "Failed")["message"]
    assert "device lost" in condition(failed, "Failed")["message"]
    assert not [p for p in runs.pods(here, "crashing") if p["status"]["phase"] in ("Pending", "Running")]


def test_a_permanent_error_ends_the_run_at_once_in_the_pods_own_words(here: Cluster):
    words = {"reason": "DataNotFound", "message": "gs://slides/ holds no slide: check spec.slides.source"}
    here.apply(runs.pretrain("empty", annotations=runs.ends(names.EXIT_NO_DATA, **words)))
    failed = condition(runs.wait_for(here, "empty", "Failed"), "Failed")
    assert failed["reason"] == words["reason"]
    assert words["message"] in failed["message"]


def test_suspend_stops_the_pods_and_resume_is_attempt_2(here: Cluster):
    here.apply(runs.pretrain("paused"))
    runs.running(here, "paused", 2)
    change(here, "paused", {"runPolicy": {"suspend": True}})
    runs.wait_for(here, "paused", "Suspended")
    waiting.until(lambda: not runs.pods(here, "paused"), what="no pods")
    change(here, "paused", {"runPolicy": {"suspend": False}})
    resumed = runs.running(here, "paused", 2)
    assert {pod["metadata"]["labels"][names.LABEL_ATTEMPT] for pod in resumed} == {"2"}
    runs.end_all(here, "paused")
    status = runs.wait_for(here, "paused", "Succeeded")["status"]
    assert (status["attempt"], status["restarts"]) == (2, 0)


def test_an_evicted_pod_is_replaced_and_not_counted(here: Cluster):
    here.apply(runs.pretrain("evicted"))
    victim = runs.running(here, "evicted", 2)[1]["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": victim, "namespace": here.namespace}}
    here.kubectl("create", "--raw", f"/api/v1/namespaces/{here.namespace}/pods/{victim}/eviction", "-f", "-", stdin=json.dumps(eviction))
    waiting.until(lambda: victim not in names_of(runs.pods(here, "evicted")), what="the evicted pod goes")
    runs.running(here, "evicted", 2)
    runs.end_all(here, "evicted")
    status = runs.wait_for(here, "evicted", "Succeeded")["status"]
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_other_training_is_a_new_attempt_and_another_policy_is_not(here: Cluster):
    here.apply(runs.pretrain("changed"))
    runs.running(here, "changed", 2)
    change(here, "changed", {"runPolicy": {"maxRestarts": 3}})
    change(here, "changed", {"training": {"learningRate": 0.001}})
    waiting.until(lambda: here.exists("job", "changed-pt-2"), what="Job of attempt 2")
    runs.running(here, "changed", 2)
    runs.end_all(here, "changed")
    assert runs.wait_for(here, "changed", "Succeeded")["status"]["attempt"] == 2


def test_a_run_fails_at_its_deadline(here: Cluster):
    here.apply(runs.pretrain("late", activeDeadlineSeconds=3))
    failed = runs.wait_for(here, "late", "Failed")
    assert "activeDeadlineSeconds" in condition(failed, "Failed")["message"]
    assert not [p for p in runs.pods(here, "late") if p["status"]["phase"] == "Running"]


def test_a_finished_run_is_deleted_after_its_time(here: Cluster):
    here.apply(runs.pretrain("brief", nodes=1, annotations=runs.ends(0), ttlSecondsAfterFinished=1))
    waiting.until(lambda: not here.exists("ppt", "brief"), what="deletion of the finished run")
    here.wait_gone("jobs", f"{names.LABEL_RUN}=brief")


def test_killing_the_operator_changes_nothing_for_a_run(here: Cluster, operator: release.Operator):
    here.apply(runs.pretrain("steady"))
    before = runs.running(here, "steady", 2)
    runs.wait_for(here, "steady", "Running")
    operator.kill()
    operator.start()
    waiting.until(lambda: "steady" in operator.log(), what="the new operator looks at the run")
    assert [runs.uid(p) for p in runs.running(here, "steady", 2)] == [runs.uid(p) for p in before]
    runs.end_all(here, "steady")
    status = runs.wait_for(here, "steady", "Succeeded")["status"]
    assert (status["attempt"], status["restarts"]) == (1, 0)


def test_a_run_that_ends_while_the_operator_is_down_is_found_afterwards(here: Cluster, operator: release.Operator):
    here.apply(runs.pretrain("alone", nodes=1))
    runs.running(here, "alone", 1)
    operator.kill()
    try:
        runs.end_all(here, "alone")
        waiting.until(lambda: condition(here.get("job", "alone-pt-1"), "Complete"), what="Job complete")
    finally:
        operator.start()
    assert runs.wait_for(here, "alone", "Succeeded")["status"]["attempt"] == 1


def test_deleting_a_run_removes_everything_of_it(here: Cluster):
    here.apply(runs.pretrain("gone"))
    runs.running(here, "gone", 2)
    here.kubectl("delete", "ppt", "gone")
    for kind in ("pods", "jobs", "services"):
        here.wait_gone(kind, f"{names.LABEL_RUN}=gone")


def test_scores_of_an_evaluation_appear_in_kubectl_get(here: Cluster):
    score = {"task": "PatchClassification", "metric": "balancedAccuracy", "mean": 0.875, "std": 0.0125, "runs": 5, "samples": 40}
    here.apply(runs.evaluation("probes", runs.ends(0, reason="Completed", results=[score], reportURL="gs://work/probes/results.json")))
    runs.wait_for(here, "probes", "Succeeded", of=names.EVAL)
    assert "PatchClassification 0.88" in here.kubectl("get", "pev", "probes")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 10}, 'unknown field "spec.steps"'),
        ({"method": "BYOL"}, 'spec.method: Unsupported value: "BYOL": supported values: "DINO", "DINOv2"'),
        ({"training": {"batchSize": 1}}, "training.batchSize must give every process at least one patch"),
        ({"checkpoints": {}}, "spec.checkpoints.url: Required value"),
    ],
)
def test_a_wrong_manifest_is_refused_with_a_sentence(here: Cluster, wrong: dict, says: str):
    manifest = runs.pretrain("wrong")
    manifest["spec"] |= wrong
    with pytest.raises(Refused) as refused:
        here.apply(manifest)
    assert says in str(refused.value)


@pytest.mark.parametrize(
    "forbidden", ["get secrets", "create pods", "delete nodes", "create clusterrolebindings.rbac.authorization.k8s.io"]
)
def test_the_operator_may_do_no_more_than_it_needs(cluster: Cluster, forbidden: str):
    account = f"system:serviceaccount:{release.NAMESPACE}:{release.NAME}"
    with pytest.raises(Refused, match=r"auth can-i"):
        cluster.kubectl("auth", "can-i", *forbidden.split(), f"--as={account}", "--all-namespaces")


def change(cluster: Cluster, name: str, spec: dict) -> None:
    """Edit a run as a user does."""
    cluster.kubectl("patch", "ppt", name, "--type=merge", "-p", json.dumps({"spec": spec}))


def names_of(objects: list[Manifest]) -> list[str]:
    return [o["metadata"]["name"] for o in objects]
