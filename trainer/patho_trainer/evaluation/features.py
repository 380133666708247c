"""Frozen features of a data set, computed once by all processes and kept in the bucket in parts.

    <folder>/<key>/part-00003-of-00041.npz

Part k is the work of rank k modulo the number of ranks; a part that is there already is not computed again, so that a run that was
killed, or another one of the same model, goes on from what there is. The key is made of the weights, the preprocessing and the version of
the data: a change of any of them, and nothing else, makes new features.
"""

# N samples

import contextlib
import dataclasses
import hashlib
import io
import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import IO, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from patho_trainer import distributed, errors
from patho_trainer.data import storage, urls
from patho_trainer.evaluation import encoder as encoders

PARTS = 64  # of a small data set, so that many processes have something to do
PART_UNITS = (8, 512)  # smallest and largest: what a kill can cost a process
FEATURES = "features"
Arrays = Mapping[str, NDArray[Any]]


class Source(Protocol):
    """Where features come from (see `sources`)."""

    @property
    def task(self) -> str:
        """Label of the task."""

    @property
    def units(self) -> int:
        """How many parts are cut from: images, or steps of a stream."""

    @property
    def images_a_unit(self) -> int:
        """Patches that a unit stands for, about: for the progress."""

    def facts(self) -> Any:
        """Version of the data and the preprocessing, as JSON."""

    def embed(self, first: int, stop: int, encoder: encoders.Encoder, device: torch.device) -> Arrays:
        """Arrays of the units [first, stop), `features` among them; the first axis of all of them is the same."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where the features of a source and a model are kept."""

    bucket: storage.Bucket
    url: str
    starts: tuple[int, ...]
    """First unit of each part, and the end of the last."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Addresses of the parts."""
        count = len(self.starts) - 1
        return tuple(urls.join(self.url, f"part-{i:05d}-of-{count:05d}.npz") for i in range(count))


def place(source: Source, encoder: encoders.Encoder, folder: str, bucket: storage.Bucket) -> Place:
    """Where the features of all units are, or will be."""
    least, most = PART_UNITS
    size = min(most, max(least, -(-source.units // PARTS)))
    return Place(bucket, urls.join(folder, key(source, encoder)), (*range(0, source.units, size), source.units))


def key(source: Source, encoder: encoders.Encoder) -> str:
    """Name of the cached features; labels and splits of images are no part of it."""
    parts = [encoder.architecture, encoder.digest, encoder.normalization.dump(), encoder.pooling, source.facts()]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def compute(
    source: Source, encoder: encoders.Encoder, where: Place, world: distributed.World, progress: Callable[[int], None] = lambda _: None
) -> None:
    """Make this rank's parts that are not there yet. `progress` gets the units done by all ranks, about.

    Raises DataNotFound for unreadable data, Diverged for features that are not finite.
    """
    there = {info.url for info in where.bucket.list(where.url)}
    for i, (url, (first, stop)) in enumerate(zip(where.parts, itertools.pairwise(where.starts), strict=True)):
        if i % world.size == world.rank and url not in there:
            arrays = source.embed(first, stop, encoder, world.device)
            _check_finite(arrays[FEATURES], encoder, source)
            where.bucket.write(url, _npz(arrays))
        progress(stop)


def load(where: Place) -> dict[str, NDArray[Any]]:
    """The arrays of all units, part after part, in files that are mapped to memory and gone with the arrays: they may be larger than it.
    Raises NotFound unless every part is there."""
    with contextlib.ExitStack() as stack:
        files: dict[str, IO[bytes]] = {}
        for part in _parts(where):
            for name, array in part.items():
                if name not in files:
                    files[name] = stack.enter_context(tempfile.TemporaryFile())
                files[name].write(np.ascontiguousarray(array).data)
        return {name: _mapped(file, part[name]) for name, file in files.items()}


def _mapped(file: IO[bytes], like: NDArray[Any]) -> NDArray[Any]:
    """All rows that were written to a file, each like those of an array."""
    file.flush()
    return np.memmap(file, dtype=like.dtype, mode="r+").reshape(-1, *like.shape[1:])


def _parts(where: Place) -> Iterator[Arrays]:
    for url in where.parts:
        with np.load(io.BytesIO(where.bucket.read(url))) as found:
            yield dict(found)


def _check_finite(features_N: NDArray[Any], encoder: encoders.Encoder, source: Source) -> None:
    if not np.isfinite(features_N).all():
        raise errors.Diverged(f"task {source.task}: features of {encoder.source} are not finite: evaluate an earlier checkpoint")


def _npz(arrays: Arrays) -> bytes:
    data = io.BytesIO()
    np.savez(data, **arrays)  # type: ignore[arg-type]  # numpy's stubs take the arrays for its only option
    return data.getvalue()
