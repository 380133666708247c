"""Pruning and an evaluation that names the best checkpoint, side by side and request by request, in every order there is.

A state in which one of them is killed, or waits for ever, is one in which it makes no further request: all of these are looked at.
"""

import json
import pathlib
from collections.abc import Callable
from typing import Any

from patho_api import report
from patho_trainer import checkpoint, fencing, nomination
from patho_trainer.data import storage

ROOT = "s3://b/run"
Contents = dict[str, bytes]


class Pending(BaseException):
    """The next request of an actor: its `change` of the bucket's contents returns the answer."""

    def __init__(self, change: Callable[[Contents], Any]) -> None:
        self.change = change


class Script(storage.Bucket):
    """Gives the answers that are known; the first request without one is pending."""

    def __init__(self, answers: tuple[Any, ...]) -> None:
        self._answers = list(answers)

    def _ask(self, change: Callable[[Contents], Any]) -> Any:
        if not self._answers:
            raise Pending(change)
        return self._answers.pop(0)

    def read(self, url):
        found = self._ask(lambda contents: contents.get(url))
        if found is None:
            raise storage.NotFound(url)
        return found

    def exists(self, url):
        return self._ask(lambda contents: url in contents)

    def list(self, prefix_url, at_most=None):
        found = self._ask(lambda contents: tuple(sorted(url for url in contents if url.startswith(prefix_url))))
        return [storage.ObjectInfo(url, 1, "") for url in found]

    def write(self, url, data, *, if_absent=False):
        self._ask(lambda contents: contents.update({url: data}))

    def delete(self, targets):
        for url in targets:
            self._ask(lambda contents, url=url: contents.pop(url, None) and None)


def judged(step: int, score: float) -> report.BestCheckpoint:
    return report.BestCheckpoint(step=step, task="BACH", metric="balanced_accuracy", score=score, time="2024-04-22T00:00:00Z")


def prune(writer: int) -> Callable[[storage.Bucket], object]:
    claim, scratch = fencing.Claim(1, writer), pathlib.Path("scratch")
    return lambda bucket: checkpoint.prune(checkpoint.Place(ROOT, bucket, claim, scratch), keep=1)


def nominate(step: int, score: float) -> Callable[[storage.Bucket], object]:
    return lambda bucket: nomination.offer(ROOT, f"{ROOT}/step-{step:08d}", judged(step, score), bucket)


def contents(*steps: int, best: int | None) -> Contents:
    names = [f"{ROOT}/step-{step:08d}/{name}" for step in steps for name in ("COMPLETE.json", "state-000001-000001/config.json")]
    named = {f"{ROOT}/best.json": judged(best, 0.5).model_dump_json(by_alias=True).encode()} if best else {}
    return dict.fromkeys(names, b"x") | named


def states(start: Contents, *actors: Callable[[storage.Bucket], object]) -> list[Contents]:
    """Contents of the bucket after every request of every order of the actors' requests; the last ones have both done."""
    seen, found = set(), []
    ahead: list[tuple[Contents, tuple[tuple[Any, ...], ...]]] = [(start, ((),) * len(actors))]
    while ahead:
        bucket, answers = ahead.pop()
        key = (tuple(sorted(bucket.items())), answers)
        if key in seen:
            continue
        seen.add(key)
        found.append(bucket)
        for i, actor in enumerate(actors):
            try:
                actor(Script(answers[i]))
            except Pending as pending:
                after = dict(bucket)
                known = (*answers[i], pending.change(after))
                ahead.append((after, (*answers[:i], known, *answers[i + 1 :])))
    return found


def best_of(bucket: Contents) -> int | None:
    text = bucket.get(f"{ROOT}/best.json")
    return None if text is None else json.loads(text)["step"]


def is_whole(bucket: Contents, step: int) -> bool:
    return contents(step, best=None).keys() <= bucket.keys()


def test_best_json_names_a_whole_checkpoint_whoever_is_killed_when():
    found = states(contents(10, 20, 30, best=20), prune(1), nominate(10, 0.8))
    assert all(is_whole(bucket, best_of(bucket)) for bucket in found)
    assert {best_of(bucket) for bucket in found} == {10, 20}


def test_the_first_best_one_is_named_only_where_it_stays():
    found = states(contents(10, 20, 30, best=None), prune(1), nominate(10, 0.8))
    assert all(best_of(bucket) is None or is_whole(bucket, 10) for bucket in found)
    assert any(best_of(bucket) == 10 for bucket in found)
    assert any(best_of(bucket) is None and not is_whole(bucket, 10) for bucket in found)


def test_two_writers_that_prune_at_once_delete_no_best_one():
    found = states(contents(10, 30, best=None), prune(1), nominate(10, 0.8), prune(2))
    assert all(best_of(bucket) is None or is_whole(bucket, 10) for bucket in found)


def notices(bucket: Contents) -> list[str]:
    return [url for url in bucket if url.startswith(f"{ROOT}/pruning/")]


def test_a_notice_that_a_killed_writer_left_goes_with_its_steps():
    left = [bucket for bucket in states(contents(10, 20, 30, best=20), prune(1)) if notices(bucket)]
    after = [states(bucket, prune(2))[-1] for bucket in left]
    assert [(is_whole(bucket, 10), notices(bucket)) for bucket in after] == [(False, [])] * len(left)
    again = states(after[0] | contents(10, best=None), nominate(10, 0.8))[-1]
    assert best_of(again) == 10


def test_a_notice_stays_while_a_step_of_it_does():
    sleeping = {f"{ROOT}/pruning/000001-000001.json": b"[10, 20]"}
    assert notices(states(contents(10, 20, 30, best=20) | sleeping, prune(2))[-1]) == [*sleeping]


def test_a_marker_goes_before_what_it_stands_for():
    for bucket in states(contents(10, 20, best=None), prune(1)):
        assert is_whole(bucket, 10) or f"{ROOT}/step-00000010/COMPLETE.json" not in bucket
