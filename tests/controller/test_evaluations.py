"""Continuous evaluation: which checkpoints get a PathoEval, and what its scores do. Checkpoints come every 100 steps, 3 are kept."""

import pytest

from patho_api import names, resource
from patho_operator import evaluations, handlers, metrics, subject
from patho_operator.handlers import Indexes
from patho_operator.observed import Key
from tests.controller.builders import (
    CHECKPOINTS,
    COMPLETE,
    UID,
    after,
    created,
    make_job,
    make_pod,
    make_pretrain,
    make_report,
    plan_for,
    started,
)

PROBE = {"name": "probe", "everySteps": 200, "template": {"tasks": [{"name": "MHIST", "data": "gs://data/mhist"}]}}
OTHER = {"name": "other", "everySteps": 200, "template": {"tasks": [{"name": "PatchClassification", "data": "gs://data/p"}]}}


def make_run(*evaluated, **policy):
    body = make_pretrain(evaluations=evaluated or [PROBE], **policy)
    body["spec"]["checkpoints"] |= {"everySteps": 100, "keep": 3}
    return started(body)


def reaches(body, step, *children, **seen):
    """The plan for a run whose newest checkpoint is that of `step`."""
    told = make_report(step, checkpoint={"step": step, "url": names.checkpoint_url(CHECKPOINTS, step)})
    return plan_for(body, [make_job(body)], [make_pod(body)], report=told, evaluations=children, **seen)


def made(plan):
    """Steps of the PathoEvals that a plan makes."""
    return [int(m["metadata"]["labels"][names.LABEL_STEP]) for m in plan.optional]


def child(step, score=None, *, evaluation="probe", task="MHIST", failure="", deleting=False):
    """The PathoEval of a step: unfinished, with a score, or failed."""
    name = evaluations.name_of(UID, evaluation, step)
    metadata = {"name": name, "uid": name, "namespace": "lab"} | ({"deletionTimestamp": "2030-01-01T12:00:00Z"} if deleting else {})
    result = {"task": task, "metric": "balancedAccuracy", "mean": score, "std": 0.01, "runs": 5, "samples": 9}
    ended = [{"type": "Failed", "status": "True", "message": failure}] if failure else [{"type": "Succeeded", "status": "True"}]
    status = {"conditions": ended, "results": [] if failure else [result]} if failure or score is not None else {}
    return {"metadata": metadata, "spec": {"model": {"pretrain": {"name": "vits16", "checkpoint": str(step)}}}, "status": status}


def test_a_checkpoint_that_hits_every_steps_gets_one_evaluation():
    body = make_run()
    assert made(reaches(body, 100)) == []
    plan = reaches(body, 200)
    assert made(plan) == [200]
    assert [e.reason for e in plan.events] == ["EvaluationCreated"]
    body = after(body, plan)
    assert made(reaches(body, 200, child(200))) == []
    assert made(reaches(body, 300)) == []  # its PathoEval was deleted by hand
    assert made(reaches(body, 400)) == [400]


def test_definitions_that_cannot_keep_what_was_decided_get_no_evaluations():
    """Those of an older release drop status.evaluations: what was made would be made again and again."""
    body = make_run()
    pruned = body | {"status": {k: v for k, v in body["status"].items() if k != "evaluations"}}
    plan = reaches(pruned, 200)
    assert made(plan) == []
    assert made(reaches(after(pruned, plan), 200)) == [200]


def test_the_evaluation_is_a_valid_resource_that_goes_with_its_run():
    manifest = reaches(make_run(), 200).optional[0]
    found = resource.parse(manifest)
    assert (found.spec.model.pretrain.name, found.spec.model.pretrain.checkpoint) == ("vits16", "200")
    assert found.spec.results == f"{CHECKPOINTS}/evaluations/probe/step-00000200"
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == UID
    assert found.name.startswith("probe-200-")
    assert manifest["metadata"]["labels"][names.LABEL_PRETRAIN] == "vits16"


def test_the_longest_name_fits():
    assert len(evaluations.name_of(UID, "a" * 16, 100_000_000)) <= names.MAX_NAME_LENGTH


def test_a_checkpoint_missed_while_the_operator_was_away_is_evaluated_if_it_still_exists():
    assert made(reaches(make_run(), 500)) == [400]
    assert made(reaches(make_run(PROBE | {"everySteps": 100}), 500)) == [300, 400, 500]


def test_scores_reach_the_run_and_the_best_checkpoint_is_named():
    body = after(make_run(), reaches(make_run(), 200))
    plan = reaches(body, 200, child(200, 0.8))
    body = after(body, plan)
    assert body["status"]["evaluations"][0]["results"][0]["mean"] == 0.8
    best = body["status"]["checkpoint"]["best"]
    assert (best["step"], best["task"], best["score"]) == (200, "probe/MHIST", 0.8)
    assert best["url"] == names.checkpoint_url(CHECKPOINTS, 200)
    assert [(e.reason, e.message) for e in plan.events] == [("Evaluated", "probe at step 200: MHIST 0.800±0.010")]


@pytest.mark.parametrize(("score", "best"), [(0.9, 400), (0.8, 200), (0.7, 200)])
def test_only_a_higher_score_is_better(score, best):
    body = after(make_run(), reaches(make_run(), 200, child(200, 0.8)))
    body = after(body, reaches(body, 400, child(200, 0.8), child(400, score)))
    assert body["status"]["checkpoint"]["best"]["step"] == best
    assert body["status"]["evaluations"][0]["scoredStep"] == 400


def test_the_best_outlives_the_evaluation_that_found_it():
    body = after(make_run(), reaches(make_run(), 200, child(200, 0.8)))
    assert reaches(body, 200).status is None


def test_the_first_task_of_the_first_evaluation_decides():
    body = make_run(PROBE, OTHER)
    seen = child(200, 0.6), child(200, 0.9, evaluation="other", task="PatchClassification")
    body = after(body, reaches(body, 200, *seen))
    assert body["status"]["checkpoint"]["best"]["score"] == 0.6
    assert [e["scoredStep"] for e in body["status"]["evaluations"]] == [200, 200]


def test_an_evaluation_that_fails_is_told_once_and_never_stops_the_training():
    body = after(make_run(), reaches(make_run(), 200))
    failed = child(200, failure="gs://data/mhist is empty")
    plan = reaches(body, 200, failed)
    assert not plan.deletes
    assert [(e.reason, e.warning) for e in plan.events] == [("EvaluationFailed", True)]
    body = after(body, plan)
    assert body["status"]["phase"] == "Running"
    assert body["status"]["evaluations"][0]["message"] == "step 200: gs://data/mhist is empty"
    assert reaches(body, 200, failed).status is None
    body = after(body, reaches(body, 400, failed, child(400, 0.5)))
    assert "message" not in body["status"]["evaluations"][0] or not body["status"]["evaluations"][0]["message"]


def test_where_scoring_is_slower_than_training_checkpoints_are_skipped_and_that_is_said():
    body = after(make_run(), reaches(make_run(), 200))
    unfinished = [child(step) for step in (200, 400, 600)]
    plan = reaches(body, 800, *unfinished)
    assert made(plan) == []
    assert [e.reason for e in plan.events] == ["EvaluationSkipped"]
    assert made(reaches(after(body, plan), 800, *[child(step, 0.5) for step in (200, 400, 600)])) == []


def test_finished_evaluations_do_not_pile_up():
    body = after(make_run(), reaches(make_run(), 800))
    children = [child(step, 0.5) for step in (200, 400, 600, 800)]
    assert [d.name for d in reaches(body, 800, *children).deletes] == [evaluations.name_of(UID, "probe", 200)]
    assert not reaches(body, 800, child(200, 0.5, deleting=True), *children[1:]).deletes


def test_evaluations_that_people_made_are_left_alone():
    body = after(make_run(), reaches(make_run(), 800))
    theirs = [child(step, 0.99, evaluation="mine") for step in (200, 400, 600, 800)]
    plan = reaches(body, 800, *theirs)
    assert not plan.deletes
    assert plan.status is None


def test_the_last_checkpoint_is_evaluated_after_the_run_has_succeeded():
    body = make_run()
    words = {"reason": "Completed", "step": 200, "checkpoint": {"step": 200, "url": names.checkpoint_url(CHECKPOINTS, 200)}}
    plan = plan_for(body, [make_job(body, conditions=[COMPLETE])], [make_pod(body, exit_code=0, words=words)])
    assert made(plan) == [200]
    body = after(body, plan)
    body = after(body, plan_for(body, evaluations=[child(200, 0.8)]))
    assert body["status"]["checkpoint"]["best"]["step"] == 200
    assert body["status"]["phase"] == "Succeeded"


def test_the_time_to_live_waits_for_the_last_evaluation():
    body = make_run(ttlSecondsAfterFinished=0)
    body = after(body, plan_for(body, [make_job(body, conditions=[COMPLETE])], [make_pod(body, exit_code=0)]))
    assert not plan_for(body, evaluations=[child(200)]).deletes
    assert [d.kind for d in plan_for(body, evaluations=[child(200, 0.8)]).deletes] == [names.PRETRAIN]


def test_an_edit_of_the_evaluations_restarts_nothing():
    body = make_run()
    job = make_job(body)
    body["spec"]["evaluations"] = [OTHER]
    assert not plan_for(body, [job], [make_pod(body)]).deletes


def test_a_short_time_to_live_leaves_time_to_see_the_scores():
    brief = PROBE | {"template": PROBE["template"] | {"runPolicy": {"ttlSecondsAfterFinished": 0}}}
    manifest = reaches(make_run(brief), 200).optional[0]
    assert manifest["spec"]["runPolicy"]["ttlSecondsAfterFinished"] == evaluations.LEAST_TTL_SECONDS


def environment(plan):
    return {e["name"]: e["value"] for e in created(plan)["spec"]["template"]["spec"]["containers"][0]["env"]}


@pytest.mark.parametrize(("evaluated", "by"), [((PROBE, OTHER), "MHIST"), ((OTHER, PROBE), None)])
def test_the_pod_that_decides_on_the_best_checkpoint_knows_it(evaluated, by):
    run = after(make_run(*evaluated), reaches(make_run(*evaluated), 200))
    manifest = next(m for m in reaches(make_run(*evaluated), 200).optional if m["metadata"]["name"].startswith("probe"))
    body = manifest | {"metadata": manifest["metadata"] | {"uid": "eval-1", "generation": 1, "resourceVersion": "7"}, "status": {}}
    assert environment(plan_for(body, pretrain=run)).get(names.ENV_BEST_BY) == by


def test_scores_are_metrics_of_the_run():
    body = after(make_run(), reaches(make_run(), 200, child(200, 0.8)))
    found = metrics.Metrics("1")
    found.runs.shown[Key(names.PRETRAIN, "lab", "vits16")] = subject.parse(body).status
    wanted = 'patho_eval_score{metric="balancedAccuracy",name="probe",namespace="lab",run="vits16",task="MHIST"} 0.8'
    assert wanted in found.text().decode()


def test_the_index_finds_a_runs_evaluations():
    key, run = Key(names.EVAL, "lab", "x"), Key(names.PRETRAIN, "lab", "vits16")
    body = child(200, 0.8) | {"kind": names.EVAL, "apiVersion": names.API_VERSION}
    body["metadata"]["resourceVersion"] = "7"
    indexes = Indexes(resources={key: [handlers.compact(body)]}, evals={run: [key]})
    assert [(e.step, e.results[0].mean) for e in indexes.evaluations_of(run)] == [(200, 0.8)]
