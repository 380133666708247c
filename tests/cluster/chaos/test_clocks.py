"""A run that is led by operators whose clocks are an hour wrong, one behind, the next ahead: what one writes another compares.

Deadline, time to live and the time-outs of a gang go by the API server's clock.
"""

import re

import pytest

from tests.cluster.chaos import campaign, proxy
from tests.cluster.chaos.campaign import Arena

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

SKEWED = "tests.cluster.chaos.skewed"


async def test_clocks_that_are_an_hour_wrong_end_nothing_early_and_hold_nothing_up(arena: Arena):
    async with campaign.world(arena) as made:
        namespace = await made.namespace()
        async with made.lane(namespace, watch=namespace, module=SKEWED, SKEW_SECONDS="-3600,3600") as lane:
            made.proxy.faults[namespace] = proxy.Fault("killed after", 5, campaign.CALLS_APART, lane.kill)
            assert await made.live(namespace) == []
        said = lane.log.read_text()
        assert set(re.findall(r"this clock is (-?)3[56]\d\d s ahead of the API server's", said)) == {"-", ""}
        assert not lane.crashes
        assert not made.checker.violations
