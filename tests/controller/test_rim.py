"""Indexes, complete lists, health, metrics and settings: small parts of the rim."""

import asyncio
import dataclasses
import datetime
import json
import subprocess
import sys
import time

import pytest
from kopf._cogs.clients import fetching, watching
from kopf._cogs.structs import references

from patho_api import names
from patho_operator import handlers, health, metrics, observed, overlay, queue, relist, settings, subject, times
from patho_operator.cluster import path
from patho_operator.handlers import Indexes
from patho_operator.observed import Key
from tests.controller.builders import (
    UID,
    after,
    at_present,
    make_eval,
    make_job,
    make_pod,
    make_pretrain,
    make_worker,
    plan_for,
    started,
    stored,
)

KEY = Key(names.PRETRAIN, "lab", "vits16")
RESOURCE = path(names.PRETRAIN, "lab", "vits16")


def test_what_was_just_written_is_used_until_the_index_has_it():
    indexes = Indexes(resources={KEY: stored(make_pretrain(), "7")})
    indexes.written[KEY] = started(make_pretrain()) | {"metadata": make_pretrain()["metadata"] | {"resourceVersion": "8"}}
    assert indexes.body(KEY)["status"]["attempt"] == 1
    indexes.resources = {KEY: stored(make_pretrain(), "9")}
    assert indexes.body(KEY)["status"] == {}
    assert not indexes.written


def test_ghosts_are_not_seen():
    body = make_pretrain()
    indexes = Indexes(
        resources={KEY: stored(body)},
        jobs={KEY: [observed.job(make_job(body))]},
        pods={KEY: [observed.pod(make_pod(body, uid="p"))]},
    )
    indexes.ghosts = {UID, "job-1", "p"}
    assert indexes.body(KEY) is None
    assert indexes.observe(KEY) == observed.Observed()


def test_a_resource_made_anew_under_the_old_name_hides_behind_no_ghost():
    indexes = Indexes(resources={KEY: stored(make_pretrain(), "7") + stored(make_pretrain(uid="new"), "9")})
    assert indexes.body(KEY)["metadata"]["uid"] == "new"


@pytest.mark.parametrize("failures", [0, 1])
async def test_after_a_watch_has_expired_a_complete_list_is_made_at_once(cluster, fake, monkeypatch, failures):
    """What went while the watch was down is told by nobody."""
    monkeypatch.setattr(relist, "ARRIVAL_SECONDS", 0.01)
    monkeypatch.setattr(relist, "RETRY_SECONDS", 0.01)
    for kind in relist.KINDS:
        fake.answers["GET", path(kind)] = 200, {"metadata": {}, "items": []}
    if failures:
        fake.answers["GET", path(kind)] = [(500, {}), (200, {"metadata": {}, "items": []})]
    made, indexes = asyncio.Event(), Indexes()
    lists = asyncio.create_task(relist.Relist(cluster, indexes, queue.Queue(), set(), (), made.set).run(3600))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.1):
            await made.wait()
    indexes.relisted.set()
    async with asyncio.timeout(10):
        await made.wait()
    lists.cancel()


async def test_a_list_of_kopfs_is_noticed_though_it_is_empty(monkeypatch):
    async def nothing(**_):
        return {"metadata": {"resourceVersion": "1"}, "items": []}

    monkeypatch.setattr(fetching.api, "get", nothing)
    indexes, runs = Indexes(), references.Resource(names.GROUP, names.VERSION, names.PLURALS[names.PRETRAIN], namespaced=True)
    with handlers.noticing_lists(indexes):
        for again in (False, True):  # the first one is no sign of an expired watch
            stream = watching.continuous_watch(
                settings=handlers.settings(), resource=runs, namespace=None, operator_pause_waiter=asyncio.Future()
            )
            assert await anext(stream) is watching.Bookmark.LISTED
            assert indexes.relisted.is_set() == again


async def test_a_complete_list_drops_ghosts_and_finds_what_was_missed(cluster, fake):
    listed = {names.PRETRAIN: [], names.EVAL: [("e", {})], "Job": [("job-9", {names.LABEL_RUN: "other", names.LABEL_KIND: names.PRETRAIN})]}
    for kind in relist.KINDS:
        items = [{"metadata": {"uid": u, "name": u, "namespace": "lab", "labels": labels}} for u, labels in listed.get(kind, [])]
        fake.answers["GET", path(kind)] = 200, {"metadata": {}, "items": items}
    indexes, found, rounds = Indexes(resources={KEY: stored(make_pretrain())}), queue.Queue(), []
    lists = relist.Relist(cluster, indexes, found, set(), (), lambda: rounds.append(1))
    await lists.once()
    assert indexes.ghosts == {UID}
    assert lists.suspect == {Key(names.EVAL, "lab", "e"), Key(names.PRETRAIN, "lab", "other")}
    assert (len(found), rounds) == (3, [1])


async def test_a_stranger_with_our_labels_is_never_asked_nor_worked_on(cluster, fake):
    """Anybody may write a label: a kind of their own would be a turn that fails for ever, and a metric of its own."""
    for kind in relist.KINDS:
        labels = {names.LABEL_RUN: "x", names.LABEL_KIND: "Stranger"}
        items = [{"metadata": {"uid": "s", "name": "s", "namespace": "lab", "labels": labels}}] if kind == "Pod" else []
        fake.answers["GET", path(kind)] = 200, {"metadata": {}, "items": items}
    found = queue.Queue()
    await relist.Relist(cluster, Indexes(), found, set(), (), lambda: None).once()
    stranger = observed.pod(make_pod(make_pretrain(), ip="10.0.0.1"))
    assert not len(found)
    assert not list(Indexes(pods={Key("Stranger", "lab", "x"): [stranger]}).hosts())


async def test_a_lost_event_makes_every_look_a_live_one_until_the_index_has_caught_up(cluster, fake):
    for kind in relist.KINDS:
        items = [{"metadata": {"uid": UID, "name": "vits16", "namespace": "lab", "resourceVersion": "9"}}] if kind == names.PRETRAIN else []
        fake.answers["GET", path(kind)] = 200, {"metadata": {}, "items": items}
    indexes = Indexes(resources={KEY: stored(make_pretrain(), "7")})
    await relist.Relist(cluster, indexes, queue.Queue(), set(), (), lambda: None).once()
    assert indexes.behind(KEY)
    indexes.resources = {KEY: stored(make_pretrain(), "9")}
    assert not indexes.behind(KEY)


async def test_a_turn_looks_live_before_it_creates(cluster, fake):
    """The index still shows the resource without status; the server knows attempt 1 and its Job."""
    body = started(make_pretrain())
    fake.answers["GET", RESOURCE] = fake.answers["PATCH", f"{RESOURCE}/status"] = 200, body
    fake.answers["GET", "/apis/batch/v1/namespaces/lab/jobs"] = 200, {"items": [make_job(body)]}
    fake.answers["GET", "/api/v1/namespaces/lab/pods"] = 200, {"items": []}
    turn = make_worker(cluster, Indexes(resources={KEY: stored(make_pretrain())}))
    await turn(KEY)
    assert not [r for r in fake.requests if r.verb == "POST"]


async def test_a_new_resource_costs_one_read_and_one_write(cluster, fake):
    """A list for each of a thousand new resources would look at a million objects."""
    body = make_pretrain()
    fake.answers["GET", RESOURCE] = 200, body
    await make_worker(cluster, Indexes(resources={KEY: stored(body)}))(KEY)
    assert [(r.verb, r.path.rpartition("/")[2]) for r in fake.requests] == [("GET", "vits16"), ("POST", "jobs")]


async def test_while_runs_begin_the_first_status_of_another_waits_for_its_pods(cluster, fake):
    body, other = make_pretrain(), Key(names.PRETRAIN, "lab", "other")
    fake.answers["GET", path(names.PRETRAIN, "lab", "other")] = 200, body | {"metadata": body["metadata"] | {"name": "other", "uid": "o"}}
    fake.answers["PATCH", f"{RESOURCE}/status"] = 200, started(body) | {"metadata": body["metadata"] | {"resourceVersion": "8"}}
    job = observed.job(make_job(body, created=at_present(cluster) - datetime.timedelta(seconds=10)))
    turn = make_worker(cluster, Indexes(resources={KEY: stored(body)}, jobs={KEY: [job]}))
    await turn(other)
    await turn(KEY)
    assert [r.verb for r in fake.requests] == ["GET", "POST"]
    turn.starts.clock = lambda: time.monotonic() + 10
    await turn(KEY)
    assert fake.requests[-1].verb == "PATCH"


async def test_events_are_asked_for_once_a_second_and_remembered_in_between(cluster, fake):
    turn = make_worker(cluster, Indexes())
    fake.answers["GET", path("Event", "lab")] = 200, {"items": [{"message": "secret not found"}]}
    assert await turn._warnings(KEY, ["p"]) == ("secret not found",)
    assert await turn._warnings(Key(names.PRETRAIN, "lab", "other"), ["q"]) == ()
    assert await turn._warnings(KEY, ["p"]) == ("secret not found",)
    assert len(fake.requests) == 1


async def test_before_its_first_status_a_run_is_not_begun_twice(cluster, fake):
    """The index shows neither the Job nor a status yet: before anything else is made, the Jobs are listed."""
    body = make_pretrain()
    fake.answers["GET", RESOURCE] = 200, body
    fake.answers["GET", "/api/v1/namespaces/lab/pods"] = 200, {"items": []}
    fake.answers["GET", "/apis/batch/v1/namespaces/lab/jobs"] = 200, {"items": [make_job(body, created=at_present(cluster))]}
    turn = make_worker(cluster, Indexes(resources={KEY: stored(body)}))
    await turn(KEY)
    await turn(KEY)
    assert [r.path.rpartition("/")[2] for r in fake.requests if r.verb == "POST"] == ["jobs"]


async def test_a_job_that_went_before_the_first_status_is_remembered_though_nothing_shows_it(cluster, fake):
    body = make_pretrain()
    fake.answers["GET", RESOURCE] = fake.answers["PATCH", f"{RESOURCE}/status"] = 200, body
    fake.answers["GET", "/api/v1/namespaces/lab/pods"] = fake.answers["GET", "/apis/batch/v1/namespaces/lab/jobs"] = 200, {"items": []}
    turn = make_worker(cluster, Indexes(resources={KEY: stored(body)}))
    await turn(KEY)
    await turn(KEY)
    (written,) = [r.body["status"] for r in fake.requests if r.verb == "PATCH"]
    assert (written["attempt"], written["phase"]) == (1, "Restarting")
    assert [r.path.rpartition("/")[2] for r in fake.requests if r.verb == "POST"] == ["jobs", "events"]


async def test_the_event_of_a_write_that_is_the_last_word_is_no_news(cluster, fake):
    body = started(make_pretrain())
    running = after(body, plan_for(body, [make_job(body)], [make_pod(body)]))
    written = running | {"metadata": body["metadata"] | {"resourceVersion": "8"}}
    fake.answers["PATCH", f"{RESOURCE}/status"] = 200, written
    job, pod = observed.job(make_job(body)), observed.pod(make_pod(body))
    indexes, found = Indexes({KEY: stored(body)}, {KEY: [job]}, {KEY: [pod]}), queue.Queue()
    await make_worker(cluster, indexes)(KEY)
    assert indexes.written
    handlers.resource_changed(found, indexes, written)
    assert not len(found)
    assert not indexes.written  # kept for thousands, it would be most of the memory
    handlers.resource_changed(found, indexes, running | {"metadata": body["metadata"] | {"resourceVersion": "9"}})
    assert len(found) == 1


def test_the_first_status_of_a_run_that_needs_no_evaluation_is_a_last_word():
    body = make_pretrain()
    assert plan_for(body, [make_job(body)], [make_pod(body)]).settled


async def test_a_turn_on_a_resource_that_is_gone_forgets_it(cluster, fake):
    fake.refuse("GET", RESOURCE, 404, "NotFound")
    turn = make_worker(cluster, Indexes())
    turn.metrics.runs.shown[KEY] = subject.parse(make_pretrain()).status
    assert await turn(KEY) is None
    assert not turn.metrics.runs.shown


def test_the_index_keeps_what_decisions_need_and_no_more():
    body = make_pretrain()
    body["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    kept = json.loads(handlers.compact(body))
    assert "managedFields" not in kept["metadata"]
    assert subject.parse(kept) == subject.parse(body)


def test_a_status_of_another_release_is_read_as_far_as_it_goes():
    found = subject.parse(make_pretrain(status={"attempt": 3, "fromTheFuture": {"a": 1}, "phase": 7}))
    assert (found.status.attempt, found.status.phase) == (3, "")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({}, []),
        ({"leading": False, "renewed": 0.0, "turned": 0.0, "listed": 0.0}, []),
        ({"renewed": 984.0}, ["Lease"]),
        ({"turned": 900.0}, ["queue"]),
        ({"listed": 0.0}, ["complete list"]),
    ],
)
def test_health_is_the_pulse_of_each_part(change, words):
    pulse = health.Pulse(leading=True, renewed=998.0, reached=998.0, turned=999.0, listed=800.0)
    found = health.problems(dataclasses.replace(pulse, **change), 1000.0, 15.0)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))


def test_a_standby_is_ready_while_the_api_server_answers():
    assert not health.not_ready(health.Pulse(reached=999.0), 1000.0)
    assert health.not_ready(health.Pulse(reached=900.0), 1000.0)


def test_metrics_of_an_object_go_with_the_object():
    found = metrics.Metrics("0.1.0")
    ended = make_eval(status={"phase": "Succeeded", "results": [_result("MHIST", 0.8)]})
    key = Key(names.EVAL, "lab", "vits16-eval")
    found.runs.shown[key] = subject.parse(ended).status
    assert 'patho_eval_score{metric="accuracy",name="vits16-eval",namespace="lab",run="",task="MHIST"} 0.8' in found.text().decode()
    assert 'patho_jobs{kind="PathoEval",phase="Succeeded"} 1.0' in found.text().decode()
    del found.runs.shown[key]
    assert "vits16-eval" not in found.text().decode()


def test_metrics_say_in_which_state_each_run_is():
    found = metrics.Metrics("0.1.0")
    when = {"lastTransitionTime": "2030-01-01T12:00:00Z"}
    conditions = [{"type": t, "status": s, "reason": "LowRank"} | when for t, s in (("Collapsed", "True"), ("Stalled", "False"))]
    status = {"phase": "Running", "restarts": 2, "progress": {"step": 250, "totalSteps": 1000}, "conditions": conditions}
    found.runs.shown[KEY] = subject.parse(make_pretrain(status=status)).status
    said = found.text().decode()
    who = 'kind="PathoPretrain",name="vits16",namespace="lab"'
    assert f'patho_run_phase{{{who},phase="Running"}} 1.0' in said
    assert f'patho_run_condition{{{who},reason="LowRank",type="Collapsed"}} 1.0' in said
    assert f"patho_run_progress_ratio{{{who}}} 0.25" in said
    assert f"patho_run_restarts{{{who}}} 2.0" in said
    assert "Stalled" not in said


def _result(task, mean):
    return {"task": task, "metric": "accuracy", "mean": mean, "std": 0.0, "runs": 1, "samples": 1}


def test_settings_come_from_flags_over_the_environment():
    environ = {"PATHO_WATCH_NAMESPACES": "a, b", "PATHO_TRAINER_IMAGE": "mine:2", "PATHO_WORKERS": "4", "POD_NAMESPACE": "ops"}
    found = settings.parse(["--workers", "8"], environ)
    assert (found.namespaces, found.image, found.workers, found.own_namespace) == (("a", "b"), "mine:2", 8, "ops")


@pytest.mark.parametrize(
    ("base", "over", "expected"),
    [
        ({"a": 1}, {"a": None}, {}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ([{"name": "x", "v": 1}], [{"name": "y"}], [{"name": "x", "v": 1}, {"name": "y"}]),
        ([{"name": "x", "v": 1}], [{"name": "x", "v": 2}], [{"name": "x", "v": 2}]),
        (["a"], ["b"], ["b"]),
        ([{"name": "v", "mountPath": "/a"}], [{"name": "v", "mountPath": "/b"}], [{"name": "v", "mountPath": p} for p in ("/a", "/b")]),
    ],
)
def test_overlays_merge_deeply_and_lists_of_named_things_by_name(base, over, expected):
    assert overlay.merge(base, over) == expected


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (45, "45s"), (720, "12m"), (11400, "3h10m"), (7200, "2h"), (187200, "2d4h")])
def test_durations_are_short(seconds, text):
    assert times.short(seconds) == text


def test_importing_the_operator_stays_light():
    code = "import sys, patho_operator.__main__; print([m for m in ('torch', 'numpy', 'pandas') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_nothing_is_written_for_a_resource_that_has_not_changed():
    body = after(make_pretrain(), plan_for(make_pretrain()))
    look = [make_job(body)], [make_pod(body)]
    body = after(body, plan_for(body, *look))
    assert plan_for(body, *look).status is None
