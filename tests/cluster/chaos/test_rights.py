"""The rights of the chart are those that the operator uses: the proxy sees every one, and the API server says which are missing."""

import json
from typing import Any

import pytest

from patho_api import names
from patho_operator import client, cluster, subject
from patho_operator.cluster import Cluster
from patho_operator.plan import Burial, Delete, Event, Plan
from tests.cluster import release, runs
from tests.cluster.chaos import admin, campaign
from tests.cluster.chaos.campaign import Arena, Case, World
from tests.cluster.cluster import Cluster as Kubectl

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

LEADER = f"{release.NAME}-leader"


async def test_every_right_of_the_chart_is_used_and_none_is_missing(arena: Arena):
    kubectl = Kubectl(arena.admin_kubeconfig)
    async with campaign.world(arena) as made:
        async with made.lane("rights"):
            outcomes = await campaign.side_by_side(made, [Case("", 0)], 1)
        assert not outcomes[0].wrong
        await rare_calls(made)
        used, missing = made.proxy.rights, made.proxy.missing
    assert missing == set()
    assert granted(kubectl) - used == set()


async def rare_calls(made: World) -> None:
    """What only happens after crashes, on dead nodes or to runs that do not start, by the operator's own module and rights."""
    namespace = await made.namespace()
    body = await made.admin.create(cluster.path(names.PRETRAIN, namespace), runs.pretrain("rare"))
    owner = {"apiVersion": names.API_VERSION, "kind": names.PRETRAIN, "name": "rare", "uid": body["metadata"]["uid"], "controller": True}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "rare", "ownerReferences": [owner]}, "spec": job_spec()}
    child = runs.evaluation("rare", {})
    child["metadata"]["ownerReferences"] = [owner]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "rare"}, "spec": pod_spec()}
    uid = (await made.admin.create(cluster.path("Pod", namespace), pod))["metadata"]["uid"]
    api = await as_operator(made)
    try:
        rim, run = Cluster(api), subject.parse(body)
        for _ in range(2):  # the second time it exists
            await rim.execute(run, Plan(creates=(job, child), events=(Event("Failed", "said twice", warning=True),)))
        found = await rim.get(subject.Key(names.EVAL, namespace, "rare")) or {}
        await rim.execute(run, Plan(burials=(Burial(namespace, "rare", uid),)))
        await rim.execute(run, Plan(deletes=(Delete(names.EVAL, namespace, "rare", found["metadata"]["uid"]),)))
        await rim.warnings(namespace, [uid])
    finally:
        await api.close()


async def as_operator(made: World) -> client.Client:
    """The operator's client, behind the proxy."""
    return client.Client(await admin.read(made.lane("rare").kubeconfig), lambda verb, code: None)


def granted(kubectl: Kubectl) -> set[tuple[str, str, str]]:
    """What the installed roles allow: (group, resource, verb)."""
    roles = [kubectl.get("clusterrole", release.NAME), kubectl.inside(release.NAMESPACE).get("role", LEADER)]
    rules = [rule for role in roles for rule in role["rules"]]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}


def job_spec() -> Any:
    return {"suspend": True, "template": {"spec": pod_spec()}}


def pod_spec() -> Any:
    """A pod of the restricted standard that no node takes."""
    return admin.RESTRICTED_POD | {"nodeSelector": {"nowhere": "true"}}


@pytest.fixture
def namespaced(arena: Arena):
    """A second release beside the first, that may act in two namespaces alone; the kubeconfig of its service account."""
    kubectl = Kubectl(arena.admin_kubeconfig)
    for name in ("mine", "yours"):
        kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": campaign.RESTRICTED}})
    values = {"watchNamespaces": ["mine", "yours"], "crds.enabled": False, "nodeSelector": {"nowhere": "true"}}
    settings = [f"--set-json={key}={json.dumps(value)}" for key, value in values.items()]
    kubectl.inside(release.NAMESPACE).helm("upgrade", "--install", "second", str(release.CHART), *settings)
    yield release.as_service_account(kubectl, arena.folder / "second.kubeconfig", "second-pathoscale")
    kubectl.inside(release.NAMESPACE).helm("uninstall", "second")


async def test_a_release_for_some_namespaces_leads_runs_there_and_sees_nothing_else(arena: Arena, namespaced):
    kubectl = Kubectl(arena.admin_kubeconfig)
    everywhere = kubectl.get("clusterrole", release.NAME)["rules"]  # each of which is used, as the other test shows
    assert [kubectl.inside(name).get("role", "second-pathoscale")["rules"] for name in ("mine", "yours")] == [everywhere] * 2
    environment = {"PATHO_WATCH_NAMESPACES": "mine,yours", "PATHO_LEASE": "second-pathoscale-operator"}
    async with campaign.world(arena) as made:
        elsewhere = await made.namespace()
        await made.admin.create(cluster.path(names.PRETRAIN, elsewhere), runs.pretrain("theirs"))
        async with made.lane("second", credentials=namespaced, **environment):
            assert not await made.live("mine")
        assert not made.checker.violations
        assert made.proxy.missing == set()
        theirs = await made.admin.request("GET", cluster.path(names.PRETRAIN, elsewhere, "theirs"))
    assert "status" not in theirs
