"""Anybody who may edit Jobs and pods may write anything into what the operator reads there: no turn fails for ever because of it."""

import json
import math

import jsonschema
import pytest

from patho_api import crd, names
from patho_operator import observed
from tests.controller.builders import after, make_job, make_pod, make_pretrain, plan_for, started

ANNOTATIONS = sorted({value for name, value in vars(names).items() if name.startswith("ANNOTATION_")})
TOTALS = '{{"restarts": {0}, "disruptions": {0}, "acceleratorSeconds": {0}}}'
HOSTILE = [
    "",
    "x" * 200_000,
    "²",
    "9" * 30,
    "-1",
    "NaN",
    "null",
    "[]",
    *map(TOTALS.format, ("9" * 30, "-7", "NaN", "1e300", "1e400", "[1]")),
]
LABELS = ["", "²", "9" * 63, "x" * 63, "-1"]
LOST = make_pretrain(compute={"nodes": 2})
KNOWN = started(LOST)
STATUS = crd.definition(names.PRETRAIN)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]


def numbers(node):
    """All numbers in JSON."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    return [n for child in children for n in numbers(child)] + ([node] if isinstance(node, int | float) else [])


def takes(plan, body):
    """Whether the API server takes the status that a plan writes."""
    status = after(body, plan)["status"]
    jsonschema.validate(json.loads(json.dumps(status, allow_nan=False)), STATUS)
    return all(math.isfinite(n) and abs(n) < 2**63 for n in numbers(status))


@pytest.mark.parametrize("body", [LOST, KNOWN], ids=["status lost", "status known"])
@pytest.mark.parametrize("annotation", ANNOTATIONS)
def test_an_annotation_that_somebody_wrote_on_a_job_holds_nothing_up(body, annotation):
    for text in HOSTILE:
        job = make_job(KNOWN)
        job["metadata"]["annotations"][annotation] = text
        assert takes(plan_for(body, [job], [make_pod(KNOWN, 0), make_pod(KNOWN, 1)]), body), text[:80]


@pytest.mark.parametrize("text", LABELS)
def test_an_attempt_that_somebody_wrote_on_a_job_or_pod_holds_nothing_up(text):
    job, pod = make_job(KNOWN), make_pod(KNOWN, 0)
    for thing in (job, pod):
        thing["metadata"]["labels"][names.LABEL_ATTEMPT] = text
    assert takes(plan_for(KNOWN, [job], [pod, make_pod(KNOWN, 1)]), KNOWN)


@pytest.mark.parametrize("annotation", [observed.COMPLETION_INDEX, *observed.FAILURE_COUNTS])
def test_an_annotation_that_somebody_wrote_on_a_pod_holds_nothing_up(annotation):
    for text in HOSTILE:
        pods = [make_pod(KNOWN, 0), make_pod(KNOWN, 1, exit_code=1)]
        pods[1]["metadata"]["annotations"][annotation] = text
        assert takes(plan_for(KNOWN, [make_job(KNOWN)], pods), KNOWN), text[:80]
