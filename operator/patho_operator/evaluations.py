"""Continuous evaluation: a PathoEval for each checkpoint that a run's `spec.evaluations` asks for, and what its scores say. Pure.

Every due checkpoint is decided on once, in order: it gets a PathoEval, or it is skipped because scoring is slower than training.
Nothing that happens to a PathoEval reaches the training.
"""

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from patho_api import names
from patho_api.pretrain import Checkpoints, Evaluation, PretrainSpec
from patho_api.resource import Resource
from patho_api.status import CheckpointRef, CheckpointStatus, EvaluationStatus, PretrainStatus
from patho_operator import manifests, models, observed, times
from patho_operator.plan import Delete, Event
from patho_operator.situation import Situation
from patho_operator.subject import Status

KEPT = 3  # finished PathoEvals of an evaluation; when older ones go, their results stay in the bucket
MOST_UNFINISHED = 3  # PathoEvals of an evaluation at the same time
LEAST_TTL_SECONDS = 60  # a PathoEval's scores must be seen before it goes
Children = Sequence[observed.Evaluation]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What continuous evaluation adds to a run's plan."""

    status: Status
    creates: tuple[Mapping[str, Any], ...] = ()
    deletes: tuple[Delete, ...] = ()
    events: tuple[Event, ...] = ()
    unfinished: bool = False  # a PathoEval has not ended


def look(s: Situation, new: Status) -> Outcome:
    """The run's status with what its evaluations say, and what to do about them. `new` is the status without."""
    spec = s.subject.resource.spec if s.subject.resource else None
    if not isinstance(new, PretrainStatus) or not isinstance(spec, PretrainSpec) or not spec.evaluations:
        return Outcome(new)
    latest = new.checkpoint.latest.step if new.checkpoint and new.checkpoint.latest else 0
    parts = [_one(s, spec, evaluation, latest) for evaluation in spec.evaluations]
    before = new.checkpoint.best if new.checkpoint else None
    best = _best(s, spec, before)
    update: dict[str, Any] = {"evaluations": [part.status for part in parts]}
    if best is not before:
        update["checkpoint"] = (new.checkpoint or CheckpointStatus()).model_copy(update={"best": best})
    return Outcome(
        status=new.model_copy(update=update),
        creates=tuple(m for part in parts for m in part.creates),
        deletes=tuple(d for part in parts for d in part.deletes),
        events=tuple(e for part in parts for e in part.events),
        unfinished=any(not child.finished for e in spec.evaluations for child in _children(s, e)),
    )


def name_of(run_uid: str, evaluation: str, step: int) -> str:
    """Name of the PathoEval of one step, at most 35 characters: `bach-12500-1a2b3c4d`; the hash tells runs apart."""
    return f"{evaluation}-{step}-{hashlib.sha256(run_uid.encode()).hexdigest()[:8]}"


def best_by(s: Situation) -> str:
    """The task by which this PathoEval decides on its run's best checkpoint: the first of the run's first evaluation.

    Empty for the PathoEvals of other evaluations, and for those that people made.
    """
    pretrain, step = s.observed.pretrain, models.wanted_step(s.resource.spec)
    run = models.pretrain_spec(pretrain) if pretrain and step is not None else None
    if run is None or pretrain is None or step is None or not run.evaluations:
        return ""
    first = run.evaluations[0]
    return _first_task(first) if s.subject.key.name == name_of(pretrain["metadata"]["uid"], first.name, step) else ""


def due(every_steps: int, decided: int, latest: int, checkpoints: Checkpoints) -> list[int]:
    """Steps beyond `decided` whose checkpoints are to be evaluated and still exist: the newest `keep` do."""
    oldest = latest - (checkpoints.keep - 1) * checkpoints.every_steps
    first = max(decided + 1, oldest, 1)
    return list(range(-(-first // every_steps) * every_steps, latest + 1, every_steps))


@dataclasses.dataclass(frozen=True)
class _Part:
    """One evaluation's part of the outcome."""

    status: EvaluationStatus
    creates: tuple[Mapping[str, Any], ...] = ()
    deletes: tuple[Delete, ...] = ()
    events: tuple[Event, ...] = ()


def _one(s: Situation, spec: PretrainSpec, evaluation: Evaluation, latest: int) -> _Part:
    assert isinstance(s.subject.status, PretrainStatus)
    recorded = next((e for e in s.subject.status.evaluations if e.name == evaluation.name), None)
    known = recorded or EvaluationStatus(name=evaluation.name)
    children = _children(s, evaluation)
    # definitions of an older release drop what status says here: what was decided would be decided, and made, again and again
    steps = due(evaluation.every_steps, known.step, latest, spec.checkpoints) if recorded else []
    room = max(0, MOST_UNFINISHED - sum(not child.finished for child in children))
    skipped, made = steps[: max(0, len(steps) - room)], steps[max(0, len(steps) - room) :]
    seen, events = _ended(known, children)
    events += [Event("EvaluationCreated", f"{evaluation.name} at step {step:,}") for step in made]
    if skipped:
        words = f"{evaluation.name} at step {', '.join(f'{n:,}' for n in skipped)}: {MOST_UNFINISHED} earlier ones have not ended"
        events.append(Event("EvaluationSkipped", words, warning=True))
    return _Part(
        status=seen.model_copy(update={"step": max([known.step, *steps])}),
        creates=tuple(manifest(s.resource, evaluation, step) for step in made),
        deletes=tuple(_delete(s, child) for child in [c for c in children if c.finished][:-KEPT] if not child.deleting),
        events=tuple(events),
    )


def _children(s: Situation, evaluation: Evaluation) -> list[observed.Evaluation]:
    """The PathoEvals that were made for an evaluation and still exist, by step."""
    mine = [e for e in s.observed.evaluations if e.name == name_of(s.subject.uid, evaluation.name, e.step)]
    return sorted(mine, key=lambda e: e.step)


def _ended(known: EvaluationStatus, children: Children) -> tuple[EvaluationStatus, list[Event]]:
    """What the newest PathoEval that ended says, and the events that tell of it."""
    last = max((c for c in children if c.finished and c.step >= (known.scored_step or 0)), key=lambda c: c.step, default=None)
    if last is None:
        return known, []
    if not last.results:
        message = f"step {last.step}: {last.failure or 'ended without scores'}"[:1024]
        news = [Event("EvaluationFailed", f"{known.name} at {message}", warning=True)] if message != known.message else []
        return known.model_copy(update={"message": message}), news
    if last.step == known.scored_step:
        return known, []
    scores = ", ".join(f"{r.task} {r.mean:.3f}±{r.std:.3f}" for r in last.results)
    new = known.model_copy(update={"scored_step": last.step, "results": list(last.results), "message": ""})
    return new, [Event("Evaluated", f"{known.name} at step {last.step:,}: {scores}")]


def _best(s: Situation, spec: PretrainSpec, before: CheckpointRef | None) -> CheckpointRef | None:
    """The checkpoint with the highest score of the deciding task; of equals the one that was best already, else the earliest."""
    first = spec.evaluations[0]
    judge = f"{first.name}/{_first_task(first)}"
    best = before if before and before.task == judge else None
    for child in _children(s, first):
        score = next((r.mean for r in child.results if r.task == _first_task(first)), None)
        if score is not None and (best is None or best.score is None or score > best.score):
            url = names.checkpoint_url(spec.checkpoints.url, child.step)
            best = CheckpointRef(step=child.step, url=url, time=times.write(s.now), task=judge, score=score)
    return best or before


def _first_task(evaluation: Evaluation) -> str:
    task = evaluation.template.tasks[0]
    return task.label or task.name


def manifest(resource: Resource, evaluation: Evaluation, step: int) -> dict[str, Any]:
    """The PathoEval of one step of a run; it goes when the run goes."""
    assert isinstance(resource.spec, PretrainSpec)
    spec = evaluation.template.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    ttl = evaluation.template.run_policy.ttl_seconds_after_finished
    if ttl is not None:
        spec["runPolicy"]["ttlSecondsAfterFinished"] = max(ttl, LEAST_TTL_SECONDS)
    spec["model"] = {"pretrain": {"name": resource.name, "checkpoint": str(step)}}
    spec["results"] = names.evaluation_url(resource.spec.checkpoints.url, evaluation.name, step)
    labels = {names.LABEL_PRETRAIN: resource.name, names.LABEL_EVALUATION: evaluation.name, names.LABEL_STEP: str(step)}
    metadata = {
        "name": name_of(resource.uid, evaluation.name, step),
        "namespace": resource.namespace,
        "labels": labels | {names.LABEL_MANAGED_BY: names.MANAGED_BY},
        "ownerReferences": [manifests.owner(resource)],
    }
    return {"apiVersion": names.API_VERSION, "kind": names.EVAL, "metadata": metadata, "spec": spec}


def _delete(s: Situation, child: observed.Evaluation) -> Delete:
    return Delete(names.EVAL, s.subject.key.namespace, child.name, child.uid, "Background")
