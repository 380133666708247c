"""Faults at calls and events of a whole life: what becomes of the run must be the same. A seeded part here, everything in `make chaos`."""

import random

import pytest

from tests.cluster.chaos import campaign, proxy, watches
from tests.cluster.chaos.campaign import Arena, Case, Outcome

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SEED = 20260101


def some(cases: list[Case], each: int) -> list[Case]:
    """So many of each kind."""
    rng, kinds = random.Random(SEED), dict.fromkeys(case.kind for case in cases)
    return [case for kind in kinds for case in rng.sample([c for c in cases if c.kind == kind], each)]


def judge(outcomes: list[Outcome]) -> None:
    print(campaign.told(outcomes))
    assert any(o.befell for o in outcomes)  # a life may have fewer calls or events than a fault waits for
    assert not [o for o in outcomes if o.wrong], campaign.told(outcomes)


async def test_calls_that_fail_change_nothing(arena: Arena):
    async with campaign.world(arena) as made, made.lane("errors") as lane:
        judge(await campaign.side_by_side(made, some(campaign.calls(proxy.ERRORS), 2), 14))
        assert not lane.crashes


async def test_an_operator_that_is_killed_again_and_again_changes_nothing(arena: Arena):
    async with campaign.world(arena) as made:
        judge(await campaign.each_with_an_operator(made, some(campaign.calls(proxy.KILLS), 2), 4))


async def test_watches_that_lie_change_nothing(arena: Arena):
    async with campaign.world(arena) as made, made.lane("watches") as lane:
        judge(await campaign.side_by_side(made, some(campaign.events(watches.KINDS), 2), 12))
        assert not lane.crashes
