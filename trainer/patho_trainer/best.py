"""The best checkpoint of a run by its evaluations: a small file beside the checkpoints (`names.best_url`).

An evaluation's pod offers the checkpoint that it judged; the trainer spares the one that won when it prunes. The operator, which has no
credentials of the bucket, learns the scores from the evaluation's last words.
"""

import pydantic

from patho_api import names, report
from patho_trainer.data import storage


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


def withdraw(root: str, candidate: report.BestCheckpoint, before: report.BestCheckpoint | None, bucket: storage.Bucket) -> None:
    """Take an offer back, unless somebody else has won meanwhile: `before` is the best again."""
    if readable(root, bucket) != candidate:
        return
    if before is None:
        bucket.delete([names.best_url(root)])
    else:
        bucket.write(names.best_url(root), before.model_dump_json(by_alias=True).encode())
