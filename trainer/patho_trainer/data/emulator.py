"""A Google-compatible server other than Google's (`storage.endpoint` with gs://): read by obstore, written through gcsfs.

obstore writes by the XML interface, which fake-gcs-server 1.55 refuses ("invalid uploadType"); remove when it does not.
"""

from collections.abc import Iterator
from typing import Any


class EmulatedStore:
    """A bucket with the methods of obstore's stores that `storage.Bucket` uses; reading is obstore's own."""

    def __init__(self, store: Any, endpoint: str, bucket: str) -> None:
        """`store` is obstore's, for the same bucket. Makes no request."""
        import gcsfs.core  # slow to import, and only emulators need it

        # not gcsfs.GCSFileSystem: it waits a minute for a gRPC bucket-type probe that no emulator answers
        self._files = gcsfs.core.GCSFileSystem(endpoint_url=endpoint, token="anon", use_listings_cache=False)
        self._bucket = bucket
        self.get, self.head = store.get, store.head
        self.get_ranges, self.get_ranges_async = store.get_ranges, store.get_ranges_async

    def put(self, path: str, file: Any, *, mode: str = "overwrite", use_multipart: bool = True) -> None:
        """Write bytes or an open file; mode `create` raises FileExistsError where the object exists."""
        del use_multipart
        data = file.read() if hasattr(file, "read") else bytes(file)
        self._files.pipe_file(f"{self._bucket}/{path}", data, mode=mode)

    def list(self, prefix: str | None = None, chunk_size: int = 0) -> Iterator[list[dict[str, Any]]]:
        """One page with every object under a folder. Raises FileNotFoundError where there is no such bucket."""
        del chunk_size
        try:
            found = self._files.find(f"{self._bucket}/{prefix or ''}", detail=True)
        except FileNotFoundError as error:
            raise FileNotFoundError("NoSuchBucket") from error
        for path, facts in found.items():
            yield [{"path": path.removeprefix(f"{self._bucket}/"), "size": int(facts["size"]), "e_tag": facts["etag"]}]

    def delete(self, path: str) -> None:
        """Delete an object."""
        self._files.rm_file(f"{self._bucket}/{path}")
