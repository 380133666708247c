"""While many runs begin at once, what there is to say of those that have begun can wait."""

import pytest

from patho_api import names
from patho_operator import handlers, observed, starts
from patho_operator.cluster import path
from patho_operator.handlers import Indexes
from patho_operator.observed import Key
from tests.controller.builders import (
    NOW,
    UID,
    Hand,
    after,
    at,
    at_present,
    make_job,
    make_pod,
    make_pretrain,
    make_worker,
    plan_for,
    started,
    stored,
)

KEY = Key(names.PRETRAIN, "lab", "vits16")
SEEN, OTHER = ("as it was",), ("as it is",)


def begin(found, number, since=0):
    for n in range(since, since + number):
        found.waits(Key(names.PRETRAIN, "lab", f"r{n}"), str(n), began=True, ran=None, glance=None, seconds=0)


def test_a_single_start_makes_starting_runs_patient_and_no_rush():
    found = starts.Starts(Hand())
    assert found.starting_patience() == starts.FIRST_STATUS_SECONDS
    begin(found, 1)
    assert (found.starting_patience(), found.running_patience()) == (starts.MOST_PATIENCE_SECONDS, 0)


def test_many_starts_within_seconds_are_a_rush_which_ends_when_they_do():
    clock = Hand()
    found = starts.Starts(clock)
    begin(found, starts.RUSH_STARTS)
    assert found.running_patience() == starts.MOST_PATIENCE_SECONDS
    assert [found.coalesce_seconds(key) for key in (Key(names.PRETRAIN, "lab", "r0"), KEY)] == [3.0, 0.5]  # KEY has its status
    clock.seconds += starts.RUSH_SECONDS
    assert (found.running_patience(), found.coalesce_seconds(Key(names.PRETRAIN, "lab", "r0"))) == (0, starts.COALESCE_SECONDS)


def test_starts_that_come_slowly_are_no_rush():
    clock = Hand()
    found = starts.Starts(clock)
    for n in range(3 * starts.RUSH_STARTS):
        begin(found, 1, since=n)
        clock.seconds += 1.5 * starts.RUSH_SECONDS / starts.RUSH_STARTS
    assert found.running_patience() == 0


def test_in_a_rush_a_run_waits_as_long_as_nothing_else_is_seen_and_never_longer_than_it_may():
    clock = Hand()
    found = starts.Starts(clock)
    begin(found, starts.RUSH_STARTS)
    found.waits(KEY, "u", began=False, ran=NOW, glance=SEEN, seconds=2)
    assert found.rests_seconds(KEY, SEEN) == 2
    assert found.rests_seconds(KEY, OTHER) == 0
    clock.seconds += 2
    assert found.rests_seconds(KEY, SEEN) == 0


def test_what_was_seen_live_is_looked_at_again():
    found = starts.Starts(Hand())
    begin(found, starts.RUSH_STARTS)
    assert found.rests_seconds(Key(names.PRETRAIN, "lab", "r0"), SEEN) == 0


def test_a_run_is_remembered_by_its_uid_and_by_when_it_ran_first():
    found = starts.Starts(Hand())
    found.waits(KEY, "u", began=True, ran=None, glance=None, seconds=1)
    found.waits(KEY, "u", began=False, ran=NOW, glance=SEEN, seconds=1)
    found.waits(KEY, "u", began=False, ran=at(5), glance=SEEN, seconds=1)
    assert (found.has_begun(KEY, "u"), found.has_begun(KEY, "of a new resource")) == (True, False)
    assert found.told(KEY).ran == NOW
    assert KEY not in found


def test_in_a_rush_the_status_of_a_run_that_runs_waits_and_then_says_it_all():
    body = make_pretrain()
    look = [make_job(body)], [make_pod(body)]
    waiting = plan_for(body, *look, now=at(1), rush=30)
    assert (waiting.status, waiting.withheld, waiting.requeue_seconds) == (None, "Running", starts.LOOK_SECONDS)
    assert waiting.rests_seconds == 29
    assert after(body, plan_for(body, *look, now=at(30), rush=30))["status"]["phase"] == "Running"


@pytest.mark.parametrize(
    "pod", [{"exit_code": 1}, {"unschedulable": "0/1 nodes are available"}, {"waiting": ("ErrImagePull", "no such image")}]
)
def test_bad_news_does_not_wait_in_a_rush(pod):
    body = make_pretrain()
    assert plan_for(body, [make_job(body)], [make_pod(body, **pod)], now=at(1), patience=30, rush=30).status


def test_a_run_with_a_status_is_told_of_at_once_in_a_rush_too():
    body = started(make_pretrain())
    assert plan_for(body, [make_job(body)], [make_pod(body)], rush=30).status["phase"] == "Running"


def test_a_deadline_counts_from_the_job_where_no_status_tells_of_the_start():
    body = make_pretrain(activeDeadlineSeconds=10)
    look = [make_job(body)], [make_pod(body)]
    assert plan_for(body, *look, now=at(4), rush=30).rests_seconds == 6
    late = plan_for(body, *look, now=at(12), rush=30)
    assert after(body, late)["status"]["attempts"][0]["reason"] == "DeadlineExceeded"
    assert late.deletes


def test_an_incident_is_told_at_once_though_the_others_train():
    body = make_pretrain(compute={"nodes": 3, "minNodes": 2})
    look = [make_job(body)], [make_pod(body), make_pod(body, 1), make_pod(body, 2, exit_code=1)]
    assert after(body, plan_for(body, *look, now=at(5), rush=30))["status"]["restarts"] == 1


async def test_in_a_rush_a_run_that_runs_is_told_late_and_not_looked_at_again_until_something_changes(cluster, fake):
    body = make_pretrain()
    fake.answers["PATCH", f"{path(*KEY)}/status"] = 200, started(body) | {"metadata": body["metadata"] | {"resourceVersion": "8"}}
    jobs, pods = [observed.job(make_job(body, created=at_present(cluster)))], [observed.pod(make_pod(body))]
    turn = make_worker(cluster, Indexes(resources={KEY: stored(body)}, jobs={KEY: jobs}, pods={KEY: pods}))
    begin(turn.starts, starts.RUSH_STARTS)
    assert await turn(KEY) == starts.LOOK_SECONDS
    turn.indexes.body = None  # the next turn would fail if it did more than a glance
    assert await turn(KEY) == starts.LOOK_SECONDS
    assert not fake.requests
    del turn.indexes.body
    pods[:] = [observed.pod(make_pod(body, waiting=("ErrImagePull", "no such image")))]
    await turn(KEY)
    assert fake.requests[-1].verb == "PATCH"


async def test_a_rush_is_over_though_many_late_words_are_written(cluster, fake):
    """Each of them tells of a run that was seen to run long ago."""
    body, keys = make_pretrain(), [KEY._replace(name=f"r{n}") for n in range(2 * starts.RUSH_STARTS)]
    jobs, pods = [observed.job(make_job(body, created=at_present(cluster)))], [observed.pod(make_pod(body))]
    turn = make_worker(cluster, Indexes(jobs=dict.fromkeys(keys, jobs), pods=dict.fromkeys(keys, pods)))
    clock = turn.starts.clock = Hand()
    turn.indexes.resources = {key: [handlers.compact(named(body, key.name))] for key in keys}
    for key in keys:
        fake.answers["PATCH", f"{path(*key)}/status"] = 200, running(named(body, key.name), cluster)
        turn.starts.waits(key, UID, began=True, ran=None, glance=None, seconds=0)
    assert [await turn(key) for key in keys] == [starts.LOOK_SECONDS] * len(keys)
    clock.seconds += starts.RUSH_SECONDS
    for key in keys:
        await turn(key)
    assert [r.verb for r in fake.requests] == ["PATCH"] * len(keys)
    assert turn.metrics.time_to_running._buckets[0].get() == len(keys)  # from when they were seen to run


def named(body, name):
    return body | {"metadata": body["metadata"] | {"name": name, "resourceVersion": "7"}}


def running(body, cluster):
    """The resource once its status says that it runs."""
    now = at_present(cluster)
    plan = plan_for(body, [make_job(body, created=now)], [make_pod(body)], now=now)
    return after(body, plan) | {"metadata": body["metadata"] | {"resourceVersion": "8"}}
