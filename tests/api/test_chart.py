"""The Helm chart, rendered by the real Helm. Its installation is tested in tests/cluster."""

import functools
import json

import pytest
import yaml

from patho_api import crd, names
from patho_operator import settings
from tests.chart import renders
from tests.chart.renders import CHART
from tests.cluster import tools

USERS = ("pathoscale-view", "pathoscale-edit")


@pytest.fixture(scope="module")
def helm():
    """Runs helm with arguments; returns the finished process."""
    if "helm" in tools.missing():
        pytest.skip("NOT RUN: helm is not built; `python -m tests.cluster.tools` builds it")
    return renders.helm


@pytest.fixture(scope="module")
def render(helm):
    """Renders the chart with values by dotted path; returns objects by (kind, name)."""
    text = functools.cache(lambda values: renders.render(json.loads(values)))

    def rendered(**values):
        made = text(json.dumps(values)).replace(" 1e-06\n", " 1.0e-06\n")  # to PyYAML (YAML 1.1) a number without a dot is a string
        return {(o["kind"], o["metadata"]["name"]): o for o in yaml.safe_load_all(made) if o}

    return rendered


def pod(objects):
    return objects["Deployment", "pathoscale"]["spec"]["template"]["spec"]


def environment(objects):
    return {e["name"]: e.get("value") for e in pod(objects)["containers"][0]["env"]}


def granted(role):
    return {(resource, verb) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}


def test_helm_finds_nothing_to_complain_about(helm):
    done = helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", renders.SETS)
def test_each_set_of_values_renders_as_it_was_read(helm, name):
    found = renders.abridged(renders.render(renders.SETS[name]))
    assert found == (renders.GOLDEN / f"{name}.yaml").read_text(), "if that is right: python -m tests.chart.renders"


def test_everything_that_runs_meets_the_restricted_standard_and_is_bounded(render):
    objects = render()
    for spec in (pod(objects), objects["Pod", "pathoscale-test"]["spec"]):
        assert all("memory" in c["resources"]["limits"] for c in spec["containers"])
        assert spec["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)


def test_two_operators_are_spread_and_not_evicted_together(render):
    assert ("PodDisruptionBudget", "pathoscale") not in render()
    objects = render(replicas=2)
    assert objects["PodDisruptionBudget", "pathoscale"]["spec"]["maxUnavailable"] == 1
    assert {t["topologyKey"] for t in pod(objects)["topologySpreadConstraints"]} == {
        "kubernetes.io/hostname",
        "topology.kubernetes.io/zone",
    }


def test_the_operators_network_is_what_it_needs(render):
    spec = render(**{"networkPolicy.enabled": True})["NetworkPolicy", "pathoscale"]["spec"]
    assert [rule["ports"] for rule in spec["ingress"]] == [[{"port": "http", "protocol": "TCP"}]]
    ports = {port["port"]: rule.get("to") for rule in spec["egress"] for port in rule["ports"]}
    assert set(ports) == {53, 443, 6443, names.PORT_METRICS}
    assert ports[names.PORT_METRICS][0]["podSelector"] == {"matchExpressions": [{"key": names.LABEL_RUN, "operator": "Exists"}]}


def test_the_operator_is_told_who_may_read_a_runs_metrics_and_may_make_its_policy(render):
    monitoring = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
    objects = render(**{"networkPolicy.runs": True, "networkPolicy.metricsFrom": [monitoring]})
    operator, prometheus = settings.parse([], environment(objects)).metrics_from
    labels = objects["Deployment", "pathoscale"]["spec"]["template"]["metadata"]["labels"]
    assert operator["podSelector"]["matchLabels"].items() <= labels.items()
    assert operator["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": "patho-system"}
    assert prometheus == monitoring
    assert ("networkpolicies", "create") in granted(objects["ClusterRole", "pathoscale"])


def test_without_peers_anybody_may_read_metrics_and_without_the_switch_there_is_no_right(render):
    assert settings.parse([], environment(render(**{"networkPolicy.runs": True}))).metrics_from == ()
    objects = render(**{"networkPolicy.enabled": True})
    assert settings.parse([], environment(objects)).metrics_from is None
    assert "networkpolicies" not in {resource for resource, _ in granted(objects["ClusterRole", "pathoscale"])}


def test_grafanas_sidecar_finds_the_dashboards(render):
    found = render(**{"dashboards.enabled": True, "dashboards.folder": "ML"})["ConfigMap", "pathoscale-dashboards"]
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert found["metadata"]["annotations"]["grafana_folder"] == "ML"
    boards = {path.name: json.loads(path.read_text()) for path in (CHART / "files" / "dashboards").glob("*.json")}
    assert {name.removeprefix("pathoscale-"): json.loads(text) for name, text in found["data"].items()} == boards


def test_the_chart_installs_the_generated_definitions_and_keeps_them(render):
    objects = render()
    for kind, plural in names.PLURALS.items():
        found = objects["CustomResourceDefinition", f"{plural}.{names.GROUP}"]
        assert found["spec"] == crd.definition(kind)["spec"]
        assert found["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_definitions_can_be_left_to_somebody_else(render):
    kinds = {kind for kind, _ in render(**{"crds.enabled": False})}
    assert "CustomResourceDefinition" not in kinds
    assert "Deployment" in kinds


def test_the_operator_meets_the_restricted_pod_security_standard(render):
    spec = pod(render())
    container = spec["containers"][0]["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def test_images_follow_the_release_unless_they_are_set(render):
    assert pod(render())["containers"][0]["image"] == "pathoscale/operator:0.1.0"
    assert environment(render())["PATHO_TRAINER_IMAGE"] == "pathoscale/trainer:0.1.0"
    assert environment(render(**{"trainer.image": "mine:2"}))["PATHO_TRAINER_IMAGE"] == "mine:2"


def test_the_operator_may_do_what_it_does_and_nothing_else(render):
    roles = {name: o for (kind, name), o in render().items() if kind in ("ClusterRole", "Role") and name not in USERS}
    rights = set().union(*(granted(role) for role in roles.values()))
    assert {("jobs", "create"), ("pods", "watch"), ("pathopretrains/status", "patch"), ("leases", "update")} <= rights
    assert not {right for right in rights if "*" in right or right[0] in ("secrets", "nodes", "pods/exec", "configmaps")}
    assert not {("pods", verb) for verb in ("create", "patch")} & rights
    assert ("pathopretrains", "update") not in rights


def test_with_watched_namespaces_nothing_is_granted_in_the_whole_cluster(render):
    objects = render(watchNamespaces=["a"])
    assert {name for kind, name in objects if kind.startswith("ClusterRole")} == set(USERS)
    assert objects["Role", "pathoscale"]["metadata"]["namespace"] == "a"
    assert objects["RoleBinding", "pathoscale"]["subjects"][0]["namespace"] == "patho-system"
    assert environment(objects)["PATHO_WATCH_NAMESPACES"] == "a"


def test_releases_in_one_namespace_have_their_own_lease_and_may_use_no_other(helm):
    objects = list(yaml.safe_load_all(helm("template", "second", str(CHART), "--namespace", "patho-system").stdout))
    (deployment,) = (o for o in objects if o and o["kind"] == "Deployment")
    (role,) = (o for o in objects if o and o["kind"] == "Role")
    assert environment({("Deployment", "pathoscale"): deployment})["PATHO_LEASE"] == "second-pathoscale-operator"
    assert [rule.get("resourceNames") for rule in role["rules"]] == [None, ["second-pathoscale-operator"]]


def test_the_clusters_view_edit_and_admin_roles_include_both_kinds(render):
    view, edit = (render()["ClusterRole", name] for name in USERS)
    assert {label.rsplit("-", 1)[1] for label in view["metadata"]["labels"] if "aggregate" in label} == {"view", "edit", "admin"}
    assert {label.rsplit("-", 1)[1] for label in edit["metadata"]["labels"] if "aggregate" in label} == {"edit", "admin"}
    assert granted(view) == {(plural, verb) for plural in names.PLURALS.values() for verb in ("get", "list", "watch")}


def test_monitors_are_there_when_asked_for(render):
    monitors = {"ServiceMonitor", "PodMonitor"}
    assert not monitors & {kind for kind, _ in render()}
    objects = render(**{"serviceMonitor.enabled": True, "podMonitor.enabled": True})
    assert monitors <= {kind for kind, _ in objects}
    runs = objects["PodMonitor", "pathoscale-runs"]["spec"]
    assert objects["ServiceMonitor", "pathoscale"]["spec"]["endpoints"][0]["honorLabels"]
    assert runs["selector"]["matchExpressions"] == [{"key": names.LABEL_RUN, "operator": "Exists"}]


def test_alerts_are_the_tested_ones_and_name_the_runbooks_of_the_house(render):
    spec = render(**{"prometheusRule.enabled": True, "prometheusRule.runbooks": "https://wiki.example/runbooks"})[
        "PrometheusRule", "pathoscale"
    ]["spec"]
    tested = (CHART / "files" / "alerts.yaml").read_text().replace("docs/runbooks.md#", "https://wiki.example/runbooks#")
    assert spec == yaml.safe_load(tested)


def test_every_part_of_the_values_is_closed():
    """Objects that Kubernetes itself defines are left to it."""
    schema = json.loads((CHART / "values.schema.json").read_text())
    opened = [path for path, part in objects_in(schema) if "additionalProperties" not in part]
    assert set(opened) == {"affinity", "global", "items", "namespaceSelector", "podSelector", "ipBlock"}


def objects_in(part, name=""):
    if isinstance(part, dict):
        if part.get("type") == "object":
            yield name, part
        for key, value in part.items():
            yield from objects_in(value, key)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("replicas=0", "minimum"),
        ("image.pullPolicy=Sometimes", "must be one of"),
        ("networkPolicy.apiServerPorts={https}", "got string, want integer"),
        ("dashboards.folders=x", "additional properties 'folders' not allowed"),
    ],
)
def test_a_wrong_value_is_refused_with_its_name(helm, value, sentence):
    done = helm("template", "pathoscale", str(CHART), "--set", value)
    assert done.returncode != 0
    assert sentence in done.stderr


def test_the_notes_say_what_to_do_next(helm):
    said = helm("install", "pathoscale", str(CHART), "--namespace", "patho-system", "--dry-run=client").stdout
    assert "watches all namespaces" in said
    assert said.count("  kubectl ") == 3
