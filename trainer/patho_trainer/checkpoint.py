"""Checkpoints in a bucket: complete or not there.

    step-00000020/state-000001-000003/                     the folder of writer 000001-000003
    step-00000020/state-000001-000003/*.distcp, .metadata  training state in torch.distributed.checkpoint's format
    step-00000020/state-000001-000003/teacher.safetensors  the teacher's backbone under timm's names
    step-00000020/state-000001-000003/config.json          architecture, normalisation, and all that the weights came from
    step-00000020/COMPLETE.json                            names the writer; written last, and only where there is none
    best.json, nominees/, pruning/                         the best one by its evaluations, and how it is not deleted (`best`)

A checkpoint without its marker does not exist. A folder carries its writer's name, so that a process that was replaced (`fencing`)
cannot spoil what its successor writes. `saving` writes all this.
"""

import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Collection, Iterable
from typing import Any

import pydantic
import torch
from torch.distributed.checkpoint import api, filesystem, state_dict_loader

from patho_api import names, status
from patho_trainer import best, distributed, errors, fencing
from patho_trainer.data import storage, urls
from patho_trainer.models import init, vit

MARKER = "COMPLETE.json"
TEACHER = "teacher.safetensors"
CONFIG = "config.json"
WEIGHT_FILES = (".safetensors", ".pth", ".pt", ".bin")
FOLDER = re.compile(r"step-(\d{8})/")
State = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a process keeps its checkpoints, by what right it writes there, and a folder of this machine for files on their way."""

    root: str
    bucket: storage.Bucket
    claim: fencing.Claim
    scratch: pathlib.Path


def complete(root: str, bucket: storage.Bucket) -> list[status.CheckpointRef]:
    """The complete checkpoints of a run, oldest first."""
    markers = [o.url for o in bucket.list(urls.join(root, "")) if o.url.endswith("/" + MARKER)]
    steps = sorted(step for url in markers if (step := _step(root, url)) is not None)
    return [status.CheckpointRef(step=step, url=names.checkpoint_url(root, step)) for step in steps]


def latest(root: str, bucket: storage.Bucket) -> status.CheckpointRef | None:
    """The newest complete checkpoint of a run, with the time of its completion."""
    found = complete(root, bucket)
    return found[-1].model_copy(update={"time": marker(found[-1].url, bucket)["time"]}) if found else None


def config(url: str, bucket: storage.Bucket) -> dict[str, Any]:
    """The `config.json` of a checkpoint."""
    found: dict[str, Any] = json.loads(bucket.read(urls.join(home(url, bucket), CONFIG)))
    return found


def home(url: str, bucket: storage.Bucket) -> str:
    """The folder of the complete checkpoint at `url` where its files lie."""
    return urls.join(url, marker(url, bucket)["state"])


def resolve(url: str, bucket: storage.Bucket) -> str:
    """The folder of the checkpoint at `url`, or of the newest one of the run at `url`. Raises DataNotFound where there is none."""
    if bucket.exists(urls.join(url, MARKER)):
        return url
    newest = latest(url, bucket)
    if newest is None:
        raise errors.DataNotFound(f"{url} holds no complete checkpoint (no {MARKER}): give a step's folder, or wait for the first one")
    return newest.url


def load_backbone(url: str, bucket: storage.Bucket, architecture: str = "") -> tuple[vit.Backbone, dict[str, Any]]:
    """A backbone and its config.json from the checkpoint at `url`, the newest one of the run at `url`, or a file of weights.

    A file says nothing about itself: it needs `architecture`, and its config is empty. Nothing in a file is executed. Raises
    DataNotFound where there is no complete checkpoint, InvalidConfiguration for weights that do not fit.
    """
    if url.endswith(WEIGHT_FILES):
        if not architecture:
            raise errors.InvalidConfiguration(f"{url} is a file of weights: set model.architecture to its timm name")
        backbone = vit.create(architecture)
        init.load(backbone, bucket.read(url), url)
        return backbone, {}
    url = resolve(url, bucket)
    facts = config(url, bucket)
    backbone = vit.create(facts["architecture"], img_size_px=facts["imageSizePx"])
    weights = urls.join(home(url, bucket), TEACHER)
    init.load(backbone, bucket.read(weights), weights)
    return backbone, facts


def load(place: Place, world: distributed.World, url: str, state: State) -> None:
    """Fill the tensors of `state` in place from the checkpoint at `url`; all processes call it, in a world of any size.

    Raises PathoError for a checkpoint that cannot be read or does not fit.
    """
    _empty(place.scratch, world)
    if world.local_rank == 0:
        _download(place, url)
    distributed.barrier()
    try:
        state_dict_loader.load(state, storage_reader=filesystem.FileSystemReader(place.scratch))
    except api.CheckpointException as error:  # torch's, and no Exception
        raise errors.PathoError(f"{url} could not be loaded: {reasons(error)}") from error
    _empty(place.scratch, world)


def reasons(error: api.CheckpointException) -> str:
    """What went wrong, rank by rank, without the traces."""
    return "; ".join(f"rank {rank}: {failure[0]}" for rank, failure in sorted(error.failures.items()))


def prune(place: Place, keep: int) -> list[str]:
    """Delete all but the newest `keep` complete checkpoints and the best one, and what cut-off saves left before them. Returns the
    deleted urls.

    Markers go first, so that no checkpoint is ever half there; and before them a word of what will go, so that no evaluation names one of
    these the best at this moment (`best`). Where the best one cannot be known, nothing is deleted. A word that a killed writer has left
    goes with the last of its steps.
    """
    root, bucket = place.root, place.bucket
    spared = _spared(root, bucket)
    if spared is None:
        return []
    objects = [o.url for o in bucket.list(urls.join(root, ""))]
    doomed = superfluous(root, objects, keep, spared)
    going = _delete(place, doomed) if doomed else []
    notices = {url: match[1] for url in objects if (match := best.NOTICE.match(_inside(root, url)))}
    older = [url for url, writer in notices.items() if writer < place.claim.name]
    best.forget(older, {step for url in {*objects} - {*going} if (step := _step(root, url)) is not None}, bucket)
    return going


def _delete(place: Place, doomed: Collection[str]) -> list[str]:
    """Say what will go, look whether somebody has named a step of it meanwhile, and delete the rest: this is returned."""
    root, bucket = place.root, place.bucket
    with best.condemned(root, {step for url in doomed if (step := _step(root, url)) is not None}, place.claim.name, bucket):
        late = _spared(root, bucket)
        going = [url for url in doomed if late is not None and _step(root, url) not in late]
        bucket.delete(sorted(going, key=lambda url: not url.endswith("/" + MARKER)))
    return going


def _spared(root: str, bucket: storage.Bucket) -> set[int] | None:
    """Steps that must stay; None where nobody can know. A nominee becomes the best before it stops being a nominee: in this order none is
    missed."""
    nominees = best.nominees(root, bucket)
    try:
        judged = best.found(root, bucket)
    except pydantic.ValidationError as error:
        print(f"{names.best_url(root)} cannot be read, so no checkpoint is deleted: delete that file ({error})", flush=True)
        return None
    return nominees | ({judged.step} if judged else set())


def superfluous(root: str, objects: Iterable[str], keep: int, spared: Collection[int] = ()) -> list[str]:
    """Which objects of a folder of checkpoints `prune` deletes: never one of the newest complete checkpoint or of a step in `spared`,
    never anything later."""
    by_step = [(step, url) for url in objects if (step := _step(root, url)) is not None]
    steps = sorted({step for step, url in by_step if url.endswith("/" + MARKER)})
    kept = {*steps[-keep:], *spared}
    return [url for step, url in by_step if steps and step < steps[-1] and step not in kept]


def _step(root: str, url: str) -> int | None:
    """The step whose folder in `root` an object lies in; None for anything else, such as the checkpoints of a run in a folder below."""
    match = FOLDER.match(_inside(root, url))
    return int(match[1]) if match else None


def _inside(root: str, url: str) -> str:
    """The path of an object below `root`."""
    address = urls.parse(root)
    return url.removeprefix(address.url_of(f"{address.path.rstrip('/')}/".lstrip("/")))


def optimizer_state(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> State:
    """AdamW's state by parameter name, as tensors that a load fills in place.

    Parameters that had no gradient yet get their state now: no step and zero moments, which is what AdamW would give them later.
    """
    state: State = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            entry = optimizer.state[parameter]
            if not entry:
                entry |= {"step": torch.zeros(()), "exp_avg": torch.zeros_like(parameter), "exp_avg_sq": torch.zeros_like(parameter)}
            state[name] = dict(entry)
    return state


def state_name(place: Place) -> str:
    """Folder of a writer inside a checkpoint."""
    return f"state-{place.claim.name}"


def marker(url: str, bucket: storage.Bucket) -> dict[str, Any]:
    """The marker of a complete checkpoint: `step`, `time`, `state` (its writer's folder), `files` (sizes in bytes by name there)."""
    found: dict[str, Any] = json.loads(bucket.read(urls.join(url, MARKER)))
    return found


def _download(place: Place, url: str) -> None:
    done = marker(url, place.bucket)
    for name, size in done["files"].items():
        source, file = urls.join(url, done["state"], name), place.scratch / name
        place.bucket.download(source, file)
        if file.stat().st_size != size:
            raise errors.DataNotFound(f"{source} has {file.stat().st_size} bytes instead of {size}: it was changed; delete {url}")


def _empty(scratch: pathlib.Path, world: distributed.World) -> None:
    """An empty folder for the processes of this node, once none of them needs what was in it."""
    distributed.barrier()
    if world.local_rank == 0:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
    distributed.barrier()
