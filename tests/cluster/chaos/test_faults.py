"""Faults at calls and events of a whole life: what becomes of the run must be the same. A seeded part here, everything in `make chaos`."""

import random

import pytest

from tests.cluster.chaos import campaign, proxy
from tests.cluster.chaos.campaign import Arena, Outcome

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SEED = 20260101
ERRORS, KILLS, EVENTS = 21, 8, 18  # cases of each


def some(cases: list, number: int) -> list:
    return random.Random(SEED).sample(cases, number)


def judge(outcomes: list[Outcome]) -> None:
    print(campaign.told(outcomes))
    assert [o for o in outcomes if o.befell]
    assert not [o for o in outcomes if o.wrong], campaign.told(outcomes)


async def test_a_call_that_fails_changes_nothing(arena: Arena):
    async with campaign.world(arena) as made, made.lane("errors") as lane:
        judge(await campaign.side_by_side(made, some(campaign.calls(proxy.ERRORS), ERRORS), ERRORS))
        assert not lane.crashes


async def test_an_operator_killed_at_a_call_changes_nothing(arena: Arena):
    async with campaign.world(arena) as made:
        judge(await campaign.each_with_an_operator(made, some(campaign.calls(proxy.KILLS), KILLS), KILLS // 2))


async def test_watches_that_lie_change_nothing(arena: Arena):
    async with campaign.world(arena) as made, made.lane("watches") as lane:
        judge(await campaign.side_by_side(made, some(campaign.events(), EVENTS), EVENTS))
        assert not lane.crashes
