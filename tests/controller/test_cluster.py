"""What goes over the wire: preconditions, patch types, and what each refusal means."""

import pytest

from patho_api import names
from patho_operator import client, errors, subject
from patho_operator.cluster import Done
from patho_operator.observed import Key
from patho_operator.plan import Burial, Delete, Event, Plan
from tests.controller.builders import UID, created, make_pretrain, plan_for

RUN = subject.parse(make_pretrain())
JOBS = "/apis/batch/v1/namespaces/lab/jobs"
EVENTS = "/api/v1/namespaces/lab/events"
STATUS = "/apis/pathoscale.dev/v1alpha1/namespaces/lab/pathopretrains/vits16/status"
CREATE = Plan(creates=(created(plan_for(make_pretrain())),))


def exists(fake, *owners):
    """A Job of the wanted name exists, with these owners (kind, name, uid)."""
    fake.refuse("POST", JOBS, 409, "AlreadyExists")
    references = [{"kind": kind, "name": name, "uid": uid} for kind, name, uid in owners]
    fake.answers["GET", f"{JOBS}/vits16-pt-1"] = 200, {"metadata": {"ownerReferences": references}}


async def test_every_delete_says_what_happens_to_pods_and_which_object_is_meant(cluster, fake):
    await cluster.execute(RUN, Plan(deletes=(Delete("Job", "lab", "vits16-pt-1", "u1"),)))
    assert fake.requests[0].path == f"{JOBS}/vits16-pt-1"
    assert fake.requests[0].body == {"propagationPolicy": "Foreground", "preconditions": {"uid": "u1"}}


async def test_status_is_one_merge_patch_of_the_version_it_was_computed_from(cluster, fake):
    await cluster.execute(RUN, Plan(status={"phase": "Running"}))
    (request,) = fake.requests
    assert (request.verb, request.path, request.content_type) == ("PATCH", STATUS, "application/merge-patch+json")
    assert request.body == {"metadata": {"resourceVersion": "7", "uid": UID}, "status": {"phase": "Running"}}


async def test_a_reason_is_written_down_before_its_job_is_deleted(cluster, fake):
    plan = Plan(status={"restarts": 1}, deletes=(Delete("Job", "lab", "vits16-pt-1", "u1"),))
    fake.refuse("PATCH", STATUS, 409, "Conflict")
    with pytest.raises(errors.Conflict):
        await cluster.execute(RUN, plan)
    assert [r.verb for r in fake.requests] == ["PATCH"]


async def test_our_own_job_from_before_a_crash_is_accepted(cluster, fake):
    exists(fake, (names.PRETRAIN, "vits16", UID))
    await cluster.execute(RUN, CREATE)


async def test_a_job_of_an_earlier_resource_of_this_name_is_waited_for(cluster, fake):
    exists(fake, (names.PRETRAIN, "vits16", "an older uid"))
    with pytest.raises(errors.NotYet):
        await cluster.execute(RUN, CREATE)


@pytest.mark.parametrize("owners", [[], [("CronJob", "nightly", "x")]])
async def test_a_foreign_job_of_the_wanted_name_is_a_conflict_of_names(cluster, fake, owners):
    exists(fake, *owners)
    with pytest.raises(errors.Refused) as caught:
        await cluster.execute(RUN, CREATE)
    assert caught.value.reason == "NameConflict"


@pytest.mark.parametrize(
    ("status", "reason", "message", "told"),
    [
        (403, "Forbidden", 'jobs.batch "x" is forbidden: exceeded quota: q, requested: count/jobs.batch=1', "QuotaExceeded"),
        (403, "Forbidden", "admission webhook denied the request", "Forbidden"),
        (422, "Invalid", "spec.template: Required value", "Invalid"),
        (500, "InternalError", 'Internal error occurred: failed calling webhook "jobs.example.com": deadline exceeded', "InternalError"),
    ],
)
async def test_what_the_api_server_refuses_is_told_in_its_words(cluster, fake, status, reason, message, told):
    fake.refuse("POST", JOBS, status, reason, message)
    with pytest.raises(errors.Refused) as caught:
        await cluster.execute(RUN, CREATE)
    assert caught.value.reason == told
    assert message in caught.value.message


async def test_an_optional_object_that_is_refused_is_an_event_and_stops_nothing(cluster, fake):
    evals = "/apis/pathoscale.dev/v1alpha1/namespaces/lab/pathoevals"
    fake.refuse("POST", evals, 403, "Forbidden", "exceeded quota: q")
    child = {"kind": names.EVAL, "metadata": {"name": "probe-200-ab"}}
    await cluster.execute(RUN, Plan(optional=(child,), status={"phase": "Running"}))
    assert [(r.verb, r.path.rpartition("/")[2]) for r in fake.requests] == [("POST", "pathoevals"), ("PATCH", "status"), ("POST", "events")]
    assert "exceeded quota: q" in fake.requests[-1].body["message"]


async def test_an_evaluation_that_cannot_be_made_now_is_decided_again_and_stops_nothing(cluster, fake):
    fake.refuse("POST", "/apis/pathoscale.dev/v1alpha1/namespaces/lab/pathoevals", 500, "InternalError")
    child = {"kind": names.EVAL, "metadata": {"name": "probe-200-ab"}}
    told = (Event("EvaluationCreated", "probe at step 200"), Event("Resumed", "goes on"))
    delete = Delete("Job", "lab", "vits16-pt-1", "u1")
    done = await cluster.execute(
        RUN, Plan(optional=(child,), status={"phase": "Running", "evaluations": []}, deletes=(delete,), events=told)
    )
    assert done.unmade is not None
    assert done.unmade.status == 500
    _, status, deleted, event = fake.requests
    assert (status.body["status"], deleted.verb, event.body["reason"]) == ({"phase": "Running"}, "DELETE", "Resumed")


async def test_a_pod_on_a_dead_node_is_failed_by_a_disruption_and_then_deleted_without_its_kubelet(cluster, fake):
    await cluster.execute(RUN, Plan(burials=(Burial("lab", "p-1", "u1"),)))
    failed, gone = fake.requests
    assert (failed.verb, failed.path) == ("PATCH", "/api/v1/namespaces/lab/pods/p-1/status")
    assert failed.body["metadata"] == {"uid": "u1"}
    assert (failed.body["status"]["phase"], failed.body["status"]["conditions"][0]["type"]) == ("Failed", "DisruptionTarget")
    assert gone.body == {"gracePeriodSeconds": 0, "propagationPolicy": "Background", "preconditions": {"uid": "u1"}}


async def test_what_is_already_gone_is_no_error(cluster, fake):
    fake.refuse("DELETE", f"{JOBS}/vits16-pt-1", 404, "NotFound")
    fake.refuse("PATCH", STATUS, 404, "NotFound")
    assert await cluster.execute(RUN, Plan(status={}, deletes=(Delete("Job", "lab", "vits16-pt-1", "u1"),))) == Done()
    assert await cluster.execute(RUN, Plan(status={"phase": "Running"})) == Done()


async def test_an_event_that_is_told_again_is_counted(cluster, fake):
    """By its reason: words that differ each time would be an object each time."""
    await cluster.execute(RUN, Plan(events=(Event("Restarting", "index 3 did not come back", warning=True),)))
    first = fake.requests[-1].body
    fake.refuse("POST", EVENTS, 409, "AlreadyExists")
    fake.answers["GET", f"{EVENTS}/{first['metadata']['name']}"] = 200, first
    await cluster.execute(RUN, Plan(events=(Event("Restarting", "index 5 did not come back", warning=True),)))
    assert (first["type"], first["involvedObject"]["uid"]) == ("Warning", UID)
    assert [(r.verb, r.body["count"]) for r in fake.requests if r.verb != "GET"] == [("POST", 1), ("POST", 1), ("PATCH", 2)]
    assert fake.requests[-1].body["message"] == "index 5 did not come back"


async def test_long_lists_are_read_in_pages(cluster, fake):
    first = {"metadata": {"continue": "more"}, "items": [{"metadata": {"uid": "a"}}]}
    fake.answers["GET", "/api/v1/pods"] = [(200, first), (200, {"metadata": {}, "items": [{"metadata": {"uid": "b"}}]})]
    assert (await cluster.uids("Pod", selector="x=y")).keys() == {"a", "b"}
    assert fake.requests[1].query == {"limit": "500", "labelSelector": "x=y", "continue": "more"}


async def test_a_live_look_sees_only_the_jobs_and_pods_of_the_run(cluster, fake):
    for path in (JOBS, "/api/v1/namespaces/lab/pods"):
        fake.answers["GET", path] = 200, {"items": []}
    await cluster.look(Key(names.PRETRAIN, "lab", "vits16"))
    assert {r.query["labelSelector"] for r in fake.requests} == {f"{names.LABEL_RUN}=vits16,{names.LABEL_KIND}=PathoPretrain"}


@pytest.mark.parametrize(("status", "kind"), [(404, errors.NotFound), (409, errors.Conflict), (503, errors.ApiError)])
async def test_the_type_of_an_error_says_what_to_do(api, fake, status, kind):
    fake.refuse("GET", "/x", status, "Whatever", "words")
    with pytest.raises(kind) as caught:
        await api.request("GET", "/x")
    assert caught.value.message == "words"


def test_an_object_nested_deeper_than_the_quick_reader_takes_is_read_all_the_same():
    depth = 250
    found = client.decoded(b'{"a":' * depth + b"1" + b"}" * depth)
    for _ in range(depth):
        found = found["a"]
    assert found == 1
