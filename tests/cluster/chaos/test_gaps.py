"""What happens while a watch has expired (410): its client lists anew, and is told of nothing that went in between."""

import asyncio

import pytest

from patho_api import names
from patho_operator import cluster
from tests.cluster.chaos import acts, campaign, watches
from tests.cluster.chaos.acts import FIRST
from tests.cluster.chaos.campaign import Arena, World
from tests.cluster.chaos.life import RUN, Life

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

ONCE = 10**6
SELDOM = "600"  # seconds between complete lists: none comes by itself within a test


async def expire(made: World, life: Life, kind: str, name: str, gap: asyncio.Event) -> None:
    """The operator's watch of a kind ends, and its next list waits for the end of the gap."""
    plural = cluster.PATHS[kind][1]
    fault = made.proxy.watches.faults[life.namespace] = watches.Fault("expired", plural, 1, ONCE, relist=gap)
    await life.admin.patch(cluster.path(kind, life.namespace, name), {"metadata": {"annotations": {"lab.example/touched": "yes"}}})
    async with asyncio.timeout(60):
        while not fault.hits:
            await asyncio.sleep(0.1)


async def test_what_is_deleted_while_a_watch_has_expired_is_not_led_on(arena: Arena):
    async with campaign.world(arena) as made, made.lane("gaps", PATHO_RELIST_SECONDS=SELDOM) as lane:
        gone, again, jobless, podless = [
            Life(made.admin, made.witness, made.checker, await made.namespace()) for _ in ("gone", "again", "jobless", "podless")
        ]
        for life in (everybody := (gone, again, jobless, podless)):
            await acts.start(life)
        for life in everybody:
            await acts.running(life, 1)
        gap, lost = asyncio.Event(), acts.pod_at(podless, 1)
        await expire(made, gone, names.PRETRAIN, RUN, gap)
        await expire(made, jobless, "Job", FIRST, gap)
        await expire(made, podless, "Pod", lost["metadata"]["name"], gap)
        for life in (gone, again):
            await life.admin.delete(cluster.path(names.PRETRAIN, life.namespace, RUN))
            await life.until("no child left", lambda life=life: not life.children())
        await acts.start(again)
        await jobless.admin.delete(cluster.path("Job", jobless.namespace, FIRST))
        await podless.admin.delete(cluster.path("Pod", podless.namespace, lost["metadata"]["name"]))
        gap.set()
        for life, attempt in ((again, 1), (jobless, 2), (podless, 1)):
            await acts.running(life, attempt)
        await acts.start(gone)
        await acts.running(gone, 1)
        assert not lane.crashes
        assert not made.checker.violations


async def test_a_job_that_was_the_only_one_is_missed_too(arena: Arena):
    """The watch lists anew and finds nothing: no object is there whose event could tell."""
    async with campaign.world(arena) as made, made.lane("lonely", PATHO_RELIST_SECONDS=SELDOM) as lane:
        life = Life(made.admin, made.witness, made.checker, await made.namespace())
        await acts.start(life)
        await acts.running(life, 1)
        gap = asyncio.Event()
        await expire(made, life, "Job", FIRST, gap)
        await life.admin.delete(cluster.path("Job", life.namespace, FIRST))
        await life.until("its Job is gone", lambda: not life.resource("Job", FIRST))
        gap.set()
        await acts.running(life, 2)
        assert not lane.crashes
        assert not made.checker.violations
