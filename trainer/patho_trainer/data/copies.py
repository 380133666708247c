"""Slides that only OpenSlide can read: a local copy of each, in a bounded folder, and open handles. Thread-safe."""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator, Sequence

import numpy as np
import openslide
from numpy.typing import NDArray

from patho_api import names
from patho_trainer.data import catalog, storage, urls

Pixels = NDArray[np.uint8]

LIMIT_BYTES = 50 * 2**30  # of a process; half of the free disk where that is less
OPEN_SLIDES = 256  # handles of a process: the slides of a rank's whole batch; MIRAX and DICOM take several file descriptors each
CACHE_BYTES = 256 * 2**20  # of OpenSlide's tiles, for all handles together (its own default is 32 MiB for each)
SEVERAL_FILES = (".mrxs", ".dcm")
FOLDER_PREFIX = "pathoscale-slides-"


@dataclasses.dataclass
class _Copy:
    """A slide on this machine; `folder` is None for one that lies here anyway, `handle` None while it is closed.

    `users` hold it against eviction.
    """

    path: str
    handle: openslide.OpenSlide | None
    folder: pathlib.Path | None
    size: int
    users: int = 0


class Copies:
    """Local copies, by url and etag; the least recently used go first. One for each process: a rank's slides are its own."""

    def __init__(self, bucket: storage.Bucket, folder: str | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        """`folder` defaults to $PATHO_SCRATCH_DIR or the system's; nothing is written before the first copy is needed."""
        self._bucket = bucket
        self._scratch = pathlib.Path(folder or os.environ.get(names.ENV_SCRATCH_DIR) or tempfile.gettempdir())
        self._limit = limit_bytes
        self._copies: collections.OrderedDict[tuple[str, str], _Copy] = collections.OrderedDict()
        self._opening: dict[tuple[str, str], threading.Lock] = collections.defaultdict(threading.Lock)
        self._coming = 0  # bytes of the copies that are being fetched
        self._lock = threading.Condition()
        self._cache = openslide.OpenSlideCache(CACHE_BYTES)

    @functools.cached_property
    def _folder(self) -> pathlib.Path:
        """A folder of this process; what killed processes left behind is removed."""
        self._scratch.mkdir(parents=True, exist_ok=True)
        _sweep(self._scratch)
        folder = pathlib.Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid()}-", dir=self._scratch))
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return folder

    @functools.cached_property
    def _bytes(self) -> int:
        """What copies may take: less than the limit on a small disk."""
        return min(self._limit, shutil.disk_usage(self._folder).free // 2)

    def read(self, slide: catalog.Slide, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        """A region of a level as uint8 RGB (height, width, 3); (x, y) in pixels of that level; white where the slide has nothing.

        OpenSlide takes level-0 corners: where the downsample is no integer, it interpolates. Raises OpenSlideError.
        """
        scale = slide.levels[level].downsample
        with self.open(slide.url, slide.etag) as handle:
            return region(handle, (round(x * scale), round(y * scale)), level, (width, height))

    @contextlib.contextmanager
    def open(self, url: str, etag: str) -> Iterator[openslide.OpenSlide]:
        """The open slide, fetched first where it is not here.

        Raises OpenSlideError where it is not a slide, NotFound where there is no such object any more.
        """
        copy = self._hold(url, etag)
        try:
            assert copy.handle is not None, "whoever holds a copy holds it open"
            yield copy.handle
        finally:
            self._release(copy)

    def _hold(self, url: str, etag: str) -> _Copy:
        key = (url, etag)
        with self._lock:
            opening = self._opening[key]
        with opening:
            copy = self._taken(key) or self._fetched(key)
            try:
                copy.handle = copy.handle or self._opened(copy.path)
            except openslide.OpenSlideError:
                self._release(copy)
                raise
            with self._lock:
                self._opening.pop(key, None)
        return copy

    def _release(self, copy: _Copy) -> None:
        with self._lock:
            copy.users -= 1

    def _taken(self, key: tuple[str, str]) -> _Copy | None:
        """A copy that is here, in use from this moment on: nobody closes it in between."""
        with self._lock:
            copy = self._copies.get(key)
            if copy:
                copy.users += 1
                self._copies.move_to_end(key)
        return copy

    def _fetched(self, key: tuple[str, str]) -> _Copy:
        """A copy that was not here, in use from the beginning."""
        files = self._files(*key)
        size = sum(file.size for file in files)
        self._make_room(size)
        try:
            copy = self._fetch(key[0], files)
            with self._lock:
                self._copies[key] = copy
        finally:
            with self._lock:
                self._coming -= size
                self._lock.notify_all()
        return copy

    def _files(self, url: str, etag: str) -> list[storage.ObjectInfo]:
        """What there is to fetch: nothing where the slide lies on this machine."""
        if urls.parse(url).scheme == "file":
            return []
        files = companions(self._bucket, url)
        if _whole(url, files).etag != etag:
            raise storage.NotFound(f"{url} has changed since it was indexed: build the index anew")
        return files

    def _fetch(self, url: str, files: Sequence[storage.ObjectInfo]) -> _Copy:
        if not files:
            return self._found("/" + urls.parse(url).path, None, 0)
        start = urls.parent(urls.canonical(url) if has_companions(url) else url)
        folder = pathlib.Path(tempfile.mkdtemp(dir=self._folder))
        try:
            for file in files:
                path = folder / file.url.removeprefix(start)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._bucket.download(file.url, path)
            return self._found(str(folder / urls.name(url)), folder, sum(file.size for file in files))
        except Exception:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _found(self, path: str, folder: pathlib.Path | None, size: int) -> _Copy:
        return _Copy(path, self._opened(path), folder, size, users=1)

    def _opened(self, path: str) -> openslide.OpenSlide:
        handle = openslide.OpenSlide(path)
        handle.set_cache(self._cache)
        return handle

    def _make_room(self, size: int) -> None:
        """Wait until `size` more bytes fit, which count as taken from then on, and close handles that are too many.

        Downloads on their way count as well. What is in use stays, even where that is more than the limit: it is never waited for,
        because its user may be the one that waits here.
        """
        with self._lock:
            while size and self._evict(size) > self._bytes and self._coming:
                self._lock.wait()
            self._coming += size
            open_ = [copy for copy in self._copies.values() if copy.handle]
            for copy in [copy for copy in open_ if not copy.users][: max(0, len(open_) + 1 - OPEN_SLIDES)]:
                _close(copy)  # it stays on the disk: opening it again takes milliseconds, fetching it again minutes

    def _evict(self, size: int) -> int:
        """Remove the least recently used copies that nobody holds, until `size` more bytes fit; how many bytes there will be then."""
        total = sum(copy.size for copy in self._copies.values()) + self._coming + size
        for key, copy in list(self._copies.items()):
            if total > self._bytes and not copy.users:
                total -= copy.size
                _discard(self._copies.pop(key))
        return total


def has_companions(url: str) -> bool:
    """Whether a slide is made of several objects."""
    return url.lower().endswith(SEVERAL_FILES)


def companions(bucket: storage.Bucket, url: str) -> list[storage.ObjectInfo]:
    """The objects a slide is made of: MIRAX has a folder of its name beside it, DICOM is all files of a folder."""
    url = urls.canonical(url) if has_companions(url) else url
    own = bucket.head(url)
    if not has_companions(url):
        return [own]
    if url.lower().endswith(".mrxs"):
        return [own, *bucket.list(url[: -len(".mrxs")] + "/")]
    return [file for file in bucket.list(urls.parent(url)) if file.url.lower().endswith(".dcm")]


def identity(bucket: storage.Bucket, url: str) -> storage.ObjectInfo:
    """A slide's size and etag: of all its objects together, so that a change of any is noticed. Raises NotFound."""
    return _whole(url, companions(bucket, url))


def _whole(url: str, files: Sequence[storage.ObjectInfo]) -> storage.ObjectInfo:
    if not has_companions(url):
        return files[0]
    content = "\n".join(f"{urls.name(file.url)} {file.size} {file.etag}" for file in files)
    return storage.ObjectInfo(url, sum(file.size for file in files), hashlib.blake2b(content.encode(), digest_size=16).hexdigest())


def region(handle: openslide.OpenSlide, xy_level0: tuple[int, int], level: int, size: tuple[int, int]) -> Pixels:
    """uint8 RGB (height, width, 3); OpenSlide's transparency is background, laid on white."""
    rgba = np.asarray(handle.read_region(xy_level0, level, size))
    rgb = np.array(rgba[..., :3])  # a copy, always: of a single pixel, a slice is contiguous already
    rgb[rgba[..., 3] == 0] = 255
    return rgb


def _close(copy: _Copy) -> None:
    if copy.handle:
        copy.handle.close()
        copy.handle = None


def _discard(copy: _Copy) -> None:
    _close(copy)
    if copy.folder:
        shutil.rmtree(copy.folder, ignore_errors=True)


def _sweep(scratch: pathlib.Path) -> None:
    """Remove the folders of processes that are gone (kill -9 leaves them)."""
    for folder in scratch.glob(f"{FOLDER_PREFIX}*"):
        pid = folder.name.removeprefix(FOLDER_PREFIX).split("-")[0]
        if pid.isdigit() and not _lives(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
