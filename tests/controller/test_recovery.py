"""The third level of recovery: when a whole new attempt takes the place of the present one."""

import pytest

from patho_api import names
from patho_api.status import Attempt
from patho_operator import backoff, observed
from patho_operator.observed import Before
from tests.controller.builders import (
    UID,
    after,
    at,
    condition,
    make_job,
    make_pod,
    make_pretrain,
    make_report,
    plan_for,
    started,
)

CLOCK = "2030-01-01T12:00:00Z"
TWO = started(make_pretrain(compute={"nodes": 2}))
THREE = started(make_pretrain(compute={"nodes": 3}))
ELASTIC = started(make_pretrain(compute={"nodes": 2, "minNodes": 1}))
QUEUED = started(make_pretrain(compute={"nodes": 2, "queueName": "gpus"}))


def why(body, pods, *, now=0, job=None, **seen):
    """Why the attempt is ended; empty if it goes on."""
    plan = plan_for(body, [job or make_job(body)], pods, now=at(now), **seen)
    changed = after(body, plan)["status"]["attempts"][0]
    return changed["reason"] if plan.deletes else ""


def crash(body, index, seconds, failures=0):
    return make_pod(body, index, exit_code=1, ended=at(seconds), created=at(seconds - 5), failures=failures)


@pytest.mark.parametrize(
    ("body", "pods", "seconds", "reason"),
    [
        (TWO, lambda b: [make_pod(b, 0), crash(b, 1, 0)], 299, ""),
        (TWO, lambda b: [make_pod(b, 0), crash(b, 1, 0)], 300, "ReformTimeout"),
        (TWO, lambda b: [make_pod(b, 0), make_pod(b, 1, deleting=True)], 300, "ReformTimeout"),
        (TWO, lambda b: [make_pod(b, 0), make_pod(b, 1, pending=True, failures=1)], 300, "ReformTimeout"),
        (TWO, lambda b: [make_pod(b, 0), make_pod(b, 1, pending=True)], 3000, ""),
        (ELASTIC, lambda b: [make_pod(b, 0), crash(b, 1, 0)], 3000, ""),
        (TWO, lambda b: [make_pod(b, 0), crash(b, 1, 0, failures=2)], 1, ""),
        (TWO, lambda b: [make_pod(b, 0), crash(b, 1, 0, failures=3)], 1, "IndexBackOff"),
        (TWO, lambda b: [make_pod(b, 0), make_pod(b, 1, failures=5)], 1, ""),
        (TWO, lambda b: [make_pod(b, 0), make_pod(b, 1, unschedulable="0/3 nodes")], 899, ""),
        (TWO, lambda b: [make_pod(b, 0), make_pod(b, 1, unschedulable="0/3 nodes")], 900, "PlacementTimeout"),
        (TWO, lambda b: [make_pod(b, n, unschedulable="0/3 nodes") for n in (0, 1)], 9000, ""),
        (TWO, lambda b: [make_pod(b, 0)], 899, ""),  # a quota refuses the other
        (TWO, lambda b: [make_pod(b, 0)], 900, "PlacementTimeout"),
        (ELASTIC, lambda b: [make_pod(b, 0, unschedulable="0/3 nodes"), make_pod(b, 1)], 900, "PlacementTimeout"),  # index 0 hosts
    ],
)
def test_a_gang_that_does_not_come_together_again_is_replaced(body, pods, seconds, reason):
    assert why(body, pods(body), now=seconds) == reason


@pytest.mark.parametrize(
    ("pods", "seconds", "reason"),  # of a gang that ran for two hours
    [
        (lambda b: [], 299, ""),  # the other was evicted, and is not yet replaced
        (lambda b: [], 900, "PlacementTimeout"),
        (lambda b: [crash(b, 1, 0)], 299, ""),  # failed two hours ago, ran again, was evicted
        (lambda b: [crash(b, 1, 0)], 300, "ReformTimeout"),
        (lambda b: [crash(b, 1, 0), make_pod(b, 1, pending=True, failures=1, created=at(7210))], 299, ""),
    ],
)
def test_time_in_which_the_gang_ran_is_no_time_of_waiting(pods, seconds, reason):
    whole = after(TWO, plan_for(TWO, [make_job(TWO)], [make_pod(TWO, 0), make_pod(TWO, 1)], now=at(10)))
    left = [make_pod(whole, 0), *pods(whole)]
    broken = after(whole, plan_for(whole, [make_job(whole)], left, now=at(7200)))
    assert not plan_for(whole, [make_job(whole)], left, now=at(7200)).deletes
    assert why(broken, left, now=7200 + seconds) == reason


@pytest.mark.parametrize(
    "other",
    [
        lambda b: crash(b, 1, 7205, failures=3),  # ended by the Job controller, and no back-off to wait for
        lambda b: make_pod(b, 1, deleting=True),
    ],
)
def test_a_gang_whose_index_0_is_done_is_not_replaced_while_its_job_completes(other):
    pods = [make_pod(TWO, 0, exit_code=0, ended=at(7200)), other(TWO)]
    assert why(TWO, pods, now=7600) == ""


def test_a_kubelet_whose_clock_is_ahead_delays_no_time_out():
    failed = make_pod(TWO, 1, exit_code=1, ended=at(3600))
    assert why(TWO, [make_pod(TWO, 0), failed], now=300) == "ReformTimeout"
    pods = [make_pod(TWO, index, started=at(3600)) for index in (0, 1)]
    assert why(TWO, pods, now=901, report=make_report()) == "Stalled"


def test_a_kubelet_whose_clock_is_a_little_ahead_ends_no_gang_early():
    whole = after(THREE, plan_for(THREE, [make_job(THREE)], [make_pod(THREE, index) for index in range(3)], now=at(10)))
    slow = make_pod(whole, 2, pending=True, created=at(60))  # pulls its image for long
    pods = [make_pod(whole, 0), slow]
    broken = after(whole, plan_for(whole, [make_job(whole)], [make_pod(whole, 1), *pods], now=at(60)))
    assert why(broken, [crash(broken, 1, 402), *pods], now=400) == ""


def test_a_kubelet_whose_clock_is_behind_ends_no_gang():
    pods = [make_pod(TWO, 0, created=at(0)), make_pod(TWO, 1, exit_code=0, created=at(0), ended=at(-3600))]
    assert why(TWO, pods, now=60) == ""


def done(body, index, seconds):
    return make_pod(body, index, exit_code=0, ended=at(seconds))


@pytest.mark.parametrize(
    ("body", "host", "reason"),  # index 1 was done after 7200 s
    [
        (TWO, lambda b: make_pod(b, 0), ""),  # it has its last words to say, or probes to train
        (TWO, lambda b: crash(b, 0, 7205), "LeftAlone"),
        (TWO, lambda b: make_pod(b, 0, created=at(7215)), "LeftAlone"),  # drained: the Job controller makes a new one, which meets nobody
        (TWO, lambda b: make_pod(b, 0, pending=True, created=at(7215)), "LeftAlone"),
        (ELASTIC, lambda b: make_pod(b, 0, created=at(7215)), ""),
    ],
)
def test_an_index_0_that_is_lost_when_others_are_done_does_not_wait_for_them(body, host, reason):
    assert why(body, [host(body), done(body, 1, 7200)], now=7216) == reason


def test_a_gang_that_was_admitted_in_part_counts_the_pods_that_it_has():
    body = started(make_pretrain(compute={"nodes": 4, "minNodes": 2, "queueName": "gpus"}))
    job = make_job(body, suspend=False, parallelism=2)
    assert why(body, [make_pod(body, 0, created=at(7215)), done(body, 1, 7200)], now=7216, job=job) == "LeftAlone"


def test_a_gang_whose_index_0_goes_on_when_others_are_done_runs_and_may_stall():
    pods = [make_pod(TWO, 0), done(TWO, 1, 7200)]
    assert after(TWO, plan_for(TWO, [make_job(TWO)], pods, now=at(7300)))["status"]["phase"] == "Running"
    assert why(TWO, pods, now=9000, report=make_report(stage="Saving"), still=901.0) == "Stalled"


@pytest.mark.parametrize("count", ["9" * 18, "9" * 5000, "²"])
def test_a_count_that_somebody_wrote_on_a_pod_does_not_hold_the_operator_up(count):
    pod = crash(TWO, 1, 0)
    pod["metadata"]["annotations"][observed.FAILURE_COUNTS[0]] = count
    assert why(TWO, [make_pod(TWO, 0), pod], now=1) in ("", "IndexBackOff")


def test_totals_that_somebody_spoilt_on_a_job_count_as_none():
    job = make_job(TWO)
    job["metadata"]["annotations"][names.ANNOTATION_BEFORE] = '{"restarts": 1e400, "disruptions": 0, "acceleratorSeconds": 0}'
    assert observed.job(job).before == Before()


def test_time_in_the_queue_is_no_time_of_waiting():
    job = make_job(QUEUED, suspend=False) | {"status": {"startTime": "2030-01-01T14:00:00Z"}}  # admitted again after two hours
    pods = [make_pod(QUEUED, 0, created=at(7200)), crash(QUEUED, 1, 0)]
    assert why(QUEUED, pods, now=7205, job=job) == ""
    assert why(QUEUED, pods, now=7500, job=job) == "ReformTimeout"


@pytest.mark.parametrize(("seconds", "reason"), [(899, ""), (900, "Stalled")])
def test_no_new_step_for_too_long_is_a_stall(seconds, reason):
    assert why(TWO, [make_pod(TWO, 0), make_pod(TWO, 1)], now=seconds, report=make_report()) == reason


@pytest.mark.parametrize("stage", ["Loading", "Indexing"])
def test_a_run_that_never_made_a_step_stalls_too(stage):
    assert why(TWO, [make_pod(TWO, 0), make_pod(TWO, 1)], now=900, report=make_report(0, stage=stage)) == "Stalled"


def test_a_run_that_cannot_be_seen_is_not_called_stalled():
    pods = [make_pod(TWO, 0), make_pod(TWO, 1)]
    plan = plan_for(TWO, [make_job(TWO)], pods, now=at(5000))
    assert not plan.deletes
    assert condition(after(TWO, plan), "Stalled")[:2] == ("Unknown", "NoReport")


def test_lost_sight_is_no_stall_and_is_said_once():
    pods = [make_pod(TWO, 0), make_pod(TWO, 1)]
    plan = plan_for(TWO, [make_job(TWO)], pods, now=at(5000), report=make_report(), still=20.0, heard=at(60))
    assert not plan.deletes
    body = after(TWO, plan)
    assert condition(body, "Stalled")[:2] == ("Unknown", "LostSight")
    assert plan_for(body, [make_job(TWO)], pods, now=at(6000), report=make_report(), still=20.0, heard=at(60)).status is None


def test_a_stall_is_looked_for_when_it_would_be_due():
    pods = [make_pod(TWO, 0), make_pod(TWO, 1)]
    assert plan_for(TWO, [make_job(TWO)], pods, now=at(890), report=make_report()).requeue_seconds == 10


def test_the_stall_clock_starts_when_the_gang_is_whole_again():
    pods = [make_pod(TWO, 0), make_pod(TWO, 1, created=at(800), started=at(850))]
    assert why(TWO, pods, now=1749, report=make_report()) == ""
    assert why(TWO, pods, now=1750, report=make_report()) == "Stalled"


def test_a_stall_is_an_incident_of_its_own():
    plan = plan_for(TWO, [make_job(TWO)], [make_pod(TWO, 0), make_pod(TWO, 1)], now=at(900), report=make_report())
    assert plan.status["restarts"] == 1
    assert [e.reason for e in plan.events] == ["Stalled"]
    stopped = after(TWO, plan)
    again = plan_for(stopped, [make_job(TWO, deleting=True)], [make_pod(TWO, 0, deleting=True)], now=at(910))
    assert after(stopped, again)["status"]["restarts"] == 1


def test_a_job_that_failed_for_other_reasons_is_replaced_and_counted():
    job = make_job(TWO, conditions=[{"type": "Failed", "reason": "DeadlineExceeded", "message": "Job was active too long"}])
    plan = plan_for(TWO, [job])
    assert plan.status["restarts"] == 1
    assert "Job was active too long" in plan.status["attempts"][0]["message"]


def test_suspended_by_kueue_is_queued_and_not_failed():
    body = QUEUED
    plan = plan_for(body, [make_job(body)], [make_pod(body, 0, exit_code=143, disrupted=True)], now=at(5000))
    assert not plan.deletes
    assert after(body, plan)["status"]["phase"] == "Queued"
    assert condition(after(body, plan), "Admitted")[:2] == ("False", "Queued")


def test_admitted_by_kueue_with_fewer_pods_is_not_an_edit():
    body = QUEUED
    assert why(body, [make_pod(body, 0)], job=make_job(body, suspend=False, parallelism=1)) == ""


def dying(body, index=1, **shape):
    """A pod that was to be gone at NOW, on node gpu-7."""
    pod = make_pod(body, index, deleting=True, **shape)
    pod["spec"] = {"nodeName": "gpu-7"}
    return pod


@pytest.mark.parametrize(("seconds", "buried"), [(60, 0), (61, 1)])
def test_a_pod_on_a_dead_node_is_written_off_a_minute_after_its_grace_period(seconds, buried):
    plan = plan_for(TWO, [make_job(TWO)], [make_pod(TWO, 0), dying(TWO)], now=at(seconds))
    assert len(plan.burials) == buried
    assert not plan.deletes


def test_a_pod_that_has_ended_is_not_buried():
    assert not plan_for(TWO, [make_job(TWO)], [make_pod(TWO, 0), dying(TWO, exit_code=143)], now=at(1000)).burials


def test_a_new_attempt_names_the_dead_node_that_it_waits_for():
    body = after(TWO, plan_for(TWO, now=at(10)))
    plan = plan_for(body, [], [dying(TWO)], now=at(100))
    message = condition(after(body, plan), "Running")[2]
    assert "on node gpu-7" in message
    assert "removed by force" in message
    assert [b.name for b in plan.burials] == [dying(TWO)["metadata"]["name"]]


def test_a_run_that_is_being_deleted_does_not_wait_for_a_dead_node():
    body = make_pretrain()
    body["metadata"]["deletionTimestamp"] = "2030-01-01T12:00:00Z"
    assert plan_for(body, [], [dying(body)], now=at(100)).burials


def test_a_pod_that_was_written_off_is_a_disruption_and_no_incident():
    lost = dying(TWO)
    lost["status"] |= {"phase": "Failed", "conditions": [{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": CLOCK}]}
    status = after(TWO, plan_for(TWO, [make_job(TWO)], [make_pod(TWO, 0), lost]))["status"]
    assert (status["restarts"], status["disruptions"]) == (0, 1)


@pytest.mark.parametrize(
    ("attempts", "pause"),
    [
        ([], 0),
        ([("Stalled", 100, 50)], 10),
        ([("Stalled", 0, 0)], 10),
        ([("Stalled", 0, 0), ("JobFailed", 0, 0)], 20),
        ([("Stalled", 0, 0)] * 9, 300),
        ([("Stalled", 0, 0), ("Stalled", 500, 0), ("Stalled", 500, 500)], 10),
        ([("SpecChanged", 0, 0)], 0),
    ],
)
def test_attempts_without_progress_wait_longer_each_time(attempts, pause):
    end = "2030-01-01T12:00:00Z"
    listed = [Attempt(number=n, reason=r, to_step=to, from_step=since, end=end) for n, (r, to, since) in enumerate(attempts, 1)]
    assert backoff.seconds_left(UID, listed, at(0)) == pause


def test_gangs_that_were_not_placed_try_again_at_different_times():
    end = [Attempt(number=1, reason="PlacementTimeout", end="2030-01-01T12:00:00Z")]
    pauses = {backoff.seconds_left(uid, end, at(0)) for uid in ("a", "b", "c")}
    assert len(pauses) == 3
    assert all(10 <= p <= 20 for p in pauses)


def test_restarts_never_fall_when_the_pods_that_showed_them_are_gone():
    body = make_pretrain(status={"attempt": 1, "restarts": 4})
    plan = plan_for(body, [make_job(body, before=Before(1, 0, 0.0))], [make_pod(body)])
    assert after(body, plan)["status"]["restarts"] == 4
