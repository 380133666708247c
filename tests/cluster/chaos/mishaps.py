"""Stories of what clusters do to runs: what is full, lost, refused or taken away."""

from patho_operator import cluster
from tests.cluster.chaos import acts, admin
from tests.cluster.chaos.life import Life


async def a_full_quota_is_told_and_waited_for(life: Life) -> None:
    quota = await life.admin.create_quota(life.namespace, "none", {"count/jobs.batch": "0"})
    await acts.start(life)
    await acts.says(life, "Admitted", "exceeded quota: none")
    await life.admin.delete(quota)
    await acts.running(life, 1)


async def a_quota_of_pods_is_told_and_waited_for(life: Life) -> None:
    quota = await life.admin.create_quota(life.namespace, "one", {"pods": "1"})
    await acts.start(life)
    await acts.says(life, "Running", "1 of 2 pods run")
    await acts.says(life, "Admitted", "exceeded quota: one")
    await life.admin.delete(quota)
    await acts.running(life, 1)


async def a_job_that_a_policy_denies_is_told_and_waited_for(life: Life) -> None:
    policy = await life.admin.create_denial(life.namespace, "batch", "jobs", "no jobs on Mondays")
    await acts.start(life)
    await acts.says(life, "Admitted", "Job life-pt-1 cannot be made", "no jobs on Mondays")
    assert life.told("attempt", "restarts") == (0, 0)
    await life.admin.delete(policy)
    await acts.running(life, 1)


async def pods_that_a_policy_denies_are_told_and_waited_for(life: Life) -> None:
    policy = await life.admin.create_denial(life.namespace, "", "pods", "no pods on Mondays")
    await acts.start(life)
    await acts.says(life, "Running", "0 of 2 pods run", "no pods on Mondays")
    await life.admin.delete(policy)
    await acts.running(life, 1)


async def an_overlay_too_large_for_the_api_server_is_told_and_a_smaller_one_starts(life: Life) -> None:
    notes = {"metadata": {"annotations": {"lab.example/notes": "x" * 300_000}}}
    await acts.start(life, podTemplate=notes)
    await acts.says(life, "Admitted", "Job life-pt-1 cannot be made", "annotations: Too long")
    notes["metadata"]["annotations"]["lab.example/notes"] = "x" * 200_000
    await life.change({"compute": {"podTemplate": notes}})
    await acts.running(life, 1)


async def a_run_that_no_node_takes_says_so_and_starts_when_one_does(life: Life) -> None:
    await acts.start(life, nodeSelector={"zone": life.namespace})
    await acts.says(life, "Running", "0 of 2 nodes placed", "node(s) didn't match")
    await life.admin.patch("/api/v1/nodes/kwok-0", {"metadata": {"labels": {"zone": life.namespace}}})
    await acts.running(life, 1)


async def an_image_that_cannot_be_pulled_is_named(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/x"'}}
    kept = life.running()[1]
    await life.set_state(kept, "Pending", waiting)
    await acts.says(life, "Running", "nowhere/x")
    await life.set_state(kept, "Running", {"running": {"startedAt": "2030-01-01T00:00:00Z"}})
    await acts.running(life, 1)


async def out_of_memory_is_an_incident_and_says_what_to_do(life: Life) -> None:
    await acts.start(life, maxRestarts=0)
    await acts.running(life, 1)
    ended = {"exitCode": 137, "reason": "OOMKilled", "startedAt": "2030-01-01T00:00:00Z", "finishedAt": "2030-01-01T00:00:00Z"}
    await life.set_state(life.running()[1], "Failed", {"terminated": ended})
    await life.phase("Failed")
    assert "resources.limits.memory" in life.message("Failed")


async def a_preempted_pod_comes_back(life: Life) -> None:
    """The scheduler removes it for a pod of a higher class that needs its devices; it comes back when they are free."""
    gpus, here = {"limits": {"nvidia.com/gpu": "8"}}, {"preemption": "here"}
    for name, value in (("lowly", 1), ("lordly", 1000)):
        classes = "/apis/scheduling.k8s.io/v1/priorityclasses"
        await life.admin.create(classes, {"metadata": {"name": name}, "value": value})
    for node in ("kwok-6", "kwok-7"):
        await life.admin.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": here}})
    await acts.start(life, resources=gpus, nodeSelector=here, priorityClassName="lowly")
    await acts.running(life, 1)
    (container,) = admin.RESTRICTED_POD["containers"]
    spec = admin.RESTRICTED_POD | {"containers": [container | {"resources": gpus}], "priorityClassName": "lordly", "nodeSelector": here}
    await life.admin.create(cluster.path("Pod", life.namespace), {"metadata": {"name": "lord"}, "spec": spec})
    await acts.says(life, "Running", "1 of 2 nodes placed")
    await life.admin.delete(cluster.path("Pod", life.namespace, "lord"))
    await acts.running(life, 1)


async def a_node_that_flaps_changes_nothing(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    before = [pod["metadata"]["uid"] for pod in life.running()]
    node = life.running()[1]["spec"]["nodeName"]
    flapped = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}}
    for _ in range(3):
        await life.admin.request("PATCH", f"/api/v1/nodes/{node}/status", flapped, "application/strategic-merge-patch+json")
    await acts.running(life, 1)
    assert [pod["metadata"]["uid"] for pod in life.running()] == before


async def an_index_drained_after_index_0_was_done_is_not_run_again(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    drained = acts.pod_at(life, 1)
    await acts.end(life, 0)
    await acts.evict(life, drained)
    await life.until("Succeeded", lambda: life.holds("Succeeded"))
    assert life.told("attempt", "restarts") == (1, 0)
    assert life.checker.indexes(life.uid) == [0, 1]


async def an_index_0_drained_after_the_others_were_done_ends_as_a_new_attempt(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    await acts.end(life, 1)
    await acts.evict(life, acts.pod_at(life, 0))
    await acts.running(life, 2)
    assert life.told("attempts")[0][0]["reason"] == "LeftAlone"
    await acts.end(life, 0)
    await life.until("Succeeded", lambda: life.holds("Succeeded"))
