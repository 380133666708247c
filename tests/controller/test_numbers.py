"""Attempts have numbers that are never used again."""

from tests.controller.builders import after, at, created, make_pod, make_pretrain, plan_for


def test_the_number_of_an_attempt_is_never_used_again_though_its_job_went_before_the_first_status():
    """Two Jobs of one number would be equal before the fence of checkpoints."""
    body = make_pretrain()
    stopping = plan_for(body, pods=[make_pod(body, deleting=True)], patience=3.0)
    assert not stopping.creates
    body = after(body, stopping)
    assert [(a["number"], a["reason"]) for a in body["status"]["attempts"]] == [(1, "JobDeleted")]
    assert created(plan_for(body, now=at(60)))["metadata"]["name"] == "vits16-pt-2"
