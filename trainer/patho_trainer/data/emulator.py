"""A Google-compatible server other than Google's (`storage.endpoint` with gs://): read by obstore, written by the JSON interface.

obstore writes by the XML interface, which fake-gcs-server 1.55 refuses ("invalid uploadType"); remove when it does not. gcsfs could
write too, but takes seconds to import and warns about its own uploads.
"""

import json
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

TIMEOUT_SECONDS = 60


class EmulatedStore:
    """A bucket with the methods of obstore's stores that `storage.Bucket` uses; reading is obstore's own."""

    def __init__(self, store: Any, endpoint: str, bucket: str) -> None:
        """`store` is obstore's, for the same bucket. Makes no request."""
        self._endpoint, self._bucket = endpoint, bucket
        self.get, self.head = store.get, store.head
        self.get_async, self.head_async = store.get_async, store.head_async
        self.get_ranges, self.get_ranges_async = store.get_ranges, store.get_ranges_async

    def put(self, path: str, file: Any, *, mode: str = "overwrite", use_multipart: bool = False) -> None:
        """Write bytes or an open file; mode `create` raises FileExistsError where the object exists."""
        del use_multipart
        condition = "&ifGenerationMatch=0" if mode == "create" else ""
        mark = uuid.uuid4().hex  # with its metadata in the body: fake-gcs-server ignores the condition of a plain upload
        head = f"--{mark}\r\nContent-Type: application/json\r\n\r\n{json.dumps({'name': path})}\r\n--{mark}\r\n"
        data = file.read() if hasattr(file, "read") else file
        body = b"".join([head.encode(), b"Content-Type: application/octet-stream\r\n\r\n", data, f"\r\n--{mark}--".encode()])
        upload = f"upload/storage/v1/b/{self._bucket}/o?uploadType=multipart{condition}"
        self._send("POST", upload, body, f"multipart/related; boundary={mark}")

    def list(self, prefix: str | None = None, chunk_size: int = 1000) -> Iterator[list[dict[str, Any]]]:
        """Pages of the objects under a folder. Raises FileNotFoundError where there is no such bucket."""
        query: dict[str, Any] = {"prefix": f"{prefix}/" if prefix else "", "maxResults": chunk_size}
        while True:
            page = json.loads(self._send("GET", f"storage/v1/b/{self._bucket}/o?{urllib.parse.urlencode(query)}"))
            yield [{"path": o["name"], "size": int(o["size"]), "e_tag": o["etag"]} for o in page.get("items", ())]
            query["pageToken"] = page.get("nextPageToken")
            if not query["pageToken"]:
                return

    def delete(self, path: str) -> None:
        """Delete an object. Raises FileNotFoundError where there is none."""
        self._send("DELETE", f"storage/v1/b/{self._bucket}/o/{urllib.parse.quote(path, safe='')}")

    def _send(self, method: str, path: str, body: bytes | None = None, content_type: str = "application/json") -> bytes:
        """One request. Raises what `faults.explain` understands."""
        url = f"{self._endpoint}/{path}"
        request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": content_type})
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                return bytes(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    raise FileNotFoundError(path if method == "DELETE" else "NoSuchBucket") from error
                if error.code == 412:
                    raise FileExistsError(path) from error
                raise OSError(f"status code: {error.code} for {method}") from error
