"""The best checkpoint of a run by its evaluations: a small file beside the checkpoints (`names.best_url`).

An evaluation's pod offers the checkpoint that it judged; the trainer spares the one that won when it prunes. The operator, which has no
credentials of the bucket, learns the scores from the evaluation's last words.

    nominees/step-00000010.json     an evaluation is about to name step 10: pruning spares it
    pruning/000001-000003.json      the steps that writer 000001-000003 is about to delete: nobody names them any more

Each says first what it is about to do, and looks then for what the other said; so at least one of them sees the other, and `best.json`
names a checkpoint that is there, whoever is killed at which moment.
"""

import contextlib
import json
import re
from collections.abc import Collection, Iterable, Iterator

import pydantic

from patho_api import names, report
from patho_trainer.data import storage, urls

NOMINEE = re.compile(r"nominees/step-(\d{8})\.json$")
NOTICE = re.compile(r"pruning/(\d{6}-\d{6})\.json$")


def found(root: str, bucket: storage.Bucket) -> report.BestCheckpoint | None:
    """The best checkpoint of the run at `root` so far; None where nothing was judged.

    Raises pydantic.ValidationError for a file that is something else.
    """
    try:
        return report.BestCheckpoint.model_validate_json(bucket.read(names.best_url(root)))
    except storage.NotFound:
        return None


def readable(root: str, bucket: storage.Bucket) -> report.BestCheckpoint | None:
    """As `found`; None also for a file that is something else."""
    try:
        return found(root, bucket)
    except pydantic.ValidationError:
        return None


def offer(root: str, candidate: report.BestCheckpoint, bucket: storage.Bucket) -> bool:
    """Make `candidate` the best unless another one scored as high or higher; returns whether it is now the best.

    Scores of two tasks cannot be compared: a candidate that another task or metric judged than the best one replaces it, so offer only
    the one score that is to decide. A file that cannot be read is replaced too.
    """
    before = readable(root, bucket)
    comparable = before is not None and (before.task, before.metric) == (candidate.task, candidate.metric)
    if comparable and before is not None and before.score >= candidate.score:
        return before.step == candidate.step
    bucket.write(names.best_url(root), candidate.model_dump_json(by_alias=True).encode())
    return True


@contextlib.contextmanager
def nominated(root: str, step: int, bucket: storage.Bucket) -> Iterator[None]:
    """Spare a step from pruning that begins from now on. One that was left by a crash spares its step until it is judged again."""
    url = urls.join(root, "nominees", f"step-{step:08d}.json")
    bucket.write(url, b"{}")
    yield
    bucket.delete([url])


def nominees(root: str, bucket: storage.Bucket) -> set[int]:
    """Steps that somebody is about to name the best."""
    found = (NOMINEE.search(o.url) for o in bucket.list(urls.join(root, "nominees", "")))
    return {int(match[1]) for match in found if match}


@contextlib.contextmanager
def condemned(root: str, steps: Iterable[int], by: str, bucket: storage.Bucket) -> Iterator[None]:
    """Tell that the writer `by` is about to delete these steps."""
    url = urls.join(root, "pruning", f"{by}.json")
    bucket.write(url, json.dumps(sorted(steps)).encode())
    yield
    bucket.delete([url])


def forget(notices: Iterable[str], present: Collection[int], bucket: storage.Bucket) -> None:
    """Delete notices of which no step is present any more: where one is, the writer may only sleep before its delete."""
    for url in notices:
        with contextlib.suppress(storage.NotFound):
            if not {*json.loads(bucket.read(url))} & {*present}:
                bucket.delete([url])


def is_condemned(root: str, step: int, bucket: storage.Bucket) -> bool:
    """Whether somebody is about to delete a step."""
    for notice in bucket.list(urls.join(root, "pruning", "")):
        with contextlib.suppress(storage.NotFound):  # it is done
            if step in json.loads(bucket.read(notice.url)):
                return True
    return False


def withdraw(root: str, candidate: report.BestCheckpoint, before: report.BestCheckpoint | None, bucket: storage.Bucket) -> None:
    """Take an offer back, unless somebody else has won meanwhile: `before` is the best again."""
    if readable(root, bucket) != candidate:
        return
    if before is None:
        bucket.delete([names.best_url(root)])
    else:
        bucket.write(names.best_url(root), before.model_dump_json(by_alias=True).encode())
