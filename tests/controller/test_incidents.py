"""What counts as an incident. Times are seconds after NOW."""

import pytest

from patho_api import names
from patho_operator import incidents, observed
from tests.controller.builders import at, make_job, make_pod, make_pretrain, make_report, see

GANG = make_pretrain(compute={"nodes": 3})
JOB = make_job(GANG)


def failed(index, seconds, code=1, lived=30, **shape):
    return make_pod(GANG, index, exit_code=code, ended=at(seconds), created=at(seconds - lived), **shape)


def running(index, seconds=0, **shape):
    return make_pod(GANG, index, created=at(seconds), **shape)


def lost(index, seconds, lived=30):
    """Ended because index 0 was gone."""
    return failed(index, seconds, lived=lived, words={"reason": names.REASON_HOST_LOST, "message": "pod 0 does not answer"})


def count(*pods, report=None):
    found = incidents.count(observed.job(JOB), see(pods=pods).pods, see(report=report).seen)
    return found.restarts, found.disruptions


STORIES = {
    "nothing happened": ([running(0), running(1)], (0, 0)),
    "one worker crashed": ([running(0), failed(1, 100)], (1, 0)),
    "out of memory": ([running(0), failed(1, 100, 137, oom=True)], (1, 0)),
    "index 0 crashed and the others ended with it": ([failed(0, 100), failed(1, 104), failed(2, 108)], (1, 0)),
    "the same index crashed twice within a minute": ([failed(1, 100), failed(1, 130)], (2, 0)),
    "two crashes far apart": ([failed(1, 100), failed(2, 400)], (2, 0)),
    "a drained pod": ([running(0), failed(1, 100, 143, disrupted=True)], (0, 1)),
    "a pod that was told to stop": ([running(0), failed(1, 100, 143)], (0, 1)),
    "index 0 was drained and the others ended with it": ([failed(0, 100, 143, disrupted=True), failed(1, 104), failed(2, 104)], (0, 1)),
    "index 0 was deleted by hand without a trace": ([running(0, 110), failed(1, 104), failed(2, 104)], (0, 1)),
    "index 0 is on a node that does not answer, and the others ended": ([running(0), lost(1, 104), lost(2, 104)], (0, 1)),
    "index 0 crashed, and the others noticed minutes later": (
        [failed(0, 100), running(0, 110), lost(1, 300, lived=300), lost(2, 300, lived=300)],
        (1, 0),
    ),
    "index 0 was written off long after the others had ended": (
        [failed(0, 300, 137, disrupted=True), lost(1, 104), lost(2, 104)],
        (0, 1),
    ),
    "index 0 lives, and the same pod loses it again and again": ([running(0), lost(1, 100), lost(1, 300), lost(1, 500)], (2, 1)),
    "index 0 was drained once, later it lives and is lost again and again": (
        [failed(0, 100, 143, disrupted=True), lost(1, 104), running(0, 120), lost(1, 300), lost(1, 500), lost(1, 700)],
        (2, 2),
    ),
    "index 0 was drained twice, and its pods are gone": (
        [lost(1, 104), lost(1, 304), running(1, 320), running(0, 315, failures=2)],
        (0, 2),
    ),
    "index 0 was drained three times, and its pods are gone": (
        [lost(1, 104), lost(1, 304), lost(1, 504), running(0, 515, failures=3)],
        (0, 3),
    ),
    "index 0 was drained and replaced before the others ended, later it lives and is lost": (
        [lost(1, 104, lived=104), running(0, 101, failures=1), lost(1, 300, lived=170)],
        (0, 2),
    ),
    "index 0 was drained, lived, was lost and drained again": (
        [lost(1, 104, lived=104), lost(1, 300), lost(1, 500), running(0, 510, failures=3)],
        (0, 3),
    ),
    "a pod that waited for index 0 loses it again and again": ([running(0, 60), lost(1, 200, lived=200), lost(1, 400)], (1, 1)),
    "the same index lost two hosts, both written off": (
        [failed(0, 300, 137, disrupted=True), lost(1, 104), failed(0, 700, 137, disrupted=True), lost(1, 680)],
        (0, 2),
    ),
    "index 0 was done and the Job ended the others": (
        [make_pod(GANG, 0, exit_code=0, ended=at(90)), failed(1, 91, 143)],
        (0, 0),
    ),
    "a crash before index 0 was done": ([make_pod(GANG, 0, exit_code=0, ended=at(90)), failed(1, 80)], (1, 0)),
    "a permanent error": ([failed(0, 100, 42), failed(1, 104)], (0, 0)),
}


@pytest.mark.parametrize(("pods", "expected"), STORIES.values(), ids=STORIES.keys())
def test_a_gang_fails_together_and_disruptions_do_not_count(pods, expected):
    assert count(*pods) == expected


def test_workers_that_torchrun_restarted_in_place_count():
    assert count(running(0), running(1), report=make_report(restarts=2)) == (2, 0)


def test_a_lost_pod_is_not_counted_again_as_a_rendezvous_round():
    assert count(running(0), failed(1, 100), report=make_report(restarts=1)) == (1, 0)
    assert count(running(0), failed(1, 100, 143), report=make_report(restarts=1)) == (0, 1)


def test_an_evicted_pod_that_is_gone_is_not_counted_as_a_rendezvous_round():
    assert count(running(0), running(1, 110, failures=1), report=make_report(restarts=1)) == (0, 0)


def test_rounds_before_index_0_was_replaced_are_not_counted_from_its_new_report():
    assert count(failed(0, 100), failed(1, 104), running(0, 110, failures=1), report=make_report(restarts=1)) == (2, 0)
