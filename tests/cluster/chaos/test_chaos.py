"""Every fault at every call and every event of a whole life (`make chaos`); counts are printed."""

import pytest

from tests.cluster.chaos import campaign, proxy, watches
from tests.cluster.chaos.campaign import Arena
from tests.cluster.chaos.test_faults import judge

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(5400)]

AT_ONCE, OPERATORS_AT_ONCE = 16, 4


@pytest.mark.parametrize("kind", proxy.ERRORS)
async def test_every_call_fails(arena: Arena, kind: str):
    async with campaign.world(arena) as made, made.lane("errors") as lane:
        judge(await campaign.side_by_side(made, campaign.calls([kind]), AT_ONCE))
        assert not lane.crashes


@pytest.mark.parametrize("kind", proxy.KILLS)
async def test_the_operator_is_killed_at_every_call(arena: Arena, kind: str):
    async with campaign.world(arena) as made:
        judge(await campaign.each_with_an_operator(made, campaign.calls([kind]), OPERATORS_AT_ONCE))


@pytest.mark.parametrize("kind", watches.KINDS)
async def test_watches_lie_at_every_event(arena: Arena, kind: str):
    async with campaign.world(arena) as made, made.lane("watches") as lane:
        judge(await campaign.side_by_side(made, campaign.events([kind]), AT_ONCE))
        assert not lane.crashes
