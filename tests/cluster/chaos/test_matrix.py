"""What clusters, people and other controllers do to runs: each story in a namespace of its own, side by side, under one operator."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from patho_api import names
from patho_operator import cluster
from tests.cluster import runs
from tests.cluster.chaos import admin, campaign
from tests.cluster.chaos.campaign import Arena
from tests.cluster.chaos.life import RUN, Life

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

FIRST = f"{RUN}-pt-1"
Story = Callable[[Life], Awaitable[None]]


async def start(life: Life, **changes: Any) -> None:
    """A run of two nodes; `changes` go to its compute or, in camelCase of the run policy, to that."""
    compute = {key: changes.pop(key) for key in ("nodeSelector", "priorityClassName", "resources") if key in changes}
    manifest = runs.pretrain(RUN, nodes=2, **changes)
    manifest["spec"]["compute"] |= compute
    await life.admin.create(cluster.path(names.PRETRAIN, life.namespace), manifest)


async def running(life: Life, attempt: int) -> None:
    """Both pods of an attempt run and the status says so; nothing was counted."""
    await life.until(f"attempt {attempt} runs", lambda: life.told("phase", "attempt") == ("Running", attempt) and len(life.running()) == 2)
    assert life.told("restarts") == (0,)


async def says(life: Life, condition: str, *words: str) -> None:
    """A condition that is not True has these words."""
    await life.until(f"{condition}: {words}", lambda: all(word in life.message(condition) for word in words))


async def a_deleted_job_comes_back(life: Life) -> None:
    await start(life)
    await running(life, 1)
    await life.admin.delete(cluster.path("Job", life.namespace, FIRST))
    await running(life, 2)


async def a_job_deleted_without_its_pods_comes_back(life: Life) -> None:
    await start(life)
    await running(life, 1)
    await life.admin.delete(cluster.path("Job", life.namespace, FIRST), "Orphan")
    await running(life, 2)


async def a_job_that_somebody_resizes_is_replaced(life: Life) -> None:
    await start(life)
    await running(life, 1)
    await life.admin.patch(cluster.path("Job", life.namespace, FIRST), {"spec": {"parallelism": 1}})
    await running(life, 2)


async def a_job_that_somebody_suspends_is_replaced(life: Life) -> None:
    await start(life)
    await running(life, 1)
    await life.admin.patch(cluster.path("Job", life.namespace, FIRST), {"spec": {"suspend": True}})
    await running(life, 2)


async def a_pod_that_lost_its_label_is_replaced_with_its_gang(life: Life) -> None:
    await start(life, placementTimeoutSeconds=10)
    await running(life, 1)
    pod = cluster.path("Pod", life.namespace, life.running()[1]["metadata"]["name"])
    await life.admin.patch(pod, {"metadata": {"labels": {names.LABEL_RUN: None}}})
    await running(life, 2)


async def a_status_that_somebody_writes_is_put_right(life: Life) -> None:
    await start(life)
    await running(life, 1)
    wrong = {"phase": "Pending", "progress": None, "attempts": [], "observedGeneration": 0}
    await life.admin.patch(cluster.path(names.PRETRAIN, life.namespace, RUN, "status"), {"status": wrong})
    await running(life, 1)
    assert life.told("observedGeneration") == (1,)


async def a_full_quota_is_told_and_waited_for(life: Life) -> None:
    quota = await life.admin.create_quota(life.namespace, "none", {"count/jobs.batch": "0"})
    await start(life)
    await says(life, "Admitted", "exceeded quota: none")
    await life.admin.delete(quota)
    await running(life, 1)


async def a_quota_of_pods_is_told_and_waited_for(life: Life) -> None:
    quota = await life.admin.create_quota(life.namespace, "one", {"pods": "1"})
    await start(life)
    await says(life, "Running", "1 of 2 pods run")
    await says(life, "Admitted", "exceeded quota: one")
    await life.admin.delete(quota)
    await running(life, 1)


async def a_run_that_no_node_takes_says_so_and_starts_when_one_does(life: Life) -> None:
    await start(life, nodeSelector={"zone": life.namespace})
    await says(life, "Running", "0 of 2 nodes placed", "node(s) didn't match")
    await life.admin.patch("/api/v1/nodes/kwok-0", {"metadata": {"labels": {"zone": life.namespace}}})
    await running(life, 1)


async def an_image_that_cannot_be_pulled_is_named(life: Life) -> None:
    await start(life)
    await running(life, 1)
    waiting = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "nowhere/x"'}}
    kept = life.running()[1]
    await life.set_state(kept, "Pending", waiting)
    await says(life, "Running", "nowhere/x")
    await life.set_state(kept, "Running", {"running": {"startedAt": "2030-01-01T00:00:00Z"}})
    await running(life, 1)


async def out_of_memory_is_an_incident_and_says_what_to_do(life: Life) -> None:
    await start(life, maxRestarts=0)
    await running(life, 1)
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
    await start(life, resources=gpus, nodeSelector=here, priorityClassName="lowly")
    await running(life, 1)
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
    container = {"name": "main", "image": "none", "resources": gpus, "securityContext": security}
    strict = {"seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container], "priorityClassName": "lordly", "nodeSelector": here, "securityContext": strict}
    await life.admin.create(cluster.path("Pod", life.namespace), {"metadata": {"name": "lord"}, "spec": spec})
    await says(life, "Running", "1 of 2 nodes placed")
    await life.admin.delete(cluster.path("Pod", life.namespace, "lord"))
    await running(life, 1)


async def a_node_that_flaps_changes_nothing(life: Life) -> None:
    await start(life)
    await running(life, 1)
    before = [pod["metadata"]["uid"] for pod in life.running()]
    node = life.running()[1]["spec"]["nodeName"]
    flapped = {"status": {"conditions": [{"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"}]}}
    for _ in range(3):
        await life.admin.request("PATCH", f"/api/v1/nodes/{node}/status", flapped, "application/strategic-merge-patch+json")
    await running(life, 1)
    assert [pod["metadata"]["uid"] for pod in life.running()] == before


async def an_edit_that_cannot_be_placed_and_back_restores_the_run(life: Life) -> None:
    await start(life)
    await running(life, 1)
    before = pod_of(life, 1)
    await life.change({"compute": {"nodeSelector": {"zone": "nowhere"}}})
    await says(life, "Running", "0 of 2 nodes placed")
    await life.change({"compute": {"nodeSelector": None}})
    await running(life, 3)
    assert pod_of(life, 3) == before


def pod_of(life: Life, attempt: int) -> Any:
    """The pod template of an attempt without what tells attempts apart."""
    (container,) = life.job(attempt)["spec"]["template"]["spec"]["containers"]
    own = (names.ENV_ATTEMPT, names.ENV_RANK0_HOST)
    return life.job(attempt)["spec"]["template"]["spec"] | {
        "containers": [container | {"args": len(container["args"]), "env": [e for e in container["env"] if e["name"] not in own]}]
    }


def deleted(propagation: str, when: Callable[[Life], Awaitable[None]], **shape: Any) -> Story:
    """A run that is deleted at a certain moment leaves nothing, or exactly what was asked for."""

    async def story(life: Life) -> None:
        await start(life, **shape)
        await when(life)
        await life.admin.delete(cluster.path(names.PRETRAIN, life.namespace, RUN), propagation)
        await life.until("the resource is gone", lambda: not life.resource(names.PRETRAIN, RUN))
        if propagation != "Orphan":
            await life.until("no child left", lambda: not life.children())
        elif life.running():
            await start(life)  # a new one under the old name does not take over what the user kept
            said = (f"waiting for pod {FIRST}", "exists and is not this PathoPretrain's")
            await life.until("a sentence", lambda: any(w in life.message(c) for w in said for c in ("Running", "Admitted")))

    story.__name__ = f"deleted_{propagation.lower()}_{when.__name__}"
    return story


async def as_soon_as_it_is_made(_: Life) -> None:
    return


async def while_it_runs(life: Life) -> None:
    await running(life, 1)


async def while_it_stops(life: Life) -> None:
    await running(life, 1)
    await life.change({"runPolicy": {"suspend": True}})
    await life.until("Suspending", lambda: life.told("phase") == ("Suspended",))


STORIES: list[Story] = [
    a_deleted_job_comes_back,
    a_job_deleted_without_its_pods_comes_back,
    a_job_that_somebody_resizes_is_replaced,
    a_job_that_somebody_suspends_is_replaced,
    a_pod_that_lost_its_label_is_replaced_with_its_gang,
    a_status_that_somebody_writes_is_put_right,
    a_full_quota_is_told_and_waited_for,
    a_quota_of_pods_is_told_and_waited_for,
    a_run_that_no_node_takes_says_so_and_starts_when_one_does,
    an_image_that_cannot_be_pulled_is_named,
    out_of_memory_is_an_incident_and_says_what_to_do,
    a_preempted_pod_comes_back,
    a_node_that_flaps_changes_nothing,
    an_edit_that_cannot_be_placed_and_back_restores_the_run,
    *[deleted(p, w) for p in ("Foreground", "Background", "Orphan") for w in (as_soon_as_it_is_made, while_it_runs, while_it_stops)],
]


async def test_every_story_ends_as_it_should(arena: Arena):
    async with campaign.world(arena) as made, made.lane("matrix") as lane:

        async def tell(story: Story) -> str:
            life = Life(made.admin, made.witness, made.checker, await made.namespace())
            try:
                await story(life)
            except (AssertionError, TimeoutError, admin.Failed) as error:
                return f"{story.__name__}: {type(error).__name__} {error}"
            return ""

        failures = [failure for failure in await asyncio.gather(*map(tell, STORIES)) if failure]
        assert not lane.crashes
    assert not failures, "\n".join(failures)
    assert not made.checker.violations
