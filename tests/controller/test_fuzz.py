"""Every field of both schemas with every kind of value, as an edit of a running resource that is then taken back (as Acto does).

No value may break the operator, and going back restores the state: what is stored may come from another release or another schema.
"""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from patho_api import crd, names
from patho_operator import conditions, manifests, subject
from tests.controller.builders import after, at, created, make_eval, make_job, make_pod, make_pretrain, plan_for

Path = tuple[str | int, ...]
STRANGE: list[Any] = [None, "", "x" * 5000, "\u0000/../ü", -1, 0, 2**63, 1.5, True, [], {}, [None], {"a": {"b": []}}]
BODIES = {names.PRETRAIN: make_pretrain(), names.EVAL: make_eval(model={"url": "gs://me/runs/vits16/step-00000100"})}


def fields(schema: dict, path: Path = ()) -> Iterator[tuple[Path, dict]]:
    """Every field of a schema, and the first item of every list."""
    for name, node in schema.get("properties", {}).items():
        yield (*path, name), node
        yield from fields(node, (*path, name))
    if "items" in schema:
        yield (*path, 0), schema["items"]
        yield from fields(schema["items"], (*path, 0))


def values(node: dict) -> list[Any]:
    """What to try in a field: its bounds, what lies beyond them, all it may be, and what it may not."""
    found = [node[key] + beyond for key, beyond in BOUNDS if key in node]
    return [*found, *node.get("enum", []), *STRANGE]


BOUNDS = [("minimum", 0), ("minimum", -1), ("maximum", 0), ("maximum", 1)]


def edited(body: dict, path: Path, value: Any) -> dict:
    """The body with one field of its spec changed, and what must be there for it made."""
    found = copy.deepcopy(body)
    found["metadata"]["generation"] += 1
    place: Any = found["spec"]
    for step, following in itertools.pairwise(path):
        if isinstance(place, list) and len(place) <= int(step):
            place.append({})
        if not (place[step] if isinstance(place, list) else place.get(step)):
            place[step] = [] if isinstance(following, int) else {}
        place = place[step]
    if isinstance(place, list) and not place:
        place.append(value)
    else:
        place[path[-1]] = value
    return found


def at_rest(body: dict) -> tuple[dict, list, list]:
    """The resource with attempt 1 running, its Job and its pod."""
    body = after(body, plan_for(body))
    seen = [make_job(body)], [make_pod(body)]
    return after(body, plan_for(body, *seen)), *seen


@pytest.mark.slow
@pytest.mark.parametrize("kind", names.PLURALS)
def test_no_edit_breaks_the_operator_and_going_back_restores_the_run(kind):
    before, jobs, pods = at_rest(BODIES[kind])
    schema = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    tried = 0
    for path, node in fields(schema):
        for value in values(node):
            wrong = edited(before, path, value)
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


def essence(status: dict) -> dict:
    """A status without times and sentences of conditions."""
    return status | {"conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]]}
