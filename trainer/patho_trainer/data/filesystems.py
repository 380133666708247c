"""Any filesystem that fsspec knows as a store: the fallback where obstore has none, and the reference where it has.

With the methods of obstore's stores that `storage.Bucket` uses. Coroutines run in threads: fsspec's own event loop is behind them.
"""

import asyncio
import builtins
import contextlib
import dataclasses
import datetime
import inspect
import random
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from patho_api import common
from patho_trainer import errors
from patho_trainer.data import urls

T = TypeVar("T")
PAUSES = (0.2, 0.4, 0.8, 1.6)  # seconds between tries, as obstore's (`stores.RETRIES`)
LONGEST_WAIT = 60.0  # seconds that a server may ask for
ETAGS = ("etag", "ETag", "generation", "LastModified", "last_modified", "mtime", "created")  # by filesystem; the first that is there


# a secret in obstore's words -> gcsfs's, s3fs's and adlfs's
SECRET_NAMES = {
    "service_account": "token",
    "access_key_id": "key",
    "secret_access_key": "secret",
    "token": "token",
    "account_name": "account_name",
    "account_key": "account_key",
    "sas_key": "sas_token",
}
ANONYMOUS: dict[str, dict[str, Any]] = {"gs": {"token": "anon"}, "s3": {"anon": True}, "az": {"anon": True}}


def arguments(scheme: str, storage: common.Storage, secret: Mapping[str, str], options: Mapping[str, str]) -> dict[str, Any]:
    """Of a cloud's filesystem (gcsfs, s3fs, adlfs); `secret` in obstore's words, `options` in the filesystem's own, which win. Pure."""
    found: dict[str, Any] = {} if storage.anonymous else {SECRET_NAMES[name]: value for name, value in secret.items()}
    if scheme in ANONYMOUS:
        found |= ANONYMOUS[scheme] if storage.anonymous else {}
        found |= _azure_endpoint(storage.endpoint, found) if scheme == "az" else _endpoint(storage)
    return found | dict(options)


def _endpoint(storage: common.Storage) -> dict[str, Any]:
    endpoint = {"endpoint_url": storage.endpoint} if storage.endpoint else {}
    return endpoint | ({"client_kwargs": {"region_name": storage.region}} if storage.region else {})


def _azure_endpoint(endpoint: str, secret: Mapping[str, str]) -> dict[str, str]:
    """adlfs takes another server's address by a connection string only."""
    words = {"account_name": "AccountName", "account_key": "AccountKey", "sas_token": "SharedAccessSignature"}
    parts = [f"BlobEndpoint={endpoint.rstrip('/')}", *(f"{words[name]}={value}" for name, value in secret.items() if name in words)]
    return {"connection_string": ";".join(parts)} if endpoint else {}


@dataclasses.dataclass(frozen=True)
class Found:
    """What `get` gives back."""

    meta: Mapping[str, Any]
    body: bytes

    async def bytes_async(self) -> bytes:
        """The body."""
        return self.body

    def bytes(self) -> "builtins.bytes":
        """The body."""
        return self.body


class FsspecStore:
    """One bucket or host of a filesystem. Raises OSError and its children, as `faults.explain` understands them."""

    def __init__(self, address: urls.Address, options: Mapping[str, Any]) -> None:
        """`options` go to the filesystem. Raises InvalidConfiguration where it is unknown or its package is not installed."""
        try:
            import fsspec  # not needed without such a bucket

            kind = fsspec.get_filesystem_class(address.scheme)
            inspect.signature(kind.__init__).bind(None, **options)  # one that is begun and not made (ftp) complains when it is forgotten
            self._files = kind(skip_instance_cache=True, use_listings_cache=False, **options)
        except (ImportError, ValueError, TypeError) as error:
            raise errors.InvalidConfiguration(
                f"{address.base}: scheme {address.scheme}:// is not supported ({error}): use gs:// s3:// az:// http(s):// file:// "
                "or a path, or install the fsspec filesystem for it"
            ) from error
        self._address = address
        self._root = str(self._files._strip_protocol(address.base)).rstrip("/")

    def head(self, path: str) -> dict[str, Any]:
        """Size and etag."""
        return self._meta(path, _told(lambda: self._files.info(self._name(path))))

    def get(self, path: str, options: Mapping[str, Any] | None = None) -> Found:
        """An object, or the bytes options["range"] = (first, after the last) of it; the facts first, so that a change is noticed."""
        first, end = (options or {}).get("range", (None, None))
        return Found(self.head(path), bytes(_told(lambda: self._files.cat_file(self._name(path), start=first, end=end))))

    def get_ranges(self, path: str, *, starts: Sequence[int], lengths: Sequence[int], coalesce: int = 0) -> list[bytes]:
        """`lengths[k]` bytes from `starts[k]`; fewer where the object ends earlier. Of many, only those that failed are asked for again."""
        del coalesce
        wanted = list(zip(starts, lengths, strict=True))
        found = self._parts(self._name(path), wanted)
        for attempt in range(len(PAUSES)):
            broken = {k: body for k, body in enumerate(found) if isinstance(body, Exception)}
            if not broken or not all(map(_passes, broken.values())):
                break
            time.sleep(max(_pause_seconds(attempt, error) for error in broken.values()))
            for k, body in zip(broken, self._parts(self._name(path), [wanted[k] for k in broken]), strict=True):
                found[k] = body
        return [_unbroken(body) for body in found]

    def _parts(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes | Exception]:
        """What came of each range (start, size)."""
        starts, ends = [start for start, _ in ranges], [start + size for start, size in ranges]
        return list(_told(lambda: self._files.cat_ranges([name] * len(starts), starts, ends, on_error="return")))

    def put(self, path: str, file: Any, *, mode: str = "overwrite", use_multipart: bool = False) -> None:
        """Write bytes, or an open file over whatever is there; mode `create` raises FileExistsError where the object exists."""
        del use_multipart
        name = self._name(path)
        with contextlib.suppress(NotImplementedError):
            self._files.makedirs(self._files._parent(name), exist_ok=True)
        if hasattr(file, "read"):  # a file of this machine: in parts, so that it need not fit into memory
            _told(lambda: self._files.put_file(file.name, name))
        else:
            _told(lambda: self._files.pipe_file(name, bytes(file), mode=mode))

    def list(self, prefix: str | None = None, chunk_size: int = 1000) -> Iterator[list[dict[str, Any]]]:
        """One page of all objects under a folder."""
        del chunk_size
        found = _told(lambda: self._files.find(self._name(prefix or ""), detail=True))
        yield [self._meta(name.removeprefix(self._root).lstrip("/"), info) for name, info in found.items()]

    def delete(self, path: str) -> None:
        """Delete an object. Raises FileNotFoundError where there is none."""
        _told(lambda: self._files.rm_file(self._name(path)))

    async def head_async(self, path: str) -> dict[str, Any]:
        """As `head`."""
        return await asyncio.to_thread(self.head, path)

    async def get_async(self, path: str, *, options: Mapping[str, Any] | None = None) -> Found:
        """As `get`."""
        return await asyncio.to_thread(self.get, path, options)

    async def get_ranges_async(self, path: str, **ranges: Any) -> Sequence[bytes]:
        """As `get_ranges`."""
        return await asyncio.to_thread(self.get_ranges, path, **ranges)

    def _name(self, path: str) -> str:
        """Filesystems of the web want whole urls, all others what comes after the scheme."""
        quoted = urllib.parse.quote(path) if self._address.scheme in urls.WEB else path
        return str(self._files._strip_protocol(self._address.url_of(quoted)))

    @staticmethod
    def _meta(path: str, info: Mapping[str, Any]) -> dict[str, Any]:
        etag = next((info[key] for key in ETAGS if info.get(key)), "")
        if isinstance(etag, datetime.datetime):  # in a listing a number, in an answer about one object a date
            etag = etag.timestamp()
        return {"path": path, "size": info["size"], "e_tag": str(etag)}


def _unbroken(body: builtins.bytes | Exception) -> builtins.bytes:
    if isinstance(body, Exception):
        raise _plain(body)
    return body


def _told(operation: Callable[[], T], tries: int = len(PAUSES) + 1) -> T:
    """Its result, after as many tries as obstore makes by itself."""
    for attempt in range(tries):
        try:
            return operation()
        except Exception as error:
            if attempt == tries - 1 or not _passes(error):
                raise _plain(error) from error
            time.sleep(_pause_seconds(attempt, error))
    raise AssertionError("the last attempt returns or raises")


def _plain(error: Exception) -> OSError:
    """An error as `faults.explain` understands it: HTTP libraries' are no OSError, with their status."""
    if isinstance(error, OSError):
        return error
    status = _status(error)
    return OSError(f"status code: {status}: {type(error).__name__}" if status else f"{type(error).__name__}: {error}")


def _status(error: Exception) -> int:
    status = getattr(error, "status", None) or getattr(error, "code", None)
    return status if isinstance(status, int) else 0


def _passes(error: Exception) -> bool:
    """Whether the same request may succeed soon: the server is busy or the connection broke."""
    if isinstance(error, FileNotFoundError | FileExistsError | PermissionError):
        return False
    return _status(error) in (0, 408, 429) or _status(error) >= 500


def _pause_seconds(attempt: int, error: Exception) -> float:
    """As long as the server asks for (Retry-After in seconds), where the library tells; else exponential backoff with jitter."""
    asked = str((getattr(error, "headers", None) or {}).get("Retry-After", ""))
    return min(LONGEST_WAIT, max(PAUSES[attempt] * (0.5 + random.random()), float(asked) if asked.isdigit() else 0.0))
