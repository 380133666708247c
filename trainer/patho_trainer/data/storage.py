"""Bytes from and to buckets: retries, counters, plain errors. The native core fetches the ranges that it can, where it is installed
(`fetching`); everything else, and what did not come, is obstore's or fsspec's (`stores`)."""

import asyncio
import collections
import concurrent.futures
import contextlib
import dataclasses
import itertools
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import obstore

from patho_api import common
from patho_trainer import errors
from patho_trainer.data import faults, fetching, pace, ranges, stores, urls

# the names under which other modules catch them
NotFound, AccessDenied, AlreadyExists, Transient = faults.NotFound, faults.AccessDenied, faults.AlreadyExists, faults.Transient

T = TypeVar("T")
Buffer = ranges.Buffer
TRIES = 3  # each with the transport's own retries inside
TRANSPORT_ERRORS = (obstore.exceptions.BaseError, OSError, Transient)


@dataclasses.dataclass(frozen=True)
class ObjectInfo:
    """An object: size in bytes; `etag` changes when the content does (entity tag without quotes)."""

    url: str
    size: int
    etag: str


class Bucket:
    """Reads and writes objects by url; one of these serves any number of buckets that share credentials. Thread-safe.

    Every method raises NotFound, AccessDenied, InvalidConfiguration or, after retries with backoff, Transient.
    `requests` counts (scheme, outcome) with outcome ok, retried or failed; `received` counts bytes by scheme.
    """

    def __init__(
        self, storage: common.Storage | None = None, secret_dir: str | None = None, options: Mapping[str, str] | None = None
    ) -> None:
        """`secret_dir` defaults to $PATHO_STORAGE_SECRET_DIR; `options` are further options of obstore's, credentials included."""
        self._storage = storage or common.Storage()
        self._secret_dir = secret_dir
        self._options = dict(options or {})
        self._pace = pace.Pace(stores.requests_per_second(self._storage))
        self._stores: dict[tuple[str, str], Any] = {}
        self._secrets: dict[tuple[str, str], bytes] = {}  # states of the mounted secret when a store was opened
        self._proven: set[str] = set()
        self._fetchers = fetching.Fetchers()
        self._lock = threading.Lock()
        self.requests: collections.Counter[tuple[str, str]] = collections.Counter()
        self.received: collections.Counter[str] = collections.Counter()

    @property
    def settings(self) -> tuple[common.Storage, str | None, dict[str, str]]:
        """Arguments of another bucket like this one, in another process; the options may be credentials."""
        return self._storage, self._secret_dir, self._options

    def read(self, url: str) -> bytes:
        """All bytes of an object."""
        data = bytes(self._call(url, lambda store, path: store.get(path).bytes()))
        with self._lock:
            self.received[urls.parse(url).scheme] += len(data)
        return data

    def read_ranges(self, url: str, starts: Sequence[int], sizes: Sequence[int]) -> list[Buffer]:
        """`sizes[i]` bytes from `starts[i]`, for all i at once; ranges that touch become one request. A size of 0 gives no bytes."""
        wanted = ranges.ranges(url, starts, sizes)
        found: list[Buffer] = []
        if wanted.starts:
            get = lambda store, path: wanted.checked(store.get_ranges(path, **wanted.arguments))  # noqa: E731
            found = self._call(url, get, wanted.requests)
        return self._received(wanted, found, len(sizes))

    async def read_checked_async(self, url: str, starts: Sequence[int], sizes: Sequence[int]) -> tuple[ObjectInfo, list[Buffer]]:
        """As `read_ranges`, as a coroutine and with the facts of the object: out of the ranges' answers, without a request of their own.

        Not atomic: an object that is replaced meanwhile may give bytes of both. One range at least must not be empty.
        """
        found = await self._by_core(url, starts, sizes) or await self._by_obstore(url, starts, sizes)
        with self._lock:
            self.received[urls.parse(url).scheme] += sum(sizes)
        return found

    async def _by_core(self, url: str, starts: Sequence[int], sizes: Sequence[int]) -> tuple[ObjectInfo, list[Buffer]] | None:
        """By the native core, and what did not come by obstore, which tries again; None where all of it has to be."""
        address = urls.parse(url)
        arguments = lambda: stores.core_arguments(address, self._storage, self._secret_dir, self._options)  # noqa: E731
        fetcher = self._fetchers.of((address.scheme, address.root), self._store(address), arguments)
        if fetcher is None:
            return None
        if self._pace:
            await self._paced(ranges.ranges(url, starts, sizes).requests)
        meta, requests, failed, buffers = await fetcher.fetch(address.path, starts, sizes)
        self._succeed(address, requests - failed, retried=failed)
        if 2 * failed > requests:
            await asyncio.sleep(pace.pause_seconds(0))  # a server that has too much to do is not asked twice in a row
        if meta is None:
            return None
        info = ObjectInfo(url, meta["size"], stores.etag(meta))
        missing = [k for k, buffer in enumerate(buffers) if buffer is None and sizes[k]]
        if missing:
            other, rest = await self._by_obstore(url, [starts[k] for k in missing], [sizes[k] for k in missing])
            if other != info:
                return None
            for k, buffer in zip(missing, rest, strict=True):
                buffers[k] = buffer
        return info, [memoryview(b"") if buffer is None else buffer for buffer in buffers]

    async def _by_obstore(self, url: str, starts: Sequence[int], sizes: Sequence[int]) -> tuple[ObjectInfo, list[Buffer]]:
        """By obstore, which tries again."""
        wanted = ranges.ranges(url, starts, sizes)
        first, rest = wanted.split()

        async def get(store: Any, path: str) -> tuple[ObjectInfo, list[Buffer]]:
            answer = asyncio.ensure_future(store.get_async(path, options={"range": first.stretches[0][1:]}))
            others = asyncio.ensure_future(store.get_ranges_async(path, **rest.arguments)) if rest.starts else None
            try:
                found = await answer
                head = first.cut([await found.bytes_async()])
                tail = rest.checked(await others) if others else []
            except BaseException:
                await _end(answer, others)
                raise
            return ObjectInfo(url, found.meta["size"], stores.etag(found.meta)), [*head, *tail]

        info, buffers = await self._call_async(url, get, wanted.requests)
        return info, ranges.placed(wanted, buffers, len(sizes))

    def _received(self, wanted: ranges.Ranges, found: Sequence[Buffer], count: int) -> list[Buffer]:
        with self._lock:
            self.received[urls.parse(wanted.url).scheme] += sum(wanted.sizes)
        return ranges.placed(wanted, found, count)

    async def head_async(self, url: str) -> ObjectInfo:
        """As `head`, as a coroutine."""
        meta = await self._call_async(url, lambda store, path: store.head_async(path), 1)
        return ObjectInfo(url, meta["size"], stores.etag(meta))

    def head(self, url: str) -> ObjectInfo:
        """Size and etag of an object."""
        meta = self._call(url, lambda store, path: store.head(path))
        return ObjectInfo(url, meta["size"], stores.etag(meta))

    def exists(self, url: str) -> bool:
        """Whether there is such an object."""
        try:
            self.head(url)
        except NotFound:
            return False
        return True

    def list(self, prefix_url: str, at_most: int | None = None) -> Sequence[ObjectInfo]:
        """All objects under a folder, or the first `at_most`; recursively, sorted by url. A folder that does not exist is empty."""
        address = urls.parse(prefix_url)
        if address.scheme in urls.WEB:
            raise errors.InvalidConfiguration(f"{prefix_url}: a web server cannot be listed: give a manifest with the slides' urls")

        def metas(store: Any, path: str) -> Sequence[Any]:
            return tuple(itertools.islice(itertools.chain.from_iterable(store.list(path.rstrip("/") or None)), at_most))

        found = (ObjectInfo(address.url_of(meta["path"]), meta["size"], stores.etag(meta)) for meta in self._call(prefix_url, metas))
        return sorted(found, key=lambda o: o.url)

    def folders(self, url: str) -> Sequence[str]:
        """Urls of the folders directly in a folder, sorted; where the store can, without a listing of what is in them."""
        address = urls.parse(url)
        return sorted(map(address.url_of, self._call(url, lambda store, path: stores.folders(store, path.rstrip("/")))))

    def glob(self, pattern: str) -> Sequence[ObjectInfo]:
        """Objects whose url matches; `*` stays inside a folder, `**/` crosses folders."""
        address = urls.parse(pattern)
        whole = address.url_of(address.path)
        regex = urls.glob_regex(whole)
        return [found for found in self.list(urls.glob_folder(whole)) if regex.fullmatch(found.url)]

    def check(self, url: str) -> None:
        """Reach the bucket of `url` once, in seconds. Raises InvalidConfiguration (wrong bucket, wrong or missing credentials)."""
        if urls.parse(url).scheme not in (*urls.WEB, "file"):
            self._call(url, lambda store, path: next(iter(store.list(path.rpartition("/")[0] or None, chunk_size=1)), None))

    def download(self, url: str, path: str | os.PathLike[str]) -> None:
        """Copy an object to a file, in parallel chunks; the file appears whole or not at all."""
        size = self.head(url).size
        partial = f"{os.fspath(path)}.{os.getpid()}.{threading.get_ident()}.partial"
        with open(partial, "wb") as file, concurrent.futures.ThreadPoolExecutor(4) as pool:
            for chunks in ranges.chunks(size):
                file.writelines(pool.map(lambda chunk: self.read_ranges(url, [chunk[0]], [chunk[1]])[0], chunks))
        os.replace(partial, path)

    def write(self, url: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write an object. `if_absent`: only where there is none; raises AlreadyExists otherwise."""
        mode: Any = {"mode": "create", "use_multipart": False} if if_absent else {}
        self._call(url, lambda store, path: store.put(path, data, **mode))

    def upload(self, path: str | os.PathLike[str], url: str) -> None:
        """Copy a file to an object, in parts."""

        def put(store: Any, target: str) -> None:
            with open(path, "rb") as file:
                store.put(target, file)

        self._call(url, put)

    def delete(self, targets: Iterable[str]) -> None:
        """Delete objects; one that does not exist is no error."""
        for url in targets:
            with contextlib.suppress(NotFound):
                self._call(url, lambda store, path: store.delete(path))

    def _store(self, address: urls.Address) -> Any:
        key = (address.scheme, address.root)
        with self._lock:
            if key not in self._stores:
                self._secrets[key] = stores.secret_state(address.scheme, self._storage, self._secret_dir)
                self._stores[key] = stores.open_store(address, self._storage, self._secret_dir, self._options)
            return self._stores[key]

    def _call(self, url: str, operation: Callable[[Any, str], T], requests: int = 1) -> T:
        """Do something with the store and the path of a url, again where that may help."""
        address = urls.parse(url)
        for attempt in range(1, TRIES + 1):
            time.sleep(self._pace.wait_seconds(requests, time.monotonic()))
            store = self._store(address)
            try:
                result = operation(store, address.path)
            except TRANSPORT_ERRORS as error:
                self._fail(url, error, store, last=attempt == TRIES)
                time.sleep(pace.pause_seconds(attempt))
            else:
                self._succeed(address, requests)
                return result
        raise AssertionError("the last attempt returns or raises")

    async def _call_async(self, url: str, operation: Callable[[Any, str], Awaitable[T]], requests: int) -> T:
        address = urls.parse(url)
        for attempt in range(1, TRIES + 1):
            await self._paced(requests)
            store = self._store(address)
            try:
                result = await operation(store, address.path)
            except TRANSPORT_ERRORS as error:
                self._fail(url, error, store, last=attempt == TRIES)
                await asyncio.sleep(pace.pause_seconds(attempt))
            else:
                self._succeed(address, requests)
                return result
        raise AssertionError("the last attempt returns or raises")

    async def _paced(self, requests: int) -> None:
        if wait := self._pace.wait_seconds(requests, time.monotonic()):
            await asyncio.sleep(wait)

    def _fail(self, url: str, error: Exception, store: Any, *, last: bool) -> None:
        """Count a failure of a store; raise unless another attempt may help."""
        address = urls.parse(url)
        fault = error if isinstance(error, Transient) else faults.explain(error, url, proven=address.base in self._proven)
        again = isinstance(fault, Transient) or (isinstance(fault, AccessDenied) and self._renewed(address, store))
        final = last or not again
        with self._lock:
            self.requests[address.scheme, "failed" if final else "retried"] += 1
        if final:
            raise fault from error

    def _renewed(self, address: urls.Address, used: Any) -> bool:
        """Whether the mounted secret has changed since the store that was used was opened; then there is, or will be, a new one."""
        key = (address.scheme, address.root)
        with self._lock:
            if self._stores.get(key) is not used:
                return True
            if stores.secret_state(address.scheme, self._storage, self._secret_dir) == self._secrets.get(key):
                return False
            self._stores.pop(key, None)
            return True

    def _succeed(self, address: urls.Address, requests: int, retried: int = 0) -> None:
        with self._lock:
            if requests:
                self._proven.add(address.base)
                self.requests[address.scheme, "ok"] += requests
            if retried:
                self.requests[address.scheme, "retried"] += retried


def from_options(options: Mapping[str, Any]) -> Bucket:
    """A bucket for `storage_options` as fsspec's filesystems (s3fs, gcsfs, adlfs) or obstore name them, credentials included."""
    return Bucket(*stores.split_options(options))


async def _end(*futures: "asyncio.Future[Any] | None") -> None:
    """Nothing of these goes on, nor complains that nobody has looked at it."""
    begun = [future for future in futures if future]
    for future in begun:
        future.cancel()
    await asyncio.gather(*begun, return_exceptions=True)
