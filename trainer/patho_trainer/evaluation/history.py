"""Other evaluations of the same training run, for curves over its checkpoints: results.json files in the folders beside this one."""

import pydantic

from patho_trainer import errors
from patho_trainer.data import storage, urls
from patho_trainer.evaluation import results

MOST = 200  # folders that are looked into, the last by name: a report is no database


def checkpoints(now: results.Results, folder: str, bucket: storage.Bucket) -> list[results.Results]:
    """Evaluations of checkpoints of `now`'s run, `now` among them, by step: same run folder, same protocol, same tasks on the same data.

    Empty for a model that is no checkpoint, or the only one that was evaluated; and, said aloud, where credentials do not reach the other
    folders: curves are not worth the scores.
    """
    if now.model.step is None:
        return []
    address = urls.parse(folder.rstrip("/"))
    try:
        beside = bucket.folders(urls.parent(address.url_of(address.path)))
        found = [_read(urls.join(each, results.FILE), bucket) for each in beside[-MOST:] if each != address.url_of(address.path)]
    except errors.PathoError as error:
        print(f"the report has no curves over checkpoints: {error}", flush=True)
        return []
    others = {r.model.step: r for r in found if r is not None and r.model.step is not None and _belongs(r, now)}
    steps = others | {now.model.step: now}
    return [steps[step] for step in sorted(steps)] if len(steps) > 1 else []


def _read(url: str, bucket: storage.Bucket) -> results.Results | None:
    try:
        return results.Results.model_validate_json(bucket.read(url))
    except (storage.NotFound, pydantic.ValidationError):  # deleted meanwhile, or of another release
        return None


def _belongs(other: results.Results, now: results.Results) -> bool:
    return _identity(other) == _identity(now)


def _identity(r: results.Results) -> object:
    return r.protocol, r.model.run, r.model.pooling, r.model.image_size_px, [(t.task, t.data_version) for t in r.tasks]
