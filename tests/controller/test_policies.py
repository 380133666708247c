"""NetworkPolicies of live runs follow the settings."""

import asyncio
import copy

import pytest

from patho_api import names
from patho_operator import handlers, policies, queue, relist
from patho_operator.cluster import path
from tests.controller.builders import created, make_pretrain, plan_for

OLD = {"podSelector": {"matchLabels": {"app": "old"}}}
NEW = {"podSelector": {"matchLabels": {"app": "new"}}}
WHERE = path("NetworkPolicy", "lab", "vits16-pt")


def live(metrics_from=(OLD,), **metadata):
    """A run's policy as the API server has it."""
    made = copy.deepcopy(created(plan_for(make_pretrain(), metrics_from=metrics_from), "NetworkPolicy"))
    made["metadata"] |= {"uid": "p", "resourceVersion": "5"} | metadata
    return made


def test_changed_peers_are_written_into_a_live_policy():
    same, change = policies.amendment(live(), (NEW,))
    assert same == {"op": "test", "path": "/metadata/resourceVersion", "value": "5"}
    assert change == {"op": "replace", "path": "/spec", "value": live((NEW,))["spec"]}


ADDED = [
    {"podSelector": {"matchLabels": {names.LABEL_RUN: "vits16", names.LABEL_KIND: names.PRETRAIN, "more": "x"}}},
    {"policyTypes": ["Ingress", "Egress"], "egress": [{}]},
    {"ingress": [{}]},
]


@pytest.mark.parametrize("added", ADDED)
def test_what_somebody_added_goes_too(added):
    edited, wanted = live(), live()["spec"]
    edited["spec"] |= added
    assert policies.amendment(edited, (OLD,))[1] == {"op": "replace", "path": "/spec", "value": wanted}


def test_a_policy_whose_labels_were_edited_is_put_back_as_its_owner_needs_it():
    edited = live(labels={names.LABEL_RUN: "another"})
    edited["spec"]["podSelector"] = {"matchLabels": {names.LABEL_RUN: "another"}}
    assert policies.amendment(edited, (OLD,))[1]["value"] == live()["spec"]


BLOCK = {"ipBlock": {"cidr": "10.0.0.0/8"}}
SPELLED = [
    ({"namespaceSelector": {"matchLabels": {}}}, {"namespaceSelector": {}}),
    ({"podSelector": {"matchExpressions": []}, "namespaceSelector": None}, {"podSelector": {}}),
    ({"ipBlock": {"cidr": "10.0.0.0/8", "except": []}}, BLOCK),
]


@pytest.mark.parametrize(("told", "stored"), SPELLED)
def test_what_the_api_server_spells_otherwise_is_the_same(told, stored):
    assert policies.amendment(live((stored,)), (told,)) is None
    assert policies.amendment(live((BLOCK, stored)), (told,))


@pytest.mark.parametrize("peers", [(OLD,), ()])
def test_where_nothing_changed_nothing_is_written(peers):
    assert policies.amendment(live(peers), peers) is None


def test_somebody_elses_policy_with_our_labels_stays_as_it_is():
    assert policies.amendment(live(ownerReferences=[]), (NEW,)) is None


REFUSALS = [(200, {}), (404, {"reason": "NotFound"}), (422, {"reason": "Invalid"}), (403, {"reason": "Forbidden"}), (500, {})]


@pytest.mark.parametrize("answer", REFUSALS)
async def test_a_complete_list_brings_live_policies_up_to_date(cluster, fake, answer):
    for kind in (*relist.KINDS, "NetworkPolicy"):
        items = [live()] if kind == "NetworkPolicy" else []
        fake.answers["GET", path(kind)] = 200, {"metadata": {}, "items": items}
    fake.answers["PATCH", WHERE] = answer
    rounds = []
    await relist.Relist(cluster, handlers.Indexes(), queue.Queue(), set(), (), lambda: rounds.append(1), (NEW,)).once()
    (written,) = [r for r in fake.requests if r.verb == "PATCH"]
    assert written.content_type == "application/json-patch+json"
    assert written.body[1]["value"]["ingress"][1]["from"] == [NEW]
    (asked,) = [r for r in fake.requests if r.path == path("NetworkPolicy")]
    assert names.LABEL_RUN in asked.query["labelSelector"]
    assert rounds == [1]


async def test_policies_that_may_not_be_listed_delay_no_complete_list(cluster, fake, caplog):
    for kind in relist.KINDS:
        fake.answers["GET", path(kind)] = 200, {"metadata": {}, "items": []}
    fake.refuse("GET", path("NetworkPolicy"), 403, "Forbidden", "no right")
    rounds = []
    await relist.Relist(cluster, handlers.Indexes(), queue.Queue(), set(), (), lambda: rounds.append(1), (NEW,)).once()
    assert rounds == [1]
    assert "no right" in caplog.text


async def test_the_next_policy_is_amended_though_one_is_refused(cluster, fake):
    other = live(name="other-pt")
    fake.answers["GET", path("NetworkPolicy")] = 200, {"metadata": {}, "items": [live(), other]}
    fake.refuse("PATCH", WHERE, 403, "Forbidden")
    await policies.refresh(cluster, (), (NEW,))
    assert [r.path for r in fake.requests if r.verb == "PATCH"] == [WHERE, path("NetworkPolicy", "lab", "other-pt")]


async def test_at_the_start_policies_are_looked_at_and_no_complete_list_is_made(cluster, fake):
    fake.answers["GET", path("NetworkPolicy")] = 200, {"metadata": {}, "items": [live()]}
    indexes = handlers.Indexes()
    lists = relist.Relist(cluster, indexes, queue.Queue(), set(), (), lambda: None, (NEW,)).run(3600)
    task = asyncio.create_task(lists)
    async with asyncio.timeout(10):
        while not any(r.verb == "PATCH" for r in fake.requests):
            await asyncio.sleep(0.01)
    task.cancel()
    assert not indexes.relisted.is_set()
    assert len(fake.requests) == 2
