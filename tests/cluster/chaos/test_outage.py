"""The API server is away while runs live: pods go on, and so does the operator when it is back, whatever has happened meanwhile."""

import asyncio
import contextlib

import pytest

from tests.cluster.chaos import campaign, life
from tests.cluster.chaos.campaign import Arena, World

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1500)]

SHIPPED = "patho_operator"
LIVES, APART_SECONDS = 8, 6.0  # so that an outage finds each of them in another phase


async def lives(made: World) -> list[str]:
    """Lives that begin one after the other; what was wrong."""

    async def later(number: int) -> list[str]:
        await asyncio.sleep(number * APART_SECONDS)
        return await made.live(await made.namespace())

    return [sentence for found in await asyncio.gather(*map(later, range(LIVES))) for sentence in found]


async def test_outages_of_five_seconds_again_and_again_change_nothing(arena: Arena):
    async def flicker() -> None:
        while True:
            await asyncio.sleep(10)
            await made.proxy.outage(5)

    async with campaign.world(arena) as made, made.lane("flicker") as lane:
        flickering = asyncio.create_task(flicker())
        assert await lives(made) == []
        flickering.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await flickering
        assert not lane.crashes
        assert not made.checker.violations


@pytest.mark.chaos
@pytest.mark.parametrize("seconds", [60, 300])
async def test_an_operator_that_lost_its_lease_to_an_outage_goes_on_where_it_was(arena: Arena, seconds: int, monkeypatch):
    """With the shipped times of the Lease: it gives up after 10 s, and is started again and again until the API server answers."""
    monkeypatch.setattr(life, "STEP_SECONDS", seconds + 240.0)
    async with campaign.world(arena) as made, made.lane(f"outage-{seconds}", module=SHIPPED) as lane:
        living = asyncio.create_task(lives(made))
        await asyncio.sleep(LIVES * APART_SECONDS * 0.75)
        await made.proxy.outage(seconds)
        assert await living == []
        assert set(lane.crashes) <= {1}
        assert not made.checker.violations
