"""Saving beside training: the loop copies its state and goes on, a thread of every process writes the copy to the bucket.

saver.begin(step, state, facts)    # copies, and returns; first waits for a save that still runs
saver.ended                        # whether this process's thread is done
saver.collect()                    # waits; the checkpoint, or what went wrong, the same in all processes
"""

import concurrent.futures
import json
import pathlib
import shutil
import time
from typing import Any

import safetensors.torch
import torch
from torch.distributed import tensor as dtensors
from torch.distributed.checkpoint import api, filesystem, state_dict_saver

from patho_api import names, status
from patho_trainer import checkpoint, distributed, errors, fencing, progress
from patho_trainer.data import storage, urls

EXPORTED = "teacher.backbone."  # the tensors of a state's `method` that others load


class SaveFailed(errors.PathoError):
    """A checkpoint could not be written; the one before is untouched, and trying again may help."""

    reason = "CheckpointFailed"


class Saver:
    """Saves of one process, one at a time; all processes call the same methods in the same order."""

    def __init__(self, place: checkpoint.Place, world: distributed.World, keep: int) -> None:
        self._place, self._world, self._keep = place, world, keep
        self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="save")
        self._running: concurrent.futures.Future[status.CheckpointRef] | None = None
        self._copy: checkpoint.State = {}

    @property
    def runs(self) -> bool:
        """Whether a save was begun that nobody has collected."""
        return self._running is not None

    @property
    def ended(self) -> bool:
        """Whether a save waits to be collected, as far as this process knows."""
        return self._running is not None and self._running.done()

    def begin(self, step: int, state: checkpoint.State, facts: dict[str, Any]) -> None:
        """Begin to write a checkpoint of `state`, nested dicts of tensors (sharded ones too); `facts` becomes its config.json."""
        assert self._running is None, "collect the save before"
        copy_into(self._copy, state)
        self._running = self._thread.submit(write, self._place, self._world, step, self._copy, facts, self._keep)

    def collect(self) -> status.CheckpointRef:
        """Wait for the save. Raises Superseded when a newer process writes here, SaveFailed and what the bucket raises."""
        assert self._running is not None, "nothing was begun"
        running, self._running = self._running, None
        return running.result()

    def close(self) -> None:
        """Wait for a save that still runs, whatever becomes of it."""
        self._thread.shutdown()


def copy_into(copy: checkpoint.State, state: checkpoint.State) -> None:
    """Make `copy` equal to `state`, on the CPU. Its memory is used again: page-locked where the state is on a GPU."""
    for name, value in state.items():
        if isinstance(value, dict):
            copy_into(copy.setdefault(name, {}), value)
        else:
            copy.setdefault(name, _room_for(value))
            distributed.local(copy[name]).copy_(distributed.local(value), non_blocking=True)
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()


def _room_for(value: torch.Tensor) -> torch.Tensor:
    mine = distributed.local(value)
    room = torch.empty_like(mine, device="cpu", pin_memory=mine.is_cuda, requires_grad=False)
    # `from_local` would move the shard to the mesh's device
    return dtensors.DTensor(room, value._spec, requires_grad=False) if isinstance(value, dtensors.DTensor) else room


def write(
    place: checkpoint.Place, world: distributed.World, step: int, state: checkpoint.State, facts: dict[str, Any], keep: int
) -> status.CheckpointRef:
    """Write a checkpoint and delete what is no longer kept; all processes call it.

    A checkpoint of this step that is already complete stays as it is.
    """
    url = names.checkpoint_url(place.root, step)
    if distributed.on_first(world, lambda: _may_write(place, url), world.saving):
        home = urls.join(url, checkpoint.state_name(place))
        files = _write_state(place, world, home, state)
        weights = _exported(state["method"], world)
        distributed.on_first(world, lambda: _finish(place, url, step, files, weights, facts), world.saving)
    done = distributed.on_first(world, lambda: checkpoint.marker(url, place.bucket), world.saving)
    distributed.on_first(world, lambda: checkpoint.prune(place, keep), world.saving)
    return status.CheckpointRef(step=step, url=url, time=done["time"])


def _may_write(place: checkpoint.Place, url: str) -> bool:
    fencing.check(place.root, place.claim, place.bucket)
    return not place.bucket.exists(urls.join(url, checkpoint.MARKER))


def _write_state(place: checkpoint.Place, world: distributed.World, home: str, state: checkpoint.State) -> dict[str, int]:
    """Write every process's share to its disk, then to the bucket. Returns the sizes of all files by name."""
    folder = place.scratch / f"save-{world.rank}"
    shutil.rmtree(folder, ignore_errors=True)
    writer = filesystem.FileSystemWriter(folder, sync_files=False)
    try:
        state_dict_saver.save(state, storage_writer=writer, process_group=world.saving)
    except api.CheckpointException as error:
        raise SaveFailed(f"the state could not be written to {place.scratch}: {checkpoint.reasons(error)}") from error
    sizes = distributed.on_all(lambda: _upload(folder, home, place.bucket), world.saving)
    shutil.rmtree(folder)
    return {name: size for part in sizes for name, size in part.items()}


def _upload(folder: pathlib.Path, home: str, bucket: storage.Bucket) -> dict[str, int]:
    files = sorted(folder.iterdir())
    for file in files:
        bucket.upload(file, urls.join(home, file.name))
    return {file.name: file.stat().st_size for file in files}


def _exported(state: checkpoint.State, world: distributed.World) -> dict[str, torch.Tensor]:
    """The teacher's backbone under timm's names, whole, on rank 0; empty on the others."""
    found = {}
    for name, value in state.items():
        if name.startswith(EXPORTED):
            whole = distributed.whole_on_first(value, world)
            if world.is_first:
                found[name.removeprefix(EXPORTED)] = whole
    return found


def _finish(
    place: checkpoint.Place, url: str, step: int, files: dict[str, int], weights: dict[str, torch.Tensor], facts: dict[str, Any]
) -> None:
    """All but the marker lies in a folder of this writer's own, so that an older one cannot change what a newer one completed."""
    home = urls.join(url, checkpoint.state_name(place))
    place.scratch.mkdir(parents=True, exist_ok=True)
    teacher = place.scratch / checkpoint.TEACHER
    safetensors.torch.save_file(weights, teacher, metadata={"format": "pt"})
    place.bucket.upload(teacher, urls.join(home, checkpoint.TEACHER))
    teacher.unlink()
    place.bucket.write(urls.join(home, checkpoint.CONFIG), json.dumps(facts, indent=1).encode())
    fencing.check(place.root, place.claim, place.bucket)
    done = {"step": step, "time": progress.timestamp(time.time()), "state": checkpoint.state_name(place), "files": files}
    try:
        place.bucket.write(urls.join(url, checkpoint.MARKER), json.dumps(done, indent=1).encode(), if_absent=True)
    except storage.AlreadyExists as error:
        # a write that was retried after a lost answer finds its own marker
        if checkpoint.marker(url, place.bucket)["state"] != checkpoint.state_name(place):
            raise fencing.Superseded(f"another process has completed {url} meanwhile: this one stops") from error
