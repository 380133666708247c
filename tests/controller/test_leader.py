"""One leader: who takes the Lease, and when a leader stops."""

import asyncio
import datetime

import pytest

from patho_operator import errors, leader, subject
from patho_operator.cluster import Cluster
from patho_operator.leader import Sighting
from patho_operator.plan import Delete, Plan
from tests.controller.builders import NOW, make_pretrain

PATH = "/apis/coordination.k8s.io/v1/namespaces/ops/leases"


def lease(holder, version="1"):
    return {"metadata": {"name": "l", "resourceVersion": version}, "spec": {"holderIdentity": holder, "leaseTransitions": 4}}


@pytest.mark.parametrize(
    ("found", "seen_seconds_ago", "action"),
    [
        (None, 0, "Create"),
        (lease("me"), 0, "Renew"),
        (lease("other"), 14.9, "Wait"),
        (lease("other"), 15, "Take"),
        (lease(""), 0, "Take"),
    ],
)
def test_a_lease_is_taken_only_when_it_was_seen_unchanged_for_its_whole_time(found, seen_seconds_ago, action):
    assert leader.decide(found, "me", Sighting("1", 100.0), 100.0 + seen_seconds_ago) == action


def test_a_leader_stops_before_another_may_start():
    assert leader.RENEW_DEADLINE_SECONDS + leader.RETRY_SECONDS < leader.LEASE_SECONDS


def test_taking_over_counts_and_renewing_does_not():
    taken = leader.held(lease("other"), "me", NOW)["spec"]
    assert (taken["holderIdentity"], taken["leaseTransitions"]) == ("me", 5)
    renewed = leader.held({"spec": taken}, "me", NOW + datetime.timedelta(seconds=2))["spec"]
    assert (renewed["leaseTransitions"], renewed["acquireTime"]) == (5, taken["acquireTime"])
    assert renewed["renewTime"] == "2030-01-01T12:00:02.000000Z"


async def test_of_two_that_take_the_lease_one_gets_a_conflict_and_waits(api, fake):
    fake.answers["GET", f"{PATH}/l"] = 200, lease("")
    fake.refuse("PUT", f"{PATH}/l", 409, "Conflict")
    elector = leader.Elector(api, "ops", "l", "me")
    assert not await elector._try()
    assert elector.renewed is None


async def test_the_first_operator_makes_the_lease(api, fake):
    fake.refuse("GET", f"{PATH}/l", 404, "NotFound")
    elector = leader.Elector(api, "ops", "l", "me")
    await elector.acquire()
    assert elector.renewed is not None
    assert fake.requests[-1].body["spec"]["holderIdentity"] == "me"


async def test_a_leader_that_cannot_renew_gives_up(api, fake, monkeypatch):
    monkeypatch.setattr(leader, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(leader, "RENEW_DEADLINE_SECONDS", 0.1)
    fake.answers["GET", f"{PATH}/l"] = 200, lease("me")
    elector = leader.Elector(api, "ops", "l", "me")
    await elector.acquire()
    fake.refuse("PUT", f"{PATH}/l", 503, "Unavailable")
    with pytest.raises(errors.LeadershipLost):
        await asyncio.wait_for(elector.keep(), 30)


async def test_a_leader_whose_lease_was_stolen_gives_up(api, fake, monkeypatch):
    monkeypatch.setattr(leader, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(leader, "RENEW_DEADLINE_SECONDS", 0.1)
    fake.answers["GET", f"{PATH}/l"] = 200, lease("me")
    elector = leader.Elector(api, "ops", "l", "me")
    await elector.acquire()
    fake.answers["GET", f"{PATH}/l"] = 200, lease("thief", "2")
    with pytest.raises(errors.LeadershipLost):
        await asyncio.wait_for(elector.keep(), 30)


async def test_a_leader_that_ends_in_peace_gives_the_lease_back(api, fake):
    fake.answers["GET", f"{PATH}/l"] = 200, lease("me")
    elector = leader.Elector(api, "ops", "l", "me")
    await elector.acquire()
    await elector.release()
    assert fake.requests[-1].body["spec"]["holderIdentity"] == ""


async def test_a_leader_that_was_paused_writes_nothing_when_it_wakes(api, fake):
    fake.answers["GET", f"{PATH}/l"] = 200, lease("me")
    elector = leader.Elector(api, "ops", "l", "me")
    await elector.acquire()
    rim, before = Cluster(api, elector.fence), len(fake.requests)
    elector.renewed -= leader.RENEW_DEADLINE_SECONDS
    with pytest.raises(errors.ApiError, match="not renewed in time"):
        await rim.execute(subject.parse(make_pretrain()), Plan(deletes=(Delete("Job", "lab", "vits16-pt-1", "u"),)))
    assert len(fake.requests) == before
