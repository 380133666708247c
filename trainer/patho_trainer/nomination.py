"""The last act of an evaluation that a run's `spec.evaluations` made: offer the checkpoint as the run's best."""

import datetime
import re

from patho_api import report
from patho_trainer import best, checkpoint, errors
from patho_trainer.data import storage, urls

CHECKPOINT = re.compile(r"(?P<root>.+)/step-(?P<step>\d{8})")


def nominate(words: report.LastWords, url: str, by: str, bucket: storage.Bucket) -> bool:
    """Offer the checkpoint at `url` with its score at the task `by`; whether it is now the best of its run.

    Does nothing without a task, and for a checkpoint that was pruned meanwhile. A bucket that refuses costs the protection from
    pruning and not the scores: it is said, and no error.
    """
    match = CHECKPOINT.fullmatch(url.rstrip("/"))
    score = next((result for result in words.results if result.task == by), None)
    if not by or match is None or score is None:
        return False
    time = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    candidate = report.BestCheckpoint(step=int(match["step"]), task=by, metric=score.metric, score=score.mean, time=time)
    try:
        return offer(match["root"], url, candidate, bucket)
    except errors.PathoError as error:
        print(f"{url} cannot be kept as the best checkpoint: {error}", flush=True)
        return False


def offer(root: str, url: str, candidate: report.BestCheckpoint, bucket: storage.Bucket) -> bool:
    """Offer a checkpoint that the trainer may prune at this very moment; whether it is now the best.

    It is named only once it is spared (`best`). Who cleans up without a word, such as an older release, is noticed afterwards.
    """
    marker = urls.join(url, checkpoint.MARKER)
    before, won = best.readable(root, bucket), False
    with best.nominated(root, candidate.step, bucket):
        is_there = not best.is_condemned(root, candidate.step, bucket) and bucket.exists(marker)
        if is_there:
            won = best.offer(root, candidate, bucket)
            is_there = bucket.exists(marker)
    if is_there:
        return won
    if won:
        best.withdraw(root, candidate, before, bucket)
    print(f"{url} was pruned while it was evaluated: raise checkpoints.keep to let it be the best one", flush=True)
    return False
