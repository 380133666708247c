"""Arrays of HDF5 files in a bucket, read where they lie: an open costs a few small requests, rows cost their bytes."""

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from patho_trainer import errors
from patho_trainer.data import ranged, storage


def shape(info: storage.ObjectInfo, key: str, bucket: storage.Bucket) -> tuple[int, ...]:
    """Shape of the array `key`. Raises DataNotFound for a damaged file, InvalidConfiguration where the array is not there."""
    with _array(info, key, bucket) as found:
        return tuple(found.shape)


def array(info: storage.ObjectInfo, key: str, bucket: storage.Bucket) -> NDArray[Any]:
    """The whole array `key`. Raises as `shape`."""
    with _array(info, key, bucket) as found:
        return np.asarray(found[...])


def rows(info: storage.ObjectInfo, key: str, first: int, stop: int, bucket: storage.Bucket) -> NDArray[Any]:
    """Rows [first, stop) of the array `key`. Raises as `shape`."""
    with _array(info, key, bucket) as found:
        return np.asarray(found[first:stop])


@contextlib.contextmanager
def _array(info: storage.ObjectInfo, key: str, bucket: storage.Bucket) -> Iterator[Any]:
    """The file is open as long as one read lasts: what it keeps of the object is dropped with it."""
    import h5py  # only PatchCamelyon needs it

    try:
        with h5py.File(ranged.RangedFile(bucket, info.url, info.size), "r") as file:
            if key not in file:
                raise errors.InvalidConfiguration(f"{info.url} has no array {key!r}, only {', '.join(file) or 'nothing'}")
            yield file[key]
    except OSError as broken:  # h5py's word for damaged files
        raise errors.DataNotFound(f"{info.url} is not a readable HDF5 file ({broken}): replace it") from broken
