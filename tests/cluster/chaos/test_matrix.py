"""What clusters, people and other controllers do to runs: each story in a namespace of its own, side by side, under one operator."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from patho_api import names
from patho_operator import cluster
from tests.cluster.chaos import acts, admin, campaign, mishaps
from tests.cluster.chaos.acts import FIRST
from tests.cluster.chaos.campaign import Arena
from tests.cluster.chaos.life import RUN, Life

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

Story = Callable[[Life], Awaitable[None]]


async def a_deleted_job_comes_back(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    await life.admin.delete(cluster.path("Job", life.namespace, FIRST))
    await acts.running(life, 2)


async def a_job_deleted_without_its_pods_comes_back(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    await life.admin.delete(cluster.path("Job", life.namespace, FIRST), "Orphan")
    await acts.running(life, 2)


async def a_job_that_somebody_resizes_is_replaced(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    await life.admin.patch(cluster.path("Job", life.namespace, FIRST), {"spec": {"parallelism": 1}})
    await acts.running(life, 2)


async def a_job_that_somebody_suspends_is_replaced(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    await life.admin.patch(cluster.path("Job", life.namespace, FIRST), {"spec": {"suspend": True}})
    await acts.running(life, 2)


async def a_pod_that_lost_its_label_is_replaced_with_its_gang(life: Life) -> None:
    await acts.start(life, placementTimeoutSeconds=10)
    await acts.running(life, 1)
    pod = cluster.path("Pod", life.namespace, life.running()[1]["metadata"]["name"])
    await life.admin.patch(pod, {"metadata": {"labels": {names.LABEL_RUN: None}}})
    await acts.running(life, 2)


async def a_status_that_somebody_writes_is_put_right(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    wrong = {"phase": "Pending", "progress": None, "attempts": [], "observedGeneration": 0}
    await life.admin.patch(cluster.path(names.PRETRAIN, life.namespace, RUN, "status"), {"status": wrong})
    await acts.running(life, 1)
    assert life.told("observedGeneration") == (1,)


async def a_status_that_others_write_all_the_time_is_written_in_the_end(life: Life) -> None:
    """Each write of theirs makes the version on which the operator's rests an old one."""
    await acts.start(life)
    for number in range(60):
        path = cluster.path(names.PRETRAIN, life.namespace, RUN, "status")
        await life.admin.patch(path, {"status": {"acceleratorSeconds": number / 10}})
    await acts.running(life, 1)


async def an_edit_that_cannot_be_placed_and_back_restores_the_run(life: Life) -> None:
    await acts.start(life)
    await acts.running(life, 1)
    before = acts.pod_of(life, 1)
    await life.change({"compute": {"nodeSelector": {"zone": "nowhere"}}})
    await acts.says(life, "Running", "0 of 2 nodes placed")
    await life.change({"compute": {"nodeSelector": None}})
    await acts.running(life, 3)
    assert acts.pod_of(life, 3) == before


def deleted(propagation: str, when: Callable[[Life], Awaitable[None]], **shape: Any) -> Story:
    """A run that is deleted at a certain moment leaves nothing, or exactly what was asked for."""

    async def story(life: Life) -> None:
        await acts.start(life, **shape)
        await when(life)
        await life.admin.delete(cluster.path(names.PRETRAIN, life.namespace, RUN), propagation)
        await life.until("the resource is gone", lambda: not life.resource(names.PRETRAIN, RUN))
        if propagation != "Orphan":
            await life.until("no child left", lambda: not life.children())
        elif life.running():
            await acts.start(life)  # a new one under the old name does not take over what the user kept
            said = (f"waiting for pod {FIRST}", "exists and is not this PathoPretrain's")
            await life.until("a sentence", lambda: any(w in life.message(c) for w in said for c in ("Running", "Admitted")))

    story.__name__ = f"deleted_{propagation.lower()}_{when.__name__}"
    return story


async def as_soon_as_it_is_made(_: Life) -> None:
    return


async def while_it_runs(life: Life) -> None:
    await acts.running(life, 1)


async def while_it_stops(life: Life) -> None:
    await acts.running(life, 1)
    await life.change({"runPolicy": {"suspend": True}})
    await life.until("Suspending", lambda: life.told("phase") == ("Suspended",))


STORIES: list[Story] = [
    a_deleted_job_comes_back,
    a_job_deleted_without_its_pods_comes_back,
    a_job_that_somebody_resizes_is_replaced,
    a_job_that_somebody_suspends_is_replaced,
    a_pod_that_lost_its_label_is_replaced_with_its_gang,
    a_status_that_somebody_writes_is_put_right,
    a_status_that_others_write_all_the_time_is_written_in_the_end,
    mishaps.a_full_quota_is_told_and_waited_for,
    mishaps.a_quota_of_pods_is_told_and_waited_for,
    mishaps.a_run_that_no_node_takes_says_so_and_starts_when_one_does,
    mishaps.a_job_that_a_policy_denies_is_told_and_waited_for,
    mishaps.pods_that_a_policy_denies_are_told_and_waited_for,
    mishaps.an_overlay_too_large_for_the_api_server_is_told_and_a_smaller_one_starts,
    mishaps.an_image_that_cannot_be_pulled_is_named,
    mishaps.out_of_memory_is_an_incident_and_says_what_to_do,
    mishaps.a_preempted_pod_comes_back,
    mishaps.a_node_that_flaps_changes_nothing,
    an_edit_that_cannot_be_placed_and_back_restores_the_run,
    mishaps.an_index_drained_after_index_0_was_done_is_not_run_again,
    mishaps.an_index_0_drained_after_the_others_were_done_ends_as_a_new_attempt,
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
