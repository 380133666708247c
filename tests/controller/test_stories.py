"""Stories of runs: what is seen, and what the operator then does. Values in, values out."""

import pytest

from patho_api import names
from patho_operator.observed import Before, Problem
from tests.controller.builders import (
    COMPLETE,
    FAILED,
    NOW,
    after,
    at,
    condition,
    created,
    make_job,
    make_pod,
    make_pretrain,
    make_report,
    plan_for,
    started,
)

TWO_NODES = {"nodes": 2}


def test_a_new_run_gets_one_job_and_all_its_conditions():
    plan = plan_for(make_pretrain())
    body = after(make_pretrain(), plan)
    assert [m["kind"] for m in plan.creates] == ["Job"]
    assert [c["type"] for c in body["status"]["conditions"]] == list(names.CONDITIONS)
    assert condition(body, "Succeeded")[0] == condition(body, "Failed")[0] == "Unknown"
    assert body["status"]["phase"] == "Starting"
    assert body["status"]["attempt"] == 1


def test_two_nodes_also_get_a_service_first():
    assert [m["kind"] for m in plan_for(make_pretrain(compute=TWO_NODES)).creates] == ["Service", "Job"]


def test_a_run_whose_pods_run_is_running_and_nothing_is_done():
    body = started(make_pretrain())
    plan = plan_for(body, [make_job(body)], [make_pod(body)])
    assert not plan.creates
    assert not plan.deletes
    assert after(body, plan)["status"]["phase"] == "Running"


def test_waiting_for_the_first_pods_writes_nothing_new():
    body = started(make_pretrain())
    assert plan_for(body, [make_job(body)], [make_pod(body, pending=True)], now=at(1)).status is None


def test_a_run_that_starts_soon_gets_one_status_instead_of_two():
    body = make_pretrain()
    begun = plan_for(body, patience=3)
    assert (begun.status, begun.requeue_seconds, begun.events) == (None, 3, ())
    assert plan_for(body, [make_job(body)], [make_pod(body, pending=True)], now=at(1), patience=3).status is None
    running = plan_for(body, [make_job(body)], [make_pod(body)], now=at(2), patience=3)
    assert after(body, running)["status"]["phase"] == "Running"
    assert after(body, running)["status"]["attempts"] == [
        {"number": 1, "reason": "Started", "message": "", "start": "2030-01-01T12:00:00Z"}
    ]


@pytest.mark.parametrize(
    ("shape", "seconds"), [({"pending": True}, 3), ({"unschedulable": "0/1 nodes are available"}, 1), ({"exit_code": 1}, 1)]
)
def test_the_first_status_does_not_wait_for_long_nor_with_bad_news(shape, seconds):
    body = make_pretrain()
    assert plan_for(body, [make_job(body)], [make_pod(body, **shape)], now=at(seconds), patience=3).status["phase"]


@pytest.mark.parametrize("run", [make_pretrain(compute={"queueName": "gpus"}), make_pretrain(suspend=True)])
def test_a_run_that_does_not_start_yet_says_so_at_once(run):
    assert plan_for(run, patience=3).status["phase"] in ("Queued", "Suspended")


def test_looking_twice_changes_nothing():
    body = started(make_pretrain())
    look = [make_job(body)], [make_pod(body)]
    body = after(body, plan_for(body, *look, now=at(10)))
    assert plan_for(body, *look, now=at(20)).status is None


def test_a_crash_between_the_job_and_the_status_makes_no_second_job():
    body = make_pretrain()
    plan = plan_for(body, [make_job(body)], [])
    assert not plan.creates
    assert plan.status["attempt"] == 1


def test_progress_is_shown_as_people_read_it():
    body = started(make_pretrain())
    report = make_report(125, images_per_second=1234.56, data_wait_percent=3.2, eta_seconds=7500, loss=9.87654)
    shown = after(body, plan_for(body, [make_job(body)], [make_pod(body)], report=report))["status"]["progress"]
    assert shown["display"] == "125/1,000 (12%)"
    assert (shown["rate"], shown["wait"], shown["eta"], shown["loss"]) == ("1,235", "3%", "2h5m", 9.8765)


def test_a_long_first_index_is_seen_as_work():
    body = started(make_pretrain())
    report = make_report(4120, stage="Indexing", total_steps=30000)
    shown = after(body, plan_for(body, [make_job(body)], [make_pod(body)], report=report))["status"]["progress"]
    assert shown["display"] == "INDEX 4,120/30,000 (13%)"


def test_success_is_written_when_no_pod_is_left():
    body = started(make_pretrain())
    words = {"reason": "Completed", "step": 1000, "checkpoint": {"step": 1000, "url": "gs://me/runs/vits16/step-00001000"}}
    ended = make_pod(body, exit_code=0, words=words)
    lingering = plan_for(body, [make_job(body, conditions=[COMPLETE])], [ended, make_pod(body, 1)])
    done = plan_for(body, [make_job(body, conditions=[COMPLETE])], [ended], now=at(60))
    assert not lingering.terminal
    assert done.terminal
    body = after(body, done)
    assert body["status"]["phase"] == "Succeeded"
    assert body["status"]["checkpoint"]["latest"]["step"] == 1000
    assert body["status"]["completionTime"] == "2030-01-01T12:01:00Z"


@pytest.mark.parametrize(("code", "reason"), [(40, "InvalidConfiguration"), (41, "DataNotFound"), (42, "Diverged")])
def test_a_permanent_exit_fails_the_run_with_the_pods_own_words(code, reason):
    body = started(make_pretrain())
    pod = make_pod(body, exit_code=code, words={"reason": reason, "message": "lower training.learningRate"})
    plan = plan_for(body, [make_job(body, conditions=[FAILED])], [pod])
    assert condition(after(body, plan), "Failed") == ("True", reason, "lower training.learningRate")
    assert not plan.deletes


def test_a_permanent_exit_is_known_from_the_job_when_the_pod_is_gone():
    body = started(make_pretrain())
    plan = plan_for(body, [make_job(body, conditions=[FAILED])])
    assert condition(after(body, plan), "Failed")[:2] == ("True", "Diverged")


def test_a_failed_pod_is_one_incident_and_the_job_controller_replaces_it():
    body = started(make_pretrain(compute=TWO_NODES))
    pods = [make_pod(body, 0), make_pod(body, 1, exit_code=1, words="CUDA error")]
    plan = plan_for(body, [make_job(body)], pods)
    assert not plan.deletes
    assert after(body, plan)["status"]["restarts"] == 1
    assert "CUDA error" in condition(after(body, plan), "Running")[2]


def test_too_many_restarts_clean_up_first_and_then_fail():
    body = started(make_pretrain(maxRestarts=1))
    pods = [make_pod(body, exit_code=1, ended=at(100 * n), created=at(100 * n - 50), words=f"crash {n}") for n in (1, 2)]
    stop = plan_for(body, [make_job(body)], [*pods, make_pod(body, created=at(300))], now=at(400))
    assert [d.name for d in stop.deletes] == ["vits16-pt-1"]
    assert not stop.terminal
    body = after(body, stop)
    end = plan_for(body, now=at(500))
    assert end.terminal
    status, reason, message = condition(after(body, end), "Failed")
    assert (status, reason) == ("True", "TooManyRestarts")
    assert message.startswith("2 incidents, more than runPolicy.maxRestarts 1")
    assert "crash 2" in message


def test_a_suspended_run_saves_and_rests_and_resumes_as_attempt_2():
    body = started(make_pretrain(suspend=True))
    assert not body["status"].get("attempt")
    body["spec"]["runPolicy"] = {}
    body = started(body)
    body["spec"]["runPolicy"] = {"suspend": True}
    stop = plan_for(body, [make_job(body)], [make_pod(body)])
    assert [d.name for d in stop.deletes] == ["vits16-pt-1"]
    body = after(body, stop)
    waiting = plan_for(body, [make_job(body, deleting=True)], [make_pod(body, deleting=True)])
    assert condition(after(body, waiting), "Suspended")[0] == "False"
    body = after(body, plan_for(body))
    assert condition(body, "Suspended")[0] == "True"
    body["spec"]["runPolicy"] = {}
    resumed = plan_for(body)
    assert created(resumed)["metadata"]["name"] == "vits16-pt-2"
    assert after(body, resumed)["status"]["restarts"] == 0
    assert [e.reason for e in resumed.events] == ["Resumed", "AttemptCreated"]


def test_a_deadline_cleans_up_before_it_fails():
    body = started(make_pretrain(activeDeadlineSeconds=3600))
    assert not plan_for(body, [make_job(body)], [make_pod(body)], now=at(3599)).deletes
    stop = plan_for(body, [make_job(body)], [make_pod(body)], now=at(3600))
    assert stop.deletes
    assert not stop.terminal
    body = after(body, stop)
    assert not plan_for(body, [], [make_pod(body, deleting=True)], now=at(3610)).terminal
    assert condition(after(body, plan_for(body, now=at(3620))), "Failed")[1] == "DeadlineExceeded"


def test_the_time_to_live_deletes_the_resource_itself():
    body = started(make_pretrain(ttlSecondsAfterFinished=60))
    body = after(body, plan_for(body, [make_job(body, conditions=[COMPLETE])], [make_pod(body, exit_code=0)]))
    early, late = plan_for(body, now=at(20)), plan_for(body, now=at(60))
    assert early.requeue_seconds == 40
    assert [(d.kind, d.name, d.uid) for d in late.deletes] == [(names.PRETRAIN, "vits16", body["metadata"]["uid"])]


def test_terminal_stays_terminal():
    body = started(make_pretrain())
    body = after(body, plan_for(body, [make_job(body, conditions=[COMPLETE])], [make_pod(body, exit_code=0)]))
    body["spec"]["training"]["steps"] = 2000
    body["metadata"]["generation"] = 2
    plan = plan_for(body)
    assert not plan.creates
    assert plan.status == {"observedGeneration": 2}


def test_a_changed_specification_is_a_new_attempt_that_is_not_counted():
    body = started(make_pretrain())
    job = make_job(body)
    body["spec"]["training"]["steps"] = 2000
    stop = plan_for(body, [job], [make_pod(body)])
    assert stop.deletes
    body = after(body, stop)
    assert body["status"]["attempts"][0]["reason"] == "SpecChanged"
    begin = plan_for(body)
    assert created(begin)["metadata"]["name"] == "vits16-pt-2"
    assert after(body, begin)["status"]["restarts"] == 0


@pytest.mark.parametrize(
    "change",
    [
        {"runPolicy": {"maxRestarts": 3}},
        {"checkpoints": {"url": "gs://me/runs/vits16", "keep": 9}},
        {"evaluations": [{"name": "bach", "everySteps": 2500, "template": {"tasks": [{"name": "BACH", "data": "gs://d"}]}}]},
    ],
)
def test_run_policy_evaluations_and_keep_apply_live(change):
    body = started(make_pretrain())
    job = make_job(body)
    body["spec"] |= change
    assert not plan_for(body, [job], [make_pod(body)]).deletes


def test_a_new_default_image_restarts_nothing():
    body = started(make_pretrain())
    job = make_job(body)
    job["metadata"]["annotations"][names.ANNOTATION_IMAGE] = "trainer:0"
    assert not plan_for(body, [job], [make_pod(body)]).deletes


def test_a_job_that_an_index_does_not_show_yet_is_looked_for_live_before_it_is_given_up():
    plan = plan_for(started(make_pretrain()))
    assert not plan.deletes
    assert plan.consequential


def test_a_job_deleted_by_somebody_is_a_new_attempt_that_is_not_counted():
    body = after(started(make_pretrain()), plan_for(started(make_pretrain())))
    assert body["status"]["attempts"][0]["reason"] == "JobDeleted"
    begin = plan_for(body)
    assert created(begin)["metadata"]["name"] == "vits16-pt-2"
    assert after(body, begin)["status"]["restarts"] == 0


def test_pods_that_a_deleted_job_left_behind_are_ended():
    body = started(make_pretrain())
    body = after(body, plan_for(body, [make_job(body)], [make_pod(body)]))
    plan = plan_for(body, [], [make_pod(body, uid="left"), make_pod(make_pretrain(uid="another"), uid="foreign")])
    assert [(d.kind, d.name, d.uid) for d in plan.deletes] == [("Pod", "left", "left")]
    assert not plan_for(body, [make_job(body, deleting=True)], [make_pod(body)]).deletes


@pytest.mark.parametrize("edit", [{"suspend": True}, {"parallelism": 1}])
def test_an_edited_job_is_replaced(edit):
    body = started(make_pretrain(compute=TWO_NODES))
    plan = plan_for(body, [make_job(body, **edit)], [])
    assert after(body, plan)["status"]["attempts"][0]["reason"] == "JobEdited"


def test_a_foreign_job_with_our_name_is_a_condition_and_an_event():
    body = make_pretrain()
    plan = plan_for(body, problem=Problem("NameConflict", "Job lab/vits16-pt-1 exists and belongs to somebody else: delete it"))
    assert not plan.creates
    assert plan.status["attempt"] == 0
    assert condition(after(body, plan), "Admitted")[:2] == ("False", "NameConflict")
    assert [e.reason for e in plan.events] == ["NameConflict"]


def test_pods_of_an_earlier_resource_of_the_same_name_are_waited_for():
    old = make_pretrain(uid="old")
    plan = plan_for(make_pretrain(), [make_job(old, deleting=True)], [make_pod(old, deleting=True)])
    assert not plan.creates
    assert not plan.deletes


def test_no_new_attempt_while_a_pod_of_the_last_one_lives():
    body = started(make_pretrain(suspend=False))
    body = after(body, plan_for(body))
    assert not plan_for(body, [], [make_pod(body, deleting=True)]).creates


def test_totals_travel_with_the_job():
    body = make_pretrain(status={"attempt": 1, "restarts": 3, "disruptions": 2, "acceleratorSeconds": 12.5})
    body["status"]["attempts"] = [{"number": 1, "reason": "SpecChanged", "end": "2030-01-01T11:00:00Z"}]
    job = created(plan_for(body))
    assert job["metadata"]["annotations"][names.ANNOTATION_BEFORE] == '{"restarts": 3, "disruptions": 2, "acceleratorSeconds": 12.5}'
    body = make_pretrain()
    plan = plan_for(body, [make_job(body, before=Before(3, 2, 12.5))], [make_pod(body, exit_code=1, ended=NOW)])
    assert plan.status["restarts"] == 4


def test_accelerator_seconds_are_devices_times_seconds():
    body = started(make_pretrain(compute={"nodes": 2, "resources": {"limits": {"nvidia.com/gpu": 8, "cpu": "4"}}}))
    pods = [make_pod(body, n, exit_code=0, ended=at(100)) for n in (0, 1)]
    plan = plan_for(body, [make_job(body, conditions=[COMPLETE])], pods, now=at(130))
    assert plan.status["acceleratorSeconds"] == 2 * 8 * 100


def test_accelerator_seconds_go_by_what_the_attempt_had_not_by_what_the_next_will_have():
    body = started(make_pretrain(compute={"resources": {"limits": {"nvidia.com/gpu": 8}}}))
    job = make_job(body)
    body["spec"]["compute"]["resources"]["limits"]["nvidia.com/gpu"] = 1
    plan = plan_for(body, [job], [make_pod(body)], now=at(100))
    assert plan.status["acceleratorSeconds"] == 8 * 100


def test_the_seconds_of_an_evicted_pod_are_not_lost_with_it():
    body = started(make_pretrain(compute={"nodes": 2, "resources": {"limits": {"nvidia.com/gpu": 1}}}))
    pods = [make_pod(body, 0), make_pod(body, 1, created=at(3600), started=at(3600), failures=1)]
    plan = plan_for(body, [make_job(body)], pods, now=at(4000))
    assert plan.status["acceleratorSeconds"] == 2 * 4000


def test_a_resource_that_is_being_deleted_is_left_to_the_garbage_collector():
    body = started(make_pretrain())
    body["metadata"]["deletionTimestamp"] = "2030-01-01T12:00:00Z"
    plan = plan_for(body, [make_job(body)], [make_pod(body)])
    assert plan.status is None
    assert not plan.deletes
