"""NetworkPolicies of live runs follow the settings."""

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
    change = policies.amendment(live(), (NEW,))
    assert change["metadata"] == {"uid": "p", "resourceVersion": "5"}
    assert change["spec"] == live((NEW,))["spec"]


@pytest.mark.parametrize("peers", [(OLD,), ()])
def test_where_nothing_changed_nothing_is_written(peers):
    assert policies.amendment(live(peers), peers) is None


def test_somebody_elses_policy_with_our_labels_stays_as_it_is():
    assert policies.amendment(live(ownerReferences=[]), (NEW,)) is None


@pytest.mark.parametrize("answer", [(200, {}), (404, {"reason": "NotFound"}), (409, {"reason": "Conflict"})])
async def test_a_complete_list_brings_live_policies_up_to_date(cluster, fake, answer):
    for kind in (*relist.KINDS, "NetworkPolicy"):
        items = [live()] if kind == "NetworkPolicy" else []
        fake.answers["GET", path(kind)] = 200, {"metadata": {}, "items": items}
    fake.answers["PATCH", WHERE] = answer
    rounds = []
    await relist.Relist(cluster, handlers.Indexes(), queue.Queue(), set(), (), lambda: rounds.append(1), (NEW,)).once()
    (written,) = [r for r in fake.requests if r.verb == "PATCH"]
    assert written.body["spec"]["ingress"][1]["from"] == [NEW]
    (asked,) = [r for r in fake.requests if r.path == path("NetworkPolicy")]
    assert names.LABEL_RUN in asked.query["labelSelector"]
    assert rounds == [1]
