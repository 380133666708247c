"""What a run does beyond its pods, on fake nodes: evaluations of its checkpoints, nodes that die, queues that admit and evict."""

import json

import pytest

from patho_api import names
from tests.cluster import kwok, runs, waiting
from tests.cluster.cluster import Cluster, Manifest, condition
from tests.cluster.processes import Processes

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]


def score(mean: float) -> dict:
    return {"task": "PatchClassification", "metric": "balancedAccuracy", "mean": mean, "std": 0.01, "runs": 5, "samples": 40}


def probe(name: str, every_steps: int, annotations: dict[str, str]) -> dict:
    """An entry of spec.evaluations whose fake pods carry `annotations`."""
    tasks = [{"name": "PatchClassification", "data": "gs://slides/patches"}]
    template = {"tasks": tasks, "compute": {"podTemplate": {"metadata": {"annotations": annotations}}}}
    return {"name": name, "everySteps": every_steps, "template": template}


def test_checkpoints_are_scored_and_the_best_is_named_while_a_failing_evaluation_changes_nothing(here: Cluster):
    saved = {"step": 20, "url": "gs://work/scored/step-00000020"}
    run = runs.pretrain("scored", nodes=1, annotations=runs.ends(0, reason="Completed", step=20, checkpoint=saved))
    run["spec"]["checkpoints"]["everySteps"] = 10
    good = probe("good", 20, runs.ends(0, reason="Completed", results=[score(0.875)]))
    bad = probe("bad", 10, runs.ends(names.EXIT_NO_DATA, reason="DataNotFound", message="gs://slides/patches is empty"))
    run["spec"]["evaluations"] = [good, bad]
    here.apply(run)
    runs.wait_for(here, "scored", "Succeeded")

    def told() -> Manifest | None:
        found = here.get("ppt", "scored")["status"]
        return found if found["checkpoint"].get("best") and found["evaluations"][1].get("message") else None

    status = waiting.until(told, what="scores of both evaluations")
    assert (status["checkpoint"]["best"]["step"], status["checkpoint"]["best"]["score"]) == (20, 0.875)
    assert status["evaluations"][0]["results"][0]["mean"] == 0.875
    assert "gs://slides/patches is empty" in status["evaluations"][1]["message"]
    assert status["phase"] == "Succeeded"
    children = here.list("pev", f"{names.LABEL_PRETRAIN}=scored")
    assert sorted(c["metadata"]["labels"][names.LABEL_EVALUATION] for c in children) == ["bad", "bad", "good"]
    here.apply(best_of("scored", "again"))
    assert waiting.until(lambda: here.get("pev", "again").get("status", {}).get("modelUrl"), what="a model") == saved["url"]
    here.kubectl("delete", "ppt", "scored")
    here.wait_gone("pev", f"{names.LABEL_PRETRAIN}=scored")


@pytest.mark.slow
def test_a_pod_on_a_dead_node_is_written_off_and_replaced_without_an_incident(here: Cluster, processes: Processes):
    """The shipped podFailurePolicy replaces a pod only once it is Failed, and nobody is left to say so for the dead node's pod."""
    kwok.start(processes, here.kubeconfig, kind="doomed")
    doomed = kwok.add_nodes(here, 1, kind="doomed")[0]
    run = runs.pretrain("bereft", gracePeriodSeconds=5)
    run["spec"]["compute"] |= {
        "resources": {"limits": {"nvidia.com/gpu": 8}},
        "tolerations": [{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1}],
    }
    run["spec"]["compute"]["podTemplate"]["spec"] = {"affinity": prefers("doomed")}
    here.apply(run)
    first = runs.running(here, "bereft", 2)
    lost = next(pod for pod in first if pod["spec"]["nodeName"] == doomed)
    kept = next(pod for pod in first if pod is not lost)
    processes.kill(kwok.process_name("doomed"))
    waiting.until(lambda: runs.uid(lost) not in map(runs.uid, runs.pods(here, "bereft")), what="the lost pod goes", seconds=180)
    now = runs.running(here, "bereft", 2)
    assert runs.uid(kept) in map(runs.uid, now)
    assert doomed not in [pod["spec"]["nodeName"] for pod in now]
    status = here.get("ppt", "bereft")["status"]
    assert (status["attempt"], status["restarts"]) == (1, 0)
    here.kubectl("delete", "node", doomed)


def prefers(kind: str) -> dict:
    """Node affinity for nodes of a kind, as long as they are there."""
    wanted = {"matchExpressions": [{"key": kwok.KIND, "operator": "In", "values": [kind]}]}
    return {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 100, "preference": wanted}]}}


def test_a_queued_run_obeys_kueue_admitted_in_part_evicted_admitted_again_and_queues_again_as_a_new_attempt(here: Cluster):
    """Kueue itself is played by hand, with the writes that it makes."""
    run = runs.pretrain("queued", nodes=3)
    run["spec"]["compute"] |= {"queueName": "gpus", "minNodes": 2}
    here.apply(run)
    job = waiting.until(lambda: here.exists("job", "queued-pt-1") and here.get("job", "queued-pt-1"), what="the Job")
    assert (job["spec"]["suspend"], job["metadata"]["labels"][names.LABEL_QUEUE]) == (True, "gpus")
    assert job["metadata"]["annotations"]["kueue.x-k8s.io/job-min-parallelism"] == "2"
    in_phase(here, "queued", "Queued")
    admit(here, "queued-pt-1", 2, {kwok.KIND: "fake"})
    assert [pod["spec"]["nodeSelector"] for pod in runs.running(here, "queued", 2)] == [{kwok.KIND: "fake"}] * 2
    in_phase(here, "queued", "Running")
    assert runs.uid(here.get("job", "queued-pt-1")) == runs.uid(job)
    evict(here, "queued-pt-1", 3)
    here.wait_gone("pods", f"{names.LABEL_RUN}=queued")
    in_phase(here, "queued", "Queued")
    admit(here, "queued-pt-1", 3, {})
    runs.running(here, "queued", 3)
    in_phase(here, "queued", "Running")
    here.kubectl("patch", "ppt", "queued", "--type=merge", "-p", json.dumps({"spec": {"training": {"learningRate": 0.001}}}))
    waiting.until(lambda: here.exists("job", "queued-pt-2"), what="Job of attempt 2")
    status = in_phase(here, "queued", "Queued")
    assert "queues again" in condition({"status": status}, "Admitted")["message"]
    assert (status["attempt"], status["restarts"], here.get("job", "queued-pt-2")["spec"]["suspend"]) == (2, 0, True)


def in_phase(cluster: Cluster, run: str, phase: str) -> dict:
    """Status of a run once it is in a phase."""

    def look() -> dict | None:
        found = cluster.get("ppt", run).get("status", {})
        return found if found.get("phase") == phase else None

    return waiting.until(look, what=f"phase {phase} of {run}") or {}


def admit(cluster: Cluster, job: str, pods: int, selector: dict[str, str]) -> None:
    """What Kueue writes when it admits a Job, perhaps in part: all in one update."""
    template = {"spec": {"nodeSelector": selector}} if selector else {}
    patch = {"suspend": False, "parallelism": pods, "completions": pods, "template": template}
    cluster.kubectl("patch", "job", job, "--type=merge", "-p", json.dumps({"spec": patch}))


def evict(cluster: Cluster, job: str, pods: int) -> None:
    """What it writes when it takes the admission back: suspended first, then as it was before."""
    cluster.kubectl("patch", "job", job, "--type=merge", "-p", json.dumps({"spec": {"suspend": True}}))
    waiting.until(lambda: not cluster.get("job", job)["status"].get("active"), what="the Job controller has stopped it")
    cluster.kubectl("patch", "job", job, "--subresource=status", "--type=merge", "-p", json.dumps({"status": {"startTime": None}}))
    before = {"parallelism": pods, "completions": pods, "template": {"spec": {"nodeSelector": None}}}
    cluster.kubectl("patch", "job", job, "--type=merge", "-p", json.dumps({"spec": before}))


def best_of(run: str, name: str) -> Manifest:
    """A PathoEval of a run's best checkpoint."""
    manifest = runs.evaluation(name, {})
    manifest["spec"]["model"] = {"pretrain": {"name": run, "checkpoint": "Best"}}
    return manifest
