"""What conditions say, in whose words, and when they change."""

import pytest

from patho_api import support
from patho_operator import subject, times, trouble
from patho_operator.observed import Problem
from tests.controller.builders import (
    COMPLETE,
    FAILED,
    after,
    at,
    condition,
    created,
    make_job,
    make_pod,
    make_pretrain,
    make_report,
    plan_for,
    see,
    started,
)

RUN = started(make_pretrain(compute={"nodes": 2}))


def look(body, pods, **seen):
    return after(body, plan_for(body, [make_job(body)], pods, **seen))


def test_unschedulable_pods_speak_in_the_schedulers_words():
    words = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    body = look(RUN, [make_pod(RUN, 0), make_pod(RUN, 1, unschedulable=words)], now=at(720))
    assert condition(body, "Running") == ("False", "Unschedulable", f"1 of 2 nodes placed since 2030-01-01T12:00:00Z: {words}")
    assert body["status"]["restarts"] == 0


def test_waiting_for_a_node_is_written_once():
    pods = [make_pod(RUN, 0), make_pod(RUN, 1, unschedulable="0/3 nodes are available")]
    body = look(RUN, pods, now=at(30))
    assert plan_for(body, [make_job(body)], pods, now=at(300)).status is None


def test_the_same_in_other_words_is_written_now_and_then_and_anything_else_at_once():
    gang = started(make_pretrain(compute={"nodes": 3}))
    body = look(gang, pods := [make_pod(gang, 0), *(make_pod(gang, n, pending=True) for n in (1, 2))])
    pods[1] = make_pod(gang, 1)
    hushed = plan_for(body, [make_job(body)], pods, silence=1)
    assert hushed.status is None
    assert 0 < hushed.requeue_seconds <= 5
    assert plan_for(body, [make_job(body)], pods, silence=5).status
    assert plan_for(body, [make_job(body)], [*pods[:2], make_pod(gang, 2)], silence=0).status["phase"] == "Running"


def test_an_image_that_cannot_be_pulled_is_named():
    body = look(RUN, [make_pod(RUN, n, waiting=("ImagePullBackOff", 'Back-off pulling image "x:1"')) for n in (0, 1)])
    assert condition(body, "Running")[1:] == (
        "ImagePullBackOff",
        '2 of 2 nodes placed since 2030-01-01T12:00:00Z: Back-off pulling image "x:1"',
    )


def test_a_missing_secret_is_told_by_the_pods_events():
    words = 'MountVolume.SetUp failed for volume "storage-secret": secret "gcs-key" not found'
    body = look(RUN, [make_pod(RUN, n, pending=True) for n in (0, 1)], warnings=[words], now=at(60))
    assert condition(body, "Running") == ("False", "NotStarting", f"0 of 2 pods run: {words}")


def test_a_quota_is_told_in_its_words():
    words = "Error creating: pods is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=8"
    body = look(RUN, [], warnings=[words], now=at(60))
    assert condition(body, "Admitted") == ("False", "QuotaExceeded", words)


def test_a_job_that_the_server_refuses_is_tried_again_later_and_is_no_attempt():
    plan = plan_for(make_pretrain(), problem=Problem("Invalid", "Job cannot be made: ports: Invalid value"))
    assert plan.requeue_seconds == 30
    assert plan.status["phase"] == "Pending"
    assert condition(after(make_pretrain(), plan), "Admitted")[1] == "Invalid"


def test_a_sentence_in_the_place_of_a_reason_is_no_reason():
    plan = plan_for(make_pretrain(), problem=Problem("images must be signed!", "Job cannot be made: images must be signed"))
    assert condition(after(make_pretrain(), plan), "Admitted")[1:] == ("Denied", "Job cannot be made: images must be signed")


def test_a_refused_specification_fails_without_a_job_and_a_better_one_revives_it(monkeypatch):
    sentence = "spec.method DINOv2 is not implemented yet: use DINO"
    monkeypatch.setattr(support, "refusals", lambda spec: [sentence] if spec.method == "DINOv2" else [])
    body = make_pretrain()
    body["spec"]["method"] = "DINOv2"
    plan = plan_for(body)
    assert not plan.creates
    body = after(body, plan)
    assert condition(body, "Failed") == ("True", "Refused", sentence)
    assert [e.reason for e in plan.events] == ["Refused"]
    body["spec"]["method"] = "DINO"
    plan = plan_for(body)
    assert created(plan)
    assert condition(after(body, plan), "Failed")[0] == "Unknown"


def test_an_invalid_specification_is_explained_in_sentences():
    body = make_pretrain()
    body["spec"]["training"] = {"batchSize": 0, "stepz": 3}
    reason, message = condition(after(body, plan_for(body)), "Failed")[1:]
    assert reason == "InvalidSpec"
    assert "spec.training.stepz: there is no such field" in message


@pytest.mark.parametrize("edit", [{"method": "MAE"}, {"training": {"batchSize": 0}}])
def test_an_erroneous_edit_does_not_stop_what_runs(edit):
    body = {**RUN, "spec": RUN["spec"] | edit}
    plan = plan_for(body, [make_job(RUN)], [make_pod(RUN, 0), make_pod(RUN, 1)])
    assert not plan.deletes
    changed = after(body, plan)
    assert condition(changed, "FullySupported")[0] == "False"
    assert "Attempt 1 goes on" in condition(changed, "FullySupported")[2]
    assert condition(changed, "Failed")[0] == "Unknown"
    assert condition(changed, "Running") == ("True", "Running", "2 of 2 pods run")
    assert changed["status"]["phase"] == "Running"


@pytest.mark.parametrize(("shape", "phase"), [(COMPLETE, "Succeeded"), (FAILED, "Failed")])
def test_a_run_whose_specification_an_upgrade_made_invalid_ends_when_its_pods_have_ended(shape, phase):
    body = {**RUN, "spec": RUN["spec"] | {"training": {"batchSize": 0}}}
    jobs = [make_job(RUN, conditions=[shape])]
    ending = after(body, plan_for(body, jobs, [make_pod(RUN, 0)]))
    assert condition(ending, "Running")[2] == "waiting for the last pods to end"
    assert "goes on" not in condition(ending, "FullySupported")[2]
    assert after(ending, plan_for(ending, jobs, [make_pod(RUN, 0, exit_code=1)]))["status"]["phase"] == phase


def test_an_invalid_new_run_beside_pods_of_an_earlier_one_of_that_name_is_pending():
    body, old = make_pretrain(), make_pretrain(uid="old")
    body["spec"]["training"] = {"batchSize": 0}
    waiting = after(body, plan_for(body, [], [make_pod(old, deleting=True)]))
    assert waiting["status"]["phase"] == "Pending"
    assert condition(waiting, "Running")[2].startswith("waiting for pod vits16-1-0")
    assert "goes on" not in condition(waiting, "FullySupported")[2]


def test_a_run_that_fails_before_its_first_status_has_a_phase():
    body = make_pretrain()
    failing = after(body, plan_for(body, [make_job(body, conditions=[FAILED])], [make_pod(body)]))
    assert condition(failing, "Running")[1] == "Failing"
    assert failing["status"]["phase"] == "Starting"


def test_fields_without_effect_are_told():
    body = make_pretrain(compute={"podTemplate": {"spec": {"restartPolicy": "Always"}}})
    assert condition(after(body, plan_for(body)), "FullySupported")[:2] == ("False", "FieldsWithoutEffect")


def test_degenerate_features_are_told():
    pods = [make_pod(RUN, 0), make_pod(RUN, 1)]
    collapsed = look(RUN, pods, report=make_report(collapsed=True))
    assert condition(collapsed, "Collapsed")[:2] == ("True", "FeaturesDegenerate")
    assert condition(look(collapsed, pods), "Collapsed")[0] == "True"  # remembered until measured again


def test_a_checkpoint_is_told_and_older_news_does_not_replace_it():
    pods = [make_pod(RUN, 0), make_pod(RUN, 1)]
    body = look(RUN, pods, report=make_report(checkpoint={"step": 200, "url": "gs://c/step-00000200"}))
    body = look(body, pods, report=make_report(checkpoint={"step": 100, "url": "gs://c/step-00000100"}))
    assert condition(body, "Checkpointed") == ("True", "Saved", "step 200 at gs://c/step-00000200")


def test_a_transition_time_moves_only_with_the_status():
    pods = [make_pod(RUN, 0), make_pod(RUN, 1)]
    body = look(RUN, pods, now=at(10))
    assert _since(body, "Running") == times.write(at(10))
    assert _since(body, "Failed") == times.write(at(0))
    assert _since(look(body, pods, now=at(20), report=make_report()), "Running") == times.write(at(10))


def _since(body, kind):
    return next(c["lastTransitionTime"] for c in body["status"]["conditions"] if c["type"] == kind)


def test_every_condition_carries_the_generation_it_speaks_of():
    body = make_pretrain(generation=3)
    body = after(body, plan_for(body))
    assert {c["observedGeneration"] for c in body["status"]["conditions"]} == {3}
    assert body["status"]["observedGeneration"] == 3


def test_a_pod_that_was_never_made_is_asked_about_after_a_while():
    body = started(make_pretrain(compute={"nodes": 2}))
    seen = see([make_job(body)], [make_pod(body, 0)])
    assert trouble.worth_asking(subject.parse(body), seen, at(30)) == ("job-1",)
    assert trouble.worth_asking(subject.parse(body), seen, at(5)) == ()
