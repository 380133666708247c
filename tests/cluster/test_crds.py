"""The definitions in a real API server: the other half of tests/api/cases.py, and what people see of them in kubectl."""

import json
import pathlib
from collections.abc import Iterator

import pytest

from patho_api import names, resource
from tests.api import cases
from tests.cluster import waiting
from tests.cluster.cluster import Cluster, Refused

ROOT = pathlib.Path(__file__).parents[2]
DEFINITIONS = [f"{plural}.{names.GROUP}" for plural in names.PLURALS.values()]

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("without_operator")]  # statuses are written by hand here


@pytest.fixture(scope="module", autouse=True)
def definitions(cluster: Cluster) -> Iterator[None]:
    """Both definitions; where a chart has installed them, those."""
    missing = [name for name in DEFINITIONS if not cluster.exists("crd", name)]
    for name in missing:
        cluster.kubectl("create", "-f", str(ROOT / "crds" / f"{name.split('.')[0]}.yaml"))
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", *DEFINITIONS)
    waiting.until(lambda: "ppt" in cluster.kubectl("api-resources", "--cached=false"), what="discovery of both kinds")
    yield
    for name in missing:
        cluster.kubectl("delete", "crd", name)


def dry_run(cluster: Cluster, body: cases.Body) -> dict:
    """`kubectl apply` without the effect; the object as the server would store it. Raises Refused."""
    return json.loads(cluster.kubectl("apply", "--dry-run=server", "-o", "json", "-f", "-", stdin=json.dumps(body)))


@pytest.mark.parametrize("case", cases.ACCEPTED, ids=lambda case: case.title)
def test_the_api_server_accepts(cluster: Cluster, case: cases.Case):
    assert dry_run(cluster, case.body)["spec"]


@pytest.mark.parametrize("case", cases.REFUSED, ids=lambda case: case.title)
def test_the_api_server_refuses_with_a_sentence(cluster: Cluster, case: cases.Case):
    with pytest.raises(Refused) as refused:
        dry_run(cluster, case.body)
    field, fragment = case.expected_from_server()
    assert field in str(refused.value)
    assert fragment in str(refused.value)


@pytest.mark.parametrize("case", cases.UPDATES, ids=lambda case: case.title)
def test_the_api_server_judges_an_update(here: Cluster, case: cases.Case):
    here.apply(case.body)
    if not case.says:
        assert dry_run(here, case.update)
        return
    with pytest.raises(Refused, match=case.says):
        dry_run(here, case.update)


def test_the_server_fills_in_the_same_defaults_as_the_models(cluster: Cluster):
    for kind, body in cases.VALID.items():
        stored = dry_run(cluster, body)
        parsed, original = (resource.parse(b).spec for b in (stored, body))
        assert parsed == original, kind
        assert without_nulls(original.dump()) == stored["spec"], kind


def test_explain_reads_like_a_manual(cluster: Cluster):
    text = " ".join(cluster.kubectl("explain", "ppt.spec.patches").split())
    assert "mppTolerance <number> Relative; a level this close to the wanted resolution is read as it is. Default: 0.05" in text
    assert "coordinates <string> enum: Free, Grid" in text


@pytest.mark.parametrize("example", sorted((ROOT / "examples").glob("*.yaml")), ids=lambda path: path.name)
def test_the_api_server_accepts_an_example(here: Cluster, example: pathlib.Path):
    here.kubectl("apply", "--dry-run=server", "-f", str(example))


def test_kubectl_shows_a_run_in_one_line(here: Cluster):
    here.apply(cases.VALID[names.PRETRAIN])
    progress = {"display": "20 (20 %)", "rate": "412", "wait": "1 %", "eta": "3 min", "loss": 8.25}
    report(
        here, "ppt", "vits16", {"phase": "Running", "restarts": 1, "progress": progress, "checkpoint": {"latest": {"step": 10, "url": "x"}}}
    )
    head, line = here.kubectl("get", "ppt", "-o", "wide").splitlines()
    assert head.split() == ["NAME", "PHASE", "STEP", "IMG/S", "WAIT", "ETA", "NODES", "RESTARTS", "AGE", "LOSS", "CHECKPOINT"]
    for shown in ("vits16", "Running", "20 (20 %)", "412", "1 %", "3 min", "8.25", "10"):
        assert shown in line


def test_kubectl_shows_scores_and_the_category_holds_both_kinds(here: Cluster):
    here.apply(*cases.VALID.values())
    report(here, "pev", "vits16-mhist", {"phase": "Succeeded", "modelUrl": "gs://me/runs/vits16/step-100", "scoreSummary": "MHIST 0.812"})
    head, line = here.kubectl("get", "pev").splitlines()
    assert head.split() == ["NAME", "PHASE", "MODEL", "SCORES", "AGE"]
    assert "MHIST 0.812" in line
    assert "pathopretrain.pathoscale.dev/vits16" in here.kubectl("get", "patho", "-o", "name")


def test_a_status_cannot_be_written_with_the_specification(here: Cluster):
    here.apply(cases.VALID[names.PRETRAIN] | {"status": {"phase": "Succeeded"}})
    assert "status" not in here.get("ppt", "vits16")


def report(cluster: Cluster, kind: str, name: str, status: dict) -> None:
    """Write a status as the operator does: a merge patch of the subresource."""
    cluster.kubectl("patch", kind, name, "--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))


def without_nulls(node):
    """The same JSON without null fields, as the API server stores it."""
    if isinstance(node, list):
        return [without_nulls(item) for item in node]
    return {k: without_nulls(v) for k, v in node.items() if v is not None} if isinstance(node, dict) else node
