"""The demo's bucket: a real S3 server (moto) on the loopback, kept on disk between runs by copying what is new in it."""

import contextlib
import logging
import os
import pathlib
from typing import Self

import boto3
from moto import server

from patho_api import common
from patho_trainer.data import storage

BUCKET = "demo"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "demo", "AWS_SECRET_ACCESS_KEY": "demo"}


class Store:
    """An S3 server with the objects of `folder`. `save` writes new objects back to `folder`: the server itself forgets."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._server = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._saved: dict[str, str] = {}

    def __enter__(self) -> Self:
        os.environ.update(CREDENTIALS)
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # one line a request otherwise
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.storage = common.Storage(endpoint=f"http://{host}:{port}", region="us-east-1")
        self.bucket = storage.Bucket(self.storage)
        self._make_bucket()
        self._restore()
        return self

    def __exit__(self, *_: object) -> None:
        self.save()
        self._server.stop()

    def url(self, key: str) -> str:
        return f"s3://{BUCKET}/{key}"

    def save(self) -> None:
        """Make `folder` equal to the bucket."""
        now = {o.url.removeprefix(self.url("")): o.etag for o in self.bucket.list(self.url(""))}
        for key in now.keys() - self._saved.keys() | {k for k in now.keys() & self._saved.keys() if now[k] != self._saved[k]}:
            self._keep(key)
        for key in self._saved.keys() - now.keys():
            (self.folder / key).unlink(missing_ok=True)
        self._saved = now

    def _keep(self, key: str) -> None:
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        with contextlib.suppress(storage.NotFound):  # the run prunes old checkpoints meanwhile
            part.write_bytes(self.bucket.read(self.url(key)))
            part.replace(path)

    def _make_bucket(self) -> None:
        client = boto3.client("s3", endpoint_url=self.storage.endpoint, region_name=self.storage.region)
        client.create_bucket(Bucket=BUCKET)

    def _restore(self) -> None:
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file() and p.suffix != ".part"):
            self.bucket.write(self.url(path.relative_to(self.folder).as_posix()), path.read_bytes())
        self._saved = {o.url.removeprefix(self.url("")): o.etag for o in self.bucket.list(self.url(""))}
