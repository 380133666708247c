"""The test cluster itself: what every other cluster test relies on."""

import os
import subprocess

import pytest

from tests.cluster import kwok, waiting
from tests.cluster.cluster import Cluster, Refused, condition
from tests.cluster.processes import Died, Processes


def job(name: str, annotations: dict[str, str]) -> dict:
    container = {
        "name": "main",
        "image": "none",
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True},
    }
    pod = {"restartPolicy": "Never", "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}, "containers": [container]}
    template = {"metadata": {"annotations": annotations}, "spec": pod}
    spec = {"completionMode": "Indexed", "completions": 2, "parallelism": 2, "backoffLimit": 0, "template": template}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": spec}


def test_a_wait_that_fails_says_what_it_saw():
    with pytest.raises(TimeoutError, match=r"a miracle: not within 0 s; last seen: \[\]"):
        waiting.until(list, what="a miracle", seconds=0.1)


def test_a_process_that_died_shows_the_end_of_its_log(tmp_path):
    group = Processes(tmp_path)
    group.start("talker", ["sh", "-c", "echo it hurts; exit 3"])
    with pytest.raises(Died, match="it hurts"):
        waiting.until(lambda: not group.check("talker"), what="end of talker", seconds=10)


def test_stopping_ends_a_process_that_ignores_the_request(tmp_path):
    group = Processes(tmp_path)
    pid = group.start("stubborn", ["sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"])
    group.stop("stubborn", seconds=0.5)
    assert not group.pid("stubborn")
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_foreign_process_with_a_known_pid_is_left_alone(tmp_path):
    with subprocess.Popen(["sleep", "60"]) as foreign:
        (tmp_path / "reused.pid").write_text(f"{foreign.pid} 1")
        Processes(tmp_path).stop_all()
        assert foreign.poll() is None
        foreign.kill()


@pytest.mark.cluster
def test_fake_pods_end_as_their_annotations_say(here: Cluster):
    here.apply(job("fine", {kwok.EXIT_CODE: "0", kwok.RUN_FOR: "1s"}), job("broken", {kwok.EXIT_CODE: "7"}))
    waiting.until(lambda: condition(here.get("job", "fine"), "Complete"), what="job fine complete")
    waiting.until(lambda: condition(here.get("job", "broken"), "Failed"), what="job broken failed")


@pytest.mark.cluster
def test_a_fake_pod_runs_until_it_is_told_to_end(here: Cluster):
    here.apply(job("told", {}))
    pods = waiting.until(lambda: _running(here, "told"), what="two pods of job told")
    kwok.end_pod(here, pods[0]["metadata"]["name"], 3, "lost my slides")
    waiting.until(lambda: condition(here.get("job", "told"), "Failed"), what="job told failed")
    state = here.get("pod", pods[0]["metadata"]["name"])["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (state["exitCode"], state["message"]) == (3, "lost my slides")


@pytest.mark.cluster
def test_a_namespace_of_a_test_refuses_pods_that_are_not_restricted(here: Cluster):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "greedy"}, "spec": {"containers": [{"name": "x", "image": "x"}]}}
    with pytest.raises(Refused, match="violates PodSecurity"):
        here.apply(pod)


def _running(cluster: Cluster, job_name: str) -> list[dict]:
    pods = [p for p in cluster.list("pods", f"batch.kubernetes.io/job-name={job_name}") if p["status"]["phase"] == "Running"]
    return pods if len(pods) == 2 else []
