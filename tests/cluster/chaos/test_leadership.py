"""Two operators with the shipped times of the Lease: one leads, and another takes over when it dies, sleeps or is robbed."""

import asyncio
import signal
import time

import pytest

from tests.cluster.chaos import admin, campaign
from tests.cluster.chaos.campaign import LEASE, Arena, World

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

SHIPPED = "patho_operator"


async def holder(made: World) -> str:
    """Who holds the Lease; empty if nobody."""
    try:
        return str((await made.admin.request("GET", LEASE))["spec"].get("holderIdentity"))
    except admin.Failed:
        return ""


async def until_held(made: World, by: str) -> float:
    """Seconds until the Lease is held by an operator. Raises TimeoutError."""
    start = time.monotonic()
    async with asyncio.timeout(240):
        while await holder(made) != by:
            await asyncio.sleep(0.2)
    return time.monotonic() - start


async def test_one_of_two_leads_whoever_dies_sleeps_or_is_robbed(arena: Arena):
    async with campaign.world(arena) as made, made.lane("second", module=SHIPPED) as second, made.lane("first", module=SHIPPED) as first:
        lanes = {"first": first, "second": second}
        leads = await either(made)
        life = asyncio.create_task(made.live(await made.namespace()))
        leader = lanes[leads]
        leader.signal(signal.SIGSTOP)
        asleep = await until_held(made, heir := other(leads))
        leader.signal(signal.SIGCONT)  # it must end by itself, and is started again as the standby
        async with asyncio.timeout(60):
            while not leader.ends:
                await asyncio.sleep(0.1)
        await made.admin.patch(LEASE, {"spec": {"holderIdentity": "a thief"}})
        robbed = time.monotonic()
        leads = await either(made)
        robbed = time.monotonic() - robbed
        assert lanes[heir].ends == [1]
        await lanes[leads].end()
        died = await until_held(made, other(leads))
        assert await life == []
        print(f"the next leader had the Lease after: asleep {asleep:.1f} s, robbed {robbed:.1f} s, died {died:.1f} s")
        assert leader.ends[0] == 1
        assert not made.checker.violations


def other(name: str) -> str:
    """Of two."""
    return "first" if name == "second" else "second"


async def either(made: World) -> str:
    """The one of both that leads."""
    async with asyncio.timeout(240):
        while (found := await holder(made)) not in ("first", "second"):
            await asyncio.sleep(0.2)
    return found
