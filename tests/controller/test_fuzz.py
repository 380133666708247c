"""Every field of both schemas with every kind of value, as an edit of a running resource that is then taken back (as Acto does).

No value may break the operator, and going back restores the state: what is stored may come from another release or another schema.
"""

import pytest

from patho_api import names
from patho_operator import conditions, manifests, subject
from tests.controller import edits
from tests.controller.builders import after, at, created, make_eval, make_job, make_pod, make_pretrain, plan_for

BODIES = {names.PRETRAIN: make_pretrain(), names.EVAL: make_eval(model={"url": "gs://me/runs/vits16/step-00000100"})}


def at_rest(body: dict) -> tuple[dict, list, list]:
    """The resource with attempt 1 running, its Job and its pod."""
    body = after(body, plan_for(body))
    seen = [make_job(body)], [make_pod(body)]
    return after(body, plan_for(body, *seen)), *seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", names.PLURALS)
def test_no_edit_breaks_the_operator_and_going_back_restores_the_run(kind):
    before, jobs, pods = at_rest(BODIES[kind])
    tried = 0
    for path, node in edits.fields(edits.schema(kind)):
        for value in edits.values(node):
            wrong = edits.edited(before, path, value)
            plan = plan_for(wrong, jobs, pods, now=at(1))
            back = after(wrong, plan) | {"spec": before["spec"]}
            restored(before, back, jobs, pods, stopped=bool(plan.deletes))
            tried += 1
    assert tried > 500


def restored(before: dict, back: dict, jobs: list, pods: list, *, stopped: bool) -> None:
    """The same attempt goes on; where the edit stopped it, the next one is made from the same specification."""
    if not stopped:
        again = after(back, plan_for(back, jobs, pods, now=at(2)))["status"]
        if conditions.has_ended(subject.parse(back).status):  # the edit was a deadline or a limit that had passed
            return
        assert {k: v for k, v in again.items() if k != "conditions"} == {k: v for k, v in before["status"].items() if k != "conditions"} | {
            "observedGeneration": back["metadata"]["generation"]
        }
        assert [(c["type"], c["status"], c["reason"]) for c in again["conditions"]] == [
            (c["type"], c["status"], c["reason"]) for c in before["status"]["conditions"]
        ]
        return
    job = created(plan_for(back, now=at(400)))
    if job:
        assert job["metadata"]["annotations"][names.ANNOTATION_SPEC_HASH] == manifests.spec_hash(subject.parse(before).resource)
