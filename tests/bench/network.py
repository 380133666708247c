"""A bucket on a real object-store server of this machine, behind a line whose latency can be set (toxiproxy)."""

import contextlib
import dataclasses
import json
import pathlib
import subprocess
import urllib.request
from collections.abc import Iterator

from patho_api import common
from tests.cluster import tools
from tests.trainer import servers

BUCKET = "slides"


@dataclasses.dataclass(frozen=True)
class Place:
    """A bucket: `url` with a slash at the end, `storage` to reach it through the line, `control` of the line."""

    url: str
    storage: common.Storage
    control: str

    def latency(self, milliseconds: int) -> None:
        """Delay every answer so much from now on."""
        _send(f"{self.control}/proxies/line/toxics/delay", {"attributes": {"latency": milliseconds, "jitter": 0}})


@contextlib.contextmanager
def bucket(folder: pathlib.Path | str, milliseconds: int = 0) -> Iterator[Place]:
    """A bucket with the files of `folder/slides`. Raises NotBuilt where a server is not built."""
    server, control, line = (servers.free_port() for _ in range(3))
    with _serve(pathlib.Path(folder), server, line), _proxy(control):
        place = Place(f"gs://{BUCKET}/", common.Storage(endpoint=f"http://127.0.0.1:{line}", anonymous=True), f"http://127.0.0.1:{control}")
        _send(f"{place.control}/proxies", {"name": "line", "listen": f"127.0.0.1:{line}", "upstream": f"127.0.0.1:{server}"})
        delay = {"name": "delay", "type": "latency", "stream": "downstream", "attributes": {"latency": milliseconds}}
        _send(f"{place.control}/proxies/line/toxics", delay)
        yield place


@contextlib.contextmanager
def _serve(folder: pathlib.Path, port: int, public_port: int) -> Iterator[None]:
    """fake-gcs-server over a folder with one sub-folder a bucket; answers to the address that its clients see."""
    public = f"127.0.0.1:{public_port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-data", str(folder)]
    flags += ["-public-host", public, "-external-url", f"http://{public}", "-log-level", "error"]
    with _running([tools.path("fake-gcs-server"), *flags], f"http://127.0.0.1:{port}/_internal/healthcheck"):
        yield


@contextlib.contextmanager
def _proxy(port: int) -> Iterator[None]:
    with _running([tools.path("toxiproxy"), "-host", "127.0.0.1", "-port", str(port)], f"http://127.0.0.1:{port}/version"):
        yield


@contextlib.contextmanager
def _running(command: list[object], url: str, seconds: float = 60) -> Iterator[None]:
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        servers._wait(url, process, seconds)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _send(url: str, body: object) -> None:
    request = urllib.request.Request(url, data=json.dumps(body).encode(), method="POST", headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10):
        pass
