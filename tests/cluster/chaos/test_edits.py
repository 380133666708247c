"""Edits out of the schema, on the API server, of runs that live, each then taken back (as Acto does): going back restores the run.

The server judges each edit first; runs are made for those that it takes. No shrinking: an edit is one field already.
"""

import asyncio
import copy
import random
from typing import Any

import pytest

from patho_api import names
from patho_operator import cluster, conditions, subject
from tests.cluster.chaos import acts, admin, campaign
from tests.cluster.chaos.campaign import Arena, World
from tests.cluster.chaos.life import RUN, Life
from tests.controller import edits

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(1800)]

SEED, AT_ONCE = 20260101, 12
SOME, MANY = 12, 240  # edits that the API server takes
PLAUSIBLE: dict[str, list[Any]] = {"boolean": [False], "string": ["lab"], "integer": [3], "number": [0.5], "object": [], "array": []}
SIZES = (("compute", "nodes"), ("compute", "minNodes"))
MOST_PODS = 4
Edit = tuple[edits.Path, Any]


def drawn(rng: random.Random) -> list[Edit]:
    """Every edit of a PathoPretrain in an order by chance; gangs stay small."""
    schema = edits.schema(names.PRETRAIN)
    found = [(path, v) for path, node in edits.fields(schema) for v in (*PLAUSIBLE[node.get("type", "object")], *edits.values(node))]
    rng.shuffle(found)
    return [(path, v) for path, v in found if path not in SIZES or not isinstance(v, int) or v <= MOST_PODS]


async def put(life: Life, spec: Any, query: str = "") -> None:
    """Write a specification onto the run's newest version. Raises Failed where the API server refuses it."""
    where = cluster.path(names.PRETRAIN, life.namespace, RUN)
    while True:
        body = await life.admin.request("GET", where)
        try:
            await life.admin.request("PUT", where + query, body | {"spec": spec})
        except admin.Failed as error:
            if " 409 " not in str(error):
                raise
        else:
            return


async def accepted(model: Life, candidates: list[Edit], number: int) -> tuple[list[Any], int]:
    """So many edited specifications that the API server takes and that change something, and how many edits it refused."""
    found: list[Any] = []
    refused: list[str] = []
    for path, value in candidates:
        body = model.resource(names.PRETRAIN, RUN)
        assert body
        spec = edits.edited(body, path, value)["spec"]
        try:
            await put(model, spec, "?dryRun=All")
        except admin.Failed as error:
            refused.append(str(error))
        else:
            found += [spec] if spec != body["spec"] else []
        if len(found) == number:
            break
    assert len(found) == number
    assert not [sentence for sentence in refused if "spec" not in sentence]  # each says which field
    return found, len(refused)


async def there_and_back(life: Life, wrong: Any) -> None:
    """Edit a run, see that the operator has seen it, take the edit back."""
    await acts.start(life)
    await acts.running(life, 1)
    before, pod = copy.deepcopy((life.resource(names.PRETRAIN, RUN) or {})["spec"]), acts.pod_of(life, 1)
    for spec in (wrong, before):
        await put(life, spec)
        await life.until("the edit is seen", lambda: life.seen)
    if conditions.has_ended(subject.parse(life.resource(names.PRETRAIN, RUN) or {}).status):
        return  # the edit was a deadline or a limit that had passed
    await life.until("the run is restored", lambda: life.told("phase") == ("Running",) and len(life.running()) == 2)
    await life.until("rest", lambda: not life.undone(names.PRETRAIN, RUN))
    assert acts.pod_of(life, *life.told("attempt")) == pod
    assert life.told("restarts") == (0,)


async def tried(made: World, number: int) -> str:
    """Go there and back for so many edits, side by side; what went wrong."""
    gate, wrongs = asyncio.Semaphore(AT_ONCE), []

    async def one(spec: Any) -> str:
        async with gate:
            life = Life(made.admin, made.witness, made.checker, await made.namespace())
            try:
                await there_and_back(life, spec)
            except (AssertionError, TimeoutError, admin.Failed) as error:
                return f"{changed(spec, model)}: {type(error).__name__} {error}"
            await life.admin.delete(cluster.path(names.PRETRAIN, life.namespace, RUN))
            return ""

    model = Life(made.admin, made.witness, made.checker, await made.namespace())
    await acts.start(model)
    await acts.running(model, 1)
    specs, refused = await accepted(model, drawn(random.Random(SEED)), number)
    wrongs = [wrong for wrong in await asyncio.gather(*map(one, specs)) if wrong]
    print(f"{number} edits there and back, {len(wrongs)} not restored; {refused} others were refused")
    return "\n".join(wrongs)


def changed(spec: Any, model: Life) -> str:
    """The parts of a specification that an edit changed."""
    before = (model.resource(names.PRETRAIN, RUN) or {})["spec"]
    return str({name: part for name, part in spec.items() if part != before.get(name)})[:500]


@pytest.mark.parametrize("number", [SOME, pytest.param(MANY, marks=pytest.mark.chaos)])
async def test_an_edit_that_is_taken_back_leaves_the_run_as_it_was(arena: Arena, number: int):
    async with campaign.world(arena) as made, made.lane("edits") as lane:
        assert not await tried(made, number)
        assert not lane.crashes
        assert not made.checker.violations
