"""PathoEval: which checkpoint, when, and how its scores are shown."""

import json

import pytest

from patho_api import names
from tests.controller.builders import (
    CHECKPOINTS,
    COMPLETE,
    after,
    condition,
    created,
    make_eval,
    make_job,
    make_pod,
    make_pretrain,
    plan_for,
)

SAVED = make_pretrain(status={"checkpoint": {"latest": {"step": 5000, "url": f"{CHECKPOINTS}/step-00005000"}}})
RESULTS = [{"task": "MHIST", "metric": "accuracy", "mean": 0.8123, "std": 0.011, "runs": 5, "samples": 977}]


def environment(job):
    container = job["spec"]["template"]["spec"]["containers"][0]
    return {e["name"]: e["value"] for e in container["env"]}


@pytest.mark.parametrize(
    ("checkpoint", "pretrain", "words"),
    [
        ("Latest", None, "does not exist"),
        ("Latest", make_pretrain(), "has no checkpoint yet"),
        ("Best", SAVED, "has no best checkpoint yet: use Latest or a step"),
        ("7500", SAVED, "has reached step 5000 of the wanted 7500"),
        ("Latest", make_pretrain(status={"checkpoint": {"latest": "of another release"}}), "has no checkpoint yet"),
    ],
)
def test_an_evaluation_waits_for_its_checkpoint_and_says_so(checkpoint, pretrain, words):
    body = make_eval(model={"pretrain": {"name": "vits16", "checkpoint": checkpoint}})
    plan = plan_for(body, pretrain=pretrain)
    assert not plan.creates
    status, reason, message = condition(after(body, plan), "Checkpointed")
    assert (status, reason) == ("False", "WaitingForCheckpoint")
    assert words in message


@pytest.mark.parametrize(("checkpoint", "folder"), [("Latest", "step-00005000"), ("2500", "step-00002500")])
def test_the_reference_is_resolved_into_the_pods_specification(checkpoint, folder):
    body = make_eval(model={"pretrain": {"name": "vits16", "checkpoint": checkpoint}})
    spec = json.loads(environment(created(plan_for(body, pretrain=SAVED)))[names.ENV_SPEC])
    assert spec["model"]["url"] == f"{CHECKPOINTS}/{folder}"
    assert spec["model"]["pretrain"] is None


def test_a_newer_checkpoint_does_not_change_an_evaluation_that_has_begun():
    body = make_eval()
    body = after(body, plan_for(body, pretrain=SAVED))
    newer = make_pretrain(status={"checkpoint": {"latest": {"step": 7500, "url": f"{CHECKPOINTS}/step-00007500"}}})
    plan = plan_for(body, [make_job(body)], [make_pod(body)], pretrain=newer)
    assert not plan.deletes
    assert after(body, plan)["status"]["modelUrl"] == f"{CHECKPOINTS}/step-00005000"


def test_the_pretrains_bucket_access_is_taken_over_unless_the_evaluation_names_one():
    pretrain = make_pretrain(status=SAVED["status"])
    pretrain["spec"]["checkpoints"]["storage"] = {"secretName": "theirs"}
    inherited = created(plan_for(make_eval(), pretrain=pretrain))
    own = created(plan_for(make_eval(storage={"secretName": "mine"}), pretrain=pretrain))
    assert [_secret(job) for job in (inherited, own)] == ["theirs", "mine"]


def _secret(job):
    return next(v["secret"]["secretName"] for v in job["spec"]["template"]["spec"]["volumes"] if "secret" in v)


def test_scores_come_from_the_last_words_of_the_pod():
    body = after(make_eval(), plan_for(make_eval(), pretrain=SAVED))
    words = {"reason": "Completed", "results": RESULTS, "rankMe": 12.5, "reportURL": "gs://me/evals/vits16/results.json"}
    plan = plan_for(body, [make_job(body, conditions=[COMPLETE])], [make_pod(body, exit_code=0, words=words)], pretrain=SAVED)
    status = after(body, plan)["status"]
    assert status["phase"] == "Succeeded"
    assert status["scoreSummary"] == "MHIST 0.81±0.01"
    assert status["results"] == RESULTS
    assert (status["rankMe"], status["reportURL"]) == (12.5, "gs://me/evals/vits16/results.json")


def test_a_task_that_a_pod_names_twice_is_written_once():
    """The API server refuses a status that has an entry twice, and with it the end of the run."""
    body = after(make_eval(), plan_for(make_eval(), pretrain=SAVED))
    pod = make_pod(body, exit_code=0, words={"reason": "Completed", "results": RESULTS * 2})
    plan = plan_for(body, [make_job(body, conditions=[COMPLETE])], [pod], pretrain=SAVED)
    assert plan.status["results"] == RESULTS


def test_a_model_that_is_no_checkpoint_of_ours_is_evaluated_at_once():
    body = make_eval(model={"timm": "vit_small_patch16_224.dino"})
    plan = plan_for(body)
    assert created(plan)
    assert plan.status["modelUrl"] == "vit_small_patch16_224.dino"
