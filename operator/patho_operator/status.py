"""The status that a resource should have, given what is seen and what is done next. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from patho_api import report
from patho_api.status import Attempt, CheckpointRef, CheckpointStatus, EvalStatus, PretrainStatus, TaskResult
from patho_operator import accelerators, attempts, conditions, observed, progress_text, times
from patho_operator.situation import Situation
from patho_operator.steps import Step
from patho_operator.subject import Status

KEPT_ATTEMPTS = 10


def render(s: Situation, step: Step) -> Status:
    """The whole new status; equal to the present one if nothing is to be said."""
    old = s.subject.status
    words = _words(s)
    new = old.model_copy(
        update={
            "observed_generation": s.subject.generation,
            "attempt": s.attempt + (step.kind == "Begin"),
            "restarts": s.counts.restarts + (step.counted and not s.ended),
            "disruptions": s.counts.disruptions,
            "start_time": old.start_time or _start(s, step),
            "completion_time": times.write(s.now) if step.kind in ("Succeed", "Fail") else None,
            "attempts": _attempts(s, step, words),
            "progress": _progress(s, step, words),
            **(_pretrain_fields(s, words) if isinstance(old, PretrainStatus) else _eval_fields(s, step, words)),
        }
    )
    new = new.model_copy(update={"phase": conditions.phase(s, step)})
    new = new.model_copy(update={"conditions": conditions.render(s, step, new)})
    if new == old:
        return old
    # grows all the time: written when something else is
    return new.model_copy(update={"accelerator_seconds": max(old.accelerator_seconds, accelerators.seconds(s))})


def difference(raw: Mapping[str, Any], new: Status) -> dict[str, Any] | None:
    """The merge patch that turns the present status into the new one; None if they are equal."""
    patch = _merge_patch(raw, new.model_dump(mode="json", by_alias=True, exclude_none=True))
    return patch or None


def only_words(old: Status, new: Status) -> bool:
    """Whether they differ in nothing but messages, and in what grows all the time."""
    return _mute(old) == _mute(new)


def _mute(found: Status) -> Status:
    silent = [condition.model_copy(update={"message": ""}) for condition in found.conditions]
    return found.model_copy(update={"conditions": silent, "accelerator_seconds": 0.0})


def latest_checkpoint(old: Status) -> CheckpointRef | None:
    """The newest complete checkpoint that status knows."""
    found = old.checkpoint if isinstance(old, PretrainStatus) else None
    return found.latest if found else None


def _merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        if key not in old:
            patch[key] = value
        elif isinstance(value, dict) and isinstance(old[key], Mapping):
            if inner := _merge_patch(old[key], value):
                patch[key] = inner
        elif old[key] != value:
            patch[key] = value
    return patch


def _words(s: Situation) -> report.LastWords | None:
    """The last words that matter: index 0's, and the newest of those."""
    ended = sorted((p for p in s.pods if p.words), key=lambda p: (p.index != 0, -p.end.timestamp()))
    found = (observed.last_words(pod.words) for pod in ended)
    return next((words for words in found if words), None)


def _start(s: Situation, step: Step) -> str | None:
    if s.job:
        return times.write(s.job.created)
    return times.write(s.now) if step.kind == "Begin" else None


def _attempts(s: Situation, step: Step, words: report.LastWords | None) -> list[Attempt]:
    known = {a.number: a for a in s.subject.status.attempts}
    if s.job and s.job.attempt and s.job.attempt not in known:
        known[s.job.attempt] = Attempt(
            number=s.job.attempt, reason=s.job.reason, from_step=s.job.from_step, start=times.write(s.job.created)
        )
    elif s.attempt and s.attempt not in known:  # its Job was deleted before status told of it
        known[s.attempt] = Attempt(number=s.attempt, reason="Started", start=times.write(s.now))
    if (current := known.get(s.attempt)) and current.end is None:
        known[s.attempt] = current.model_copy(update=_ending(s, step) | {"to_step": _to_step(s, current, words)})
    if step.kind == "Begin":
        checkpoint = latest_checkpoint(s.subject.status)
        known[s.attempt + 1] = Attempt(
            number=s.attempt + 1,
            reason=step.reason,
            message=step.message[:1024],
            from_step=checkpoint.step if checkpoint else None,
            start=times.write(s.now),
        )
    return [known[number] for number in sorted(known)][-KEPT_ATTEMPTS:]


def _ending(s: Situation, step: Step) -> dict[str, Any]:
    """What an attempt's record gets when the attempt ends."""
    if step.kind not in ("Stop", "Succeed", "Fail"):
        return {}
    failure = attempts.last_failure(s) if step.reason != "Suspended" else ""
    new = failure and step.kind == "Stop" and failure not in step.message
    message = f"{step.message}; the last failure: {failure}" if new else step.message
    reason = "Completed" if step.kind == "Succeed" else step.reason
    return {"end": times.write(s.now), "reason": reason, "message": message[:1024]}


def _to_step(s: Situation, current: Attempt, words: report.LastWords | None) -> int | None:
    seen = s.observed.seen
    reported = seen.report.step if seen and seen.report.stage in ("Training", "Saving") else None
    steps = [n for n in (current.to_step, reported, words.step if words else None) if n is not None]
    return max(steps, default=None)


def _progress(s: Situation, step: Step, words: report.LastWords | None) -> Any:
    if step.kind == "Keep" and s.running and s.observed.seen:
        return progress_text.progress(s.observed.seen.report)
    return progress_text.at_rest(s.subject.status.progress, words.step if words else None)


def _pretrain_fields(s: Situation, words: report.LastWords | None) -> dict[str, Any]:
    seen = s.observed.seen.report if s.observed.seen else None
    old = s.subject.status
    assert isinstance(old, PretrainStatus)
    known = [latest_checkpoint(old), seen.checkpoint if seen else None, words.checkpoint if words else None]
    latest = _newest(known)
    best = old.checkpoint.best if old.checkpoint else None
    return {
        "checkpoint": CheckpointStatus(latest=latest, best=best) if latest or best else None,
        "slides": (seen.slides if seen else None) or old.slides,
    }


def _newest(found: Iterable[CheckpointRef | None]) -> CheckpointRef | None:
    """The one with the most steps; of equals the first, so that status does not flicker."""
    newest: CheckpointRef | None = None
    for checkpoint in found:
        if checkpoint and (newest is None or checkpoint.step > newest.step):
            newest = checkpoint
    return newest


def _eval_fields(s: Situation, step: Step, words: report.LastWords | None) -> dict[str, Any]:
    old = s.subject.status
    assert isinstance(old, EvalStatus)
    fields: dict[str, Any] = {"model_url": s.model.url or old.model_url}
    if step.kind == "Succeed" and words:
        fields |= {
            "results": list({result.task: result for result in words.results}.values()),  # a task twice: all of status would be refused
            "rank_me": words.rank_me,
            "od_corr": words.od_corr,
            "report_url": words.report_url,
            "score_summary": summary(words.results),
        }
    return fields


def summary(results: Iterable[TaskResult]) -> str:
    """Scores in one short column: `BACH 0.83±0.01, MHIST 0.79±0.02`."""
    return ", ".join(f"{r.task} {r.mean:.2f}±{r.std:.2f}" for r in results)[:256]
