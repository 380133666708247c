"""The checker itself: each rule is broken once and must be noticed."""

import pytest

from patho_api import names
from tests.cluster.chaos import invariants, proxy
from tests.controller.builders import NOW, after, make_job, make_pod, make_pretrain, plan_for, started

OWNER = [{"kind": names.PRETRAIN, "name": "vits16", "uid": make_pretrain()["metadata"]["uid"], "controller": True}]


@pytest.fixture
def checker():
    return invariants.Checker()


def run(**status):
    return make_pretrain(status=status)


def job(attempt, uid=""):
    made = make_job(make_pretrain(), attempt)
    made["metadata"] |= {"uid": uid or f"job-{attempt}", "ownerReferences": OWNER}
    return made


def pod(attempt, uid, **shape):
    made = make_pod(make_pretrain(), attempt=attempt, uid=uid, **shape)
    made["metadata"] |= {"namespace": "lab", "labels": made["metadata"]["labels"] | {names.LABEL_RUN: "vits16"}}
    return made | {"kind": "Pod"}


SUCCEEDED = [{"type": "Succeeded", "status": "True", "reason": "x", "message": "", "lastTransitionTime": "2030-01-01T00:00:00Z"}]
BROKEN = {
    "the attempt falls": ([run(attempt=2), run(attempt=1)], "the attempt fell from 2 to 1"),
    "restarts fall": ([run(restarts=2), run(restarts=1)], "restarts fell"),
    "more restarts than allowed": ([run(restarts=12)], "12 restarts, limit 10"),
    "terminal is left": ([run(phase="Succeeded", conditions=SUCCEEDED), run(phase="Running")], "Succeeded was not terminal"),
    "an attempt is made twice": ([job(1), job(1, "another")], "attempt 1 was made twice"),
    "an old attempt comes back": ([job(2), job(1)], "appeared after that of attempt 2"),
    "an attempt after the end": ([run(phase="Succeeded", conditions=SUCCEEDED), job(1)], "began after the run had Succeeded"),
    "two attempts at the same time": ([pod(1, "a"), pod(2, "b", pending=True)], "pods of attempts [1, 2] are alive"),
}


@pytest.mark.parametrize(("story", "sentence"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_rule_is_noticed(checker, story, sentence):
    for body in story:
        checker.see("ADDED", body)
    assert sentence in "".join(checker.violations)


def test_an_orderly_restart_breaks_no_rule(checker):
    for body in (run(attempt=1), job(1), pod(1, "a"), pod(1, "a", exit_code=1), job(2), pod(2, "b"), run(attempt=2, restarts=1)):
        checker.see("ADDED", body)
    assert not checker.violations


def test_a_plan_that_is_not_carried_out_is_noticed():
    body = make_pretrain()
    wrong = invariants.at_rest(body, [], [], NOW, image="trainer:1")
    assert "create Job vits16-pt-1" in wrong[0]
    assert "observedGeneration" in wrong[1]


def test_a_run_at_rest_has_nothing_left_to_do():
    body = started(make_pretrain())
    seen = [make_job(body)], [make_pod(body)]
    body = after(body, plan_for(body, *seen))
    assert not invariants.at_rest(body, *seen, NOW, image="trainer:1")


def test_a_child_without_its_resource_is_an_orphan():
    child = job(1)
    assert not invariants.orphans([make_pretrain()], [child])
    assert "vits16-pt-1: Job is an orphan" in invariants.orphans([], [child])[0]


@pytest.mark.parametrize(
    ("method", "path", "query", "right"),
    [
        ("GET", "/api/v1/pods", {"watch": "true"}, ("", "pods", "watch")),
        ("GET", "/apis/batch/v1/namespaces/a/jobs", {}, ("batch", "jobs", "list")),
        ("GET", "/apis/batch/v1/namespaces/a/jobs/j", {}, ("batch", "jobs", "get")),
        ("POST", "/api/v1/namespaces/a/services", {}, ("", "services", "create")),
        ("PATCH", "/apis/pathoscale.dev/v1alpha1/namespaces/a/pathoevals/e/status", {}, (names.GROUP, "pathoevals/status", "patch")),
        ("PUT", "/apis/coordination.k8s.io/v1/namespaces/a/leases/l", {}, ("coordination.k8s.io", "leases", "update")),
        ("DELETE", "/api/v1/namespaces/a/pods/p", {}, ("", "pods", "delete")),
    ],
)
def test_the_proxy_names_a_request_as_rbac_does(method, path, query, right):
    found = proxy.read(method, path, query)
    assert found is not None
    assert (found.group, found.resource, found.verb) == right


@pytest.mark.parametrize(
    ("body", "lacks"),
    [
        (b"", "propagationPolicy and preconditions.uid"),
        (b'{"propagationPolicy": "Foreground"}', "preconditions.uid"),
        (b'{"propagationPolicy": "Foreground", "preconditions": {"uid": "u"}}', ""),
    ],
)
def test_a_delete_that_could_orphan_or_hit_another_is_refused(body, lacks):
    assert lacks in proxy._malformed(body)
    assert bool(proxy._malformed(body)) == bool(lacks)
