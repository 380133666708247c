"""The chart's whole life on an API server of its own, with a run on it: install, upgrade, roll back, uninstall, install again."""

import pathlib
import re
import tempfile
import urllib.request
from collections.abc import Iterator

import pytest

from patho_api import names
from tests.chart import renders
from tests.cluster import controlplane, kwok, monitoring, node, release, runs, waiting
from tests.cluster.cluster import Cluster, Refused
from tests.cluster.conftest import _need_tools as need_tools
from tests.cluster.processes import Processes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
VALUES = {"nodeSelector": node.SELECTOR, "crds.keep": True}  # its own pod finds no node: the operator runs beside the cluster
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
CRDS = "pathopretrains.pathoscale.dev", "pathoevals.pathoscale.dev"


@pytest.fixture(scope="module")
def own() -> Iterator[tuple[Processes, Cluster]]:
    """A control plane for this module: a release must be alone on it."""
    need_tools()
    with tempfile.TemporaryDirectory(prefix="patho-", ignore_cleanup_errors=True) as name:
        processes = Processes(pathlib.Path(name))
        try:
            cluster = controlplane.start(processes).cluster
            kwok.start(processes, cluster.kubeconfig)
            kwok.add_nodes(cluster, 1)
            yield processes, cluster
        finally:
            processes.stop_all()


@pytest.fixture(scope="module")
def prometheus_operator(own) -> None:
    """The Prometheus operator's own definitions, as its release carries them."""
    _, cluster = own
    try:
        found = monitoring.definitions()
    except monitoring.NotThere as reason:
        pytest.skip(f"NOT RUN: {reason}")
    cluster.kubectl("apply", "--server-side", *[word for path in found.values() for word in ("-f", str(path))])
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", *found)


@pytest.mark.usefixtures("prometheus_operator")
@pytest.mark.parametrize("name", renders.SETS)
def test_the_api_server_accepts_what_each_set_of_values_renders(own, name):
    _, cluster = own
    for namespace in ("patho-system", *renders.SETS[name].get("watchNamespaces", [])):
        cluster.kubectl("apply", "-f", "-", stdin=f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}}}")
    for namespace, manifests in by_namespace(renders.render(renders.SETS[name])).items():
        text = "\n---\n".join(manifests)
        said = cluster.inside(namespace).kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=text)
        assert said.count("serverside-applied (server dry run)") == len(manifests)


@pytest.mark.usefixtures("prometheus_operator")
def test_a_field_that_the_prometheus_operator_does_not_know_would_be_seen(own):
    _, cluster = own
    wrong = renders.render(renders.SETS["monitored"]).replace("honorLabels", "honourLabels")
    (monitor,) = (part for part in wrong.split("\n---\n") if "kind: ServiceMonitor" in part)
    with pytest.raises(Refused, match="honourLabels"):
        cluster.inside("patho-system").kubectl("apply", "--server-side", "--dry-run=server", "-f", "-", stdin=monitor)


def test_a_run_outlives_upgrade_rollback_and_uninstall(own, monkeypatch):
    processes, cluster = own
    release.install(cluster, VALUES)
    operator = release.Operator(processes, cluster)
    operator.start()
    cluster.apply(runs.pretrain("outlives"))
    before = [runs.uid(pod) for pod in runs.running(cluster, "outlives", 2)]
    runs.wait_for(cluster, "outlives", "Running")
    release.install(cluster, {**VALUES, "replicas": 2, "trainer.image": "trainer:2"})
    monkeypatch.setenv("PATHO_TRAINER_IMAGE", "trainer:2")  # what the upgraded pod is given
    assert_undisturbed(cluster, operator, before)
    cluster.inside(release.NAMESPACE).helm("rollback", release.NAME, "1")
    monkeypatch.delenv("PATHO_TRAINER_IMAGE")
    assert_undisturbed(cluster, operator, before)
    operator.kill()
    cluster.inside(release.NAMESPACE).helm("uninstall", release.NAME, "--wait", "--timeout=60s")
    assert all(cluster.exists("crd", name) for name in CRDS)
    assert [runs.uid(pod) for pod in runs.running(cluster, "outlives", 2)] == before


def test_without_an_operator_a_run_can_still_be_deleted(own):
    _, cluster = own
    cluster.kubectl("delete", "ppt", "outlives", "--timeout=30s")
    cluster.wait_gone("pods", f"{names.LABEL_RUN}=outlives")


def test_definitions_that_were_kept_are_taken_over_by_the_next_release(own):
    _, cluster = own
    release.install(cluster, {**VALUES, "crds.keep": False})
    release.uninstall(cluster)
    with pytest.raises(Refused, match="NotFound"):
        cluster.get("crd", CRDS[0])


def test_with_the_switch_each_run_has_a_policy_of_its_own_that_goes_with_it(own):
    processes, cluster = own
    cluster.inside(release.NAMESPACE).wait_gone("serviceaccounts", "app.kubernetes.io/part-of=pathoscale")
    waiting.until(lambda: not cluster.exists("namespace", release.NAMESPACE), what="the earlier release gone", seconds=60)
    release.install(cluster, {**VALUES, "networkPolicy.runs": True, "networkPolicy.metricsFrom": [PROMETHEUS]})
    operator = release.Operator(processes, cluster, release.IMPATIENT | told(cluster) | {"PATHO_RELIST_SECONDS": "2"})
    operator.start()
    cluster.apply(runs.pretrain("guarded"))
    first, _ = runs.running(cluster, "guarded", 2)
    policy = cluster.get("networkpolicy", "guarded-pt")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= first["metadata"]["labels"].items()
    assert [rule.get("ports", [{}])[0].get("port") for rule in policy["ingress"]] == [None, names.PORT_METRICS]
    assert PROMETHEUS in policy["ingress"][1]["from"]
    for edited in ('{"spec": {"ingress": []}}', '{"spec": {"podSelector": {"matchLabels": {"more": "x"}}}}'):
        cluster.kubectl("patch", "networkpolicy", "guarded-pt", "--type=merge", "-p", edited)
        waiting.until(lambda: cluster.get("networkpolicy", "guarded-pt")["spec"] == policy, what="the policy as the values want it")
    cluster.kubectl("delete", "ppt", "guarded", "--timeout=30s")
    cluster.wait_gone("networkpolicies", f"{names.LABEL_RUN}=guarded")
    operator.kill()
    release.uninstall(cluster)


def told(cluster: Cluster) -> dict[str, str]:
    """What the chart tells its operator's pod about policies."""
    deployment = cluster.inside(release.NAMESPACE).get("deployment", release.DEPLOYMENT)
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return {v["name"]: v["value"] for v in variables if v["name"] == "PATHO_METRICS_FROM"}


def by_namespace(text: str) -> dict[str, list[str]]:
    """Manifests by the namespace that they name; kubectl takes one at a time."""
    found: dict[str, list[str]] = {}
    for part in text.removeprefix("---\n").split("\n---\n"):
        if re.search("^kind:", part, re.MULTILINE):
            named = re.search(r"^  namespace: (\S+)$", part, re.MULTILINE)
            found.setdefault(named[1] if named else "default", []).append(part)
    return found


def assert_undisturbed(cluster: Cluster, operator: release.Operator, before: list[str]) -> None:
    """Another operator process, the same pods, the same attempt."""
    operator.kill()
    operator.start()
    waiting.until(lambda: 'name="outlives"' in scrape(operator), what="the new operator has looked at the run", seconds=90)
    assert [runs.uid(pod) for pod in runs.running(cluster, "outlives", 2)] == before
    status = cluster.get("ppt", "outlives")["status"]
    assert (status["attempt"], status["restarts"]) == (1, 0)


def scrape(operator: release.Operator) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.port}/metrics", timeout=10) as answer:
        return answer.read().decode()
