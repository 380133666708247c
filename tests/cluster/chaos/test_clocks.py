"""Operators whose clock is an hour wrong: deadline, time to live and the time-outs of a gang go by the API server's clock."""

import asyncio

import pytest

from tests.cluster.chaos import campaign
from tests.cluster.chaos.campaign import Arena, World

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

HOUR_SECONDS = 3600


async def live(made: World, skew_seconds: int) -> list[str]:
    """A whole life under an operator of its own whose clock is wrong."""
    namespace = await made.namespace()
    async with made.lane(namespace, watch=namespace, module="tests.cluster.chaos.skewed", SKEW_SECONDS=str(skew_seconds)) as lane:
        wrong = await made.live(namespace)
    assert not lane.crashes
    assert "s ahead of the API server's" in lane.log.read_text()
    return wrong


async def test_a_clock_that_is_an_hour_wrong_ends_nothing_early_and_holds_nothing_up(arena: Arena):
    async with campaign.world(arena) as made:
        assert await asyncio.gather(live(made, HOUR_SECONDS), live(made, -HOUR_SECONDS)) == [[], []]
        assert not made.checker.violations
