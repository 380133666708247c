"""Every fault at every call and every event of a whole life (`make chaos`); counts are printed."""

import pytest

from tests.cluster.chaos import campaign, proxy, watches
from tests.cluster.chaos.campaign import Arena
from tests.cluster.chaos.test_faults import judge

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]

# Lives wait more than they work: on two cores so many keep a control plane busy, and answers still come within a second or two
AT_ONCE, OPERATORS_AT_ONCE = 24, 5


async def test_every_call_fails_in_every_way(arena: Arena):
    async with campaign.world(arena) as made, made.lane("errors") as lane:
        judge(await campaign.side_by_side(made, campaign.calls(proxy.ERRORS), AT_ONCE))
        assert not lane.crashes


async def test_the_operator_is_killed_before_and_after_every_call(arena: Arena):
    async with campaign.world(arena) as made:
        judge(await campaign.each_with_an_operator(made, campaign.calls(proxy.KILLS), OPERATORS_AT_ONCE))


async def test_watches_lie_in_every_way_at_every_event(arena: Arena):
    async with campaign.world(arena) as made, made.lane("watches") as lane:
        judge(await campaign.side_by_side(made, campaign.events(watches.KINDS), AT_ONCE))
        assert not lane.crashes
