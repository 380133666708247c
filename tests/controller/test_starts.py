"""While many runs begin at once, what there is to say of those that have begun can wait."""

import pytest

from patho_api import names
from patho_operator import starts
from patho_operator.observed import Key
from tests.controller.builders import NOW, after, at, make_job, make_pod, make_pretrain, plan_for, started

KEY = Key(names.PRETRAIN, "lab", "vits16")
SEEN, OTHER = ("as it was",), ("as it is",)


class Hand:
    """A clock that a test sets."""

    seconds = 1000.0

    def __call__(self):
        return self.seconds


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
