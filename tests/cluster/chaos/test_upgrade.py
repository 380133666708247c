"""The operator of this release takes over a run that the first one started: resource, Job and Service in the form that it left them in.

`first_release.json` is what an API server held with the definitions and the operator of 0.1's first builds, two fake pods running: every
default written out, their own words in the conditions, their own hash on the Job. `UID` stands for the resource's.
"""

import json
import pathlib
from typing import Any

import pytest

from patho_api import names
from patho_operator import cluster
from tests.cluster.chaos import acts, campaign
from tests.cluster.chaos.acts import FIRST
from tests.cluster.chaos.campaign import Arena
from tests.cluster.chaos.life import RUN, Life

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(600)]

LEFT = pathlib.Path(__file__).parent / "first_release.json"


async def leave(life: Life) -> None:
    """Make what the first release left."""
    text = LEFT.read_text()
    body: Any = json.loads(text)[names.PRETRAIN]
    made = await life.admin.create(cluster.path(names.PRETRAIN, life.namespace), body)
    await life.admin.patch(cluster.path(names.PRETRAIN, life.namespace, RUN, "status"), {"status": body["status"]})
    left = json.loads(text.replace("UID", made["metadata"]["uid"]))
    for kind in ("Service", "Job"):
        await life.admin.create(cluster.path(kind, life.namespace), left[kind])
    await life.until("two pods", lambda: len(life.running()) == 2)


async def test_a_run_of_the_first_release_goes_on_and_is_led_on(arena: Arena):
    async with campaign.world(arena) as made:
        life = Life(made.admin, made.witness, made.checker, await made.namespace())
        await leave(life)
        pods, job = sorted(p["metadata"]["uid"] for p in life.running()), life.job(1)["metadata"]["uid"]
        assert life.undone(names.PRETRAIN, RUN)  # this release says some things in other words
        async with made.lane("upgraded") as lane:
            await life.until("rest under the new operator", lambda: not life.undone(names.PRETRAIN, RUN))
            assert sorted(p["metadata"]["uid"] for p in life.running()) == pods
            await life.end_pod(1, 1, {"reason": "Crashed", "message": "CUDA error", "step": 10})
            await life.until("an incident", lambda: life.told("restarts", "attempt", "phase") == (1, 1, "Running"))
            assert life.witness.objects["Job", life.namespace, FIRST]["metadata"]["uid"] == job
            await life.change({"training": {"seed": 1}})
            await life.until("attempt 2", lambda: life.told("restarts", "attempt", "phase") == (1, 2, "Running"))
            await acts.end(life, 0)
            await life.until("Succeeded", lambda: life.holds("Succeeded"))
            assert not lane.crashes
        assert not made.checker.violations
