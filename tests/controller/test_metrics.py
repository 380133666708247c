"""The operator's metrics against their contract: all of them, few series, and no name of an object where it would stay for ever."""

import pytest

from patho_api import names
from patho_operator import metrics, subject
from patho_operator.observed import Key
from tests.controller.builders import make_eval, make_pretrain

FAMILIES = ("OPERATOR_", "RUN_", "JOBS", "JOB_RESTARTS", "JOB_TIME", "EVAL_SCORE")
CONTRACT = {value for name, value in vars(names).items() if name.startswith(FAMILIES)}
OBJECTS = {"namespace", "name", "run"}
CLOSED = {"kind", "phase", "type", "reason", "result", "verb", "code", "version", "le", "task", "metric"}


@pytest.fixture
def known():
    """Metrics of an operator that leads one run and one evaluation."""
    found = metrics.Metrics("0.1.0")
    score = {"task": "MHIST", "metric": "accuracy", "mean": 0.8, "std": 0.0, "runs": 1, "samples": 1}
    condition = {"type": "Running", "status": "True", "reason": "Running", "message": "", "lastTransitionTime": "2030-01-01T00:00:00Z"}
    progress = {"stage": "Training", "step": 10, "totalSteps": 100, "time": "2030-01-01T00:00:00Z"}
    for body in (make_pretrain(status={"conditions": [condition], "progress": progress}), make_eval(status={"results": [score]})):
        found.runs.shown[Key(body["kind"], "lab", body["metadata"]["name"])] = subject.parse(body).status
    found.count_request("GET", 200)
    found.reconciles.labels(names.PRETRAIN, "done").inc()
    found.restarts.labels(names.PRETRAIN, "incident").inc()
    return found


def test_every_metric_of_the_contract_is_exported_and_no_other(known):
    exported = {family.name + ("_total" if family.type == "counter" else "") for family in known.registry.collect()}
    assert exported == CONTRACT


def test_names_of_objects_stand_on_gauges_alone_and_other_labels_are_closed_sets(known):
    for family in known.registry.collect():
        labels = {label for sample in family.samples for label in sample.labels}
        assert labels <= OBJECTS | CLOSED, family.name
        assert family.type == "gauge" or not labels & OBJECTS, family.name


def test_nothing_of_an_object_outlives_it(known):
    known.runs.shown.clear()
    assert b"vits16" not in known.text()
    assert b'namespace="lab"' not in known.text()
