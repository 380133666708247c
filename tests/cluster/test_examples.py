"""Every example is accepted by a real API server, and so is what the operator makes of it."""

import json
import pathlib

import pytest

from patho_api import names, resource
from patho_operator import manifests, observed
from tests.cluster import release
from tests.cluster.cluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


def test_the_api_server_accepts_every_example(here: Cluster):
    said = here.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(EXAMPLES))
    found = [r for path in sorted(EXAMPLES.glob("*.yaml")) for r in resource.load(str(path))]
    assert sum(names.GROUP in line for line in said.splitlines()) == len(found)


def test_the_api_server_accepts_the_job_of_every_example(here: Cluster, operator: release.Operator):
    for path in sorted(EXAMPLES.glob("*.yaml")):
        made = [objects(found) for found in resource.load(str(path))]
        text = "\n---\n".join(json.dumps(o) for pair in made for o in pair)
        assert here.kubectl("create", "--dry-run=server", "-f", "-", stdin=text).count("created (server dry run)") == 2 * len(made), path


def objects(found: resource.Resource) -> tuple[dict, dict]:
    """The first attempt's Job and the run's Service; nobody owns them in a dry run."""
    whole = manifests.with_model(found, "gs://my-results/runs/vits16/step-00012500")
    made = manifests.job(whole, attempt=1, image="trainer:1", before=observed.Before(), reason="Started", wanted_hash="0")
    for one in (made, service := manifests.service(whole)):
        one["metadata"] = {k: v for k, v in one["metadata"].items() if k not in ("ownerReferences", "namespace")}
        one["metadata"]["labels"].pop(names.LABEL_UID, None)
    return made, service
