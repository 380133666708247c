"""Real object stores and a web server on the loopback: S3 (moto), Google (fake-gcs-server), Azure (Azurite), HTTP with faults."""

import base64
import collections
import contextlib
import dataclasses
import email.utils
import hashlib
import hmac
import http.server
import itertools
import json
import logging
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping

from patho_api import common
from patho_trainer.data import storage
from tests.aside import place as aside

KEYS = {"access_key_id": "test-key", "secret_access_key": "test-secret"}
TOOLS = pathlib.Path.home() / ".cache" / "pathoscale" / "tools"
AZURE_ACCOUNT = "devstoreaccount1"  # of Azurite; everybody knows its key
AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
NUMBERS = itertools.count()
SLOW_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class Store:
    """A bucket on a test server: `url` with a slash at the end, how to reach it, and the folder of its secret ("" for none)."""

    url: str
    storage: common.Storage
    secret_dir: str = ""

    def bucket(self) -> storage.Bucket:
        """A fresh client, with counters of its own."""
        return storage.Bucket(self.storage, self.secret_dir or None)

    def put(self, path: pathlib.Path, name: str = "") -> str:
        """Upload a file; its url."""
        url = self.url + (name or path.name)
        self.bucket().upload(path, url)
        return url


@contextlib.contextmanager
def s3_server() -> Iterator[str]:
    """A real S3 protocol server; its endpoint."""
    from moto.server import ThreadedMotoServer  # slow to import

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


def s3_bucket(endpoint: str, folder: pathlib.Path) -> Store:
    """A new, empty bucket; its keys lie in `folder` as a mounted secret does."""
    name = f"bucket-{next(NUMBERS)}"
    _send(f"{endpoint}/{name}", "PUT")
    folder.mkdir(parents=True, exist_ok=True)
    for key, value in KEYS.items():
        (folder / key).write_text(value)
    return Store(f"s3://{name}/", common.Storage(endpoint=endpoint, secret_name="s3-key"), str(folder))


def gcs_binary() -> pathlib.Path | None:
    """fake-gcs-server, out of $PATHOSCALE_TOOLS or where the cluster tests build their tools."""
    wanted = os.environ.get("PATHOSCALE_TOOLS")
    places = [pathlib.Path(wanted)] if wanted else sorted(TOOLS.glob("fake-gcs-server-*"))
    return next((p / "fake-gcs-server" for p in reversed(places) if (p / "fake-gcs-server").exists()), None)


@contextlib.contextmanager
def gcs_server(binary: pathlib.Path) -> Iterator[str]:
    """Google's protocol, kept in memory; the endpoint."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    flags += ["-public-host", f"127.0.0.1:{port}", "-external-url", endpoint, "-log-level", "error"]
    process = subprocess.Popen([binary, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(f"{endpoint}/_internal/healthcheck", process)
        yield endpoint
    finally:
        process.terminate()
        process.wait(10)


def gcs_bucket(endpoint: str) -> Store:
    """A new, empty bucket, open to everybody."""
    name = f"bucket-{next(NUMBERS)}"
    _send(f"{endpoint}/storage/v1/b?project=test", "POST", json.dumps({"name": name}).encode())
    return Store(f"gs://{name}/", common.Storage(endpoint=endpoint, anonymous=True))


def azure_program() -> pathlib.Path | None:
    """Azurite's blob server, as tests/prepare.sh installs it."""
    found = aside.AZURITE_FOLDER / "node_modules" / "azurite" / "dist" / "src" / "blob" / "main.js"
    return found if found.exists() and shutil.which("node") else None


@contextlib.contextmanager
def azure_server(program: pathlib.Path) -> Iterator[str]:
    """Azure's protocol, kept in memory; the endpoint."""
    port = free_port()
    flags = ["--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence", "--skipApiVersionCheck", "--silent"]
    process = subprocess.Popen(["node", program, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _listening(port, process)
        yield f"http://127.0.0.1:{port}/{AZURE_ACCOUNT}"
    finally:
        process.kill()  # asked kindly, it waits for its clients to hang up
        process.wait(10)


def azure_bucket(endpoint: str, folder: pathlib.Path) -> Store:
    """A new, empty container; its keys lie in `folder` as a mounted secret does."""
    name = f"bucket-{next(NUMBERS)}"
    now = email.utils.formatdate(usegmt=True)
    headers = f"x-ms-date:{now}\nx-ms-version:2021-08-06"
    signed = f"PUT{chr(10) * 12}{headers}\n/{AZURE_ACCOUNT}/{AZURE_ACCOUNT}/{name}\nrestype:container"
    signature = base64.b64encode(hmac.new(base64.b64decode(AZURE_KEY), signed.encode(), hashlib.sha256).digest()).decode()
    sent = dict(line.split(":", 1) for line in headers.splitlines()) | {"Content-Length": "0"}
    _send(f"{endpoint}/{name}?restype=container", "PUT", None, sent | {"Authorization": f"SharedKey {AZURE_ACCOUNT}:{signature}"})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "account_name").write_text(AZURE_ACCOUNT)
    (folder / "account_key").write_text(AZURE_KEY)
    return Store(f"az://{name}/", common.Storage(endpoint=endpoint, secret_name="az-key"), str(folder))


def by_fsspec(store: Store) -> Store:
    """The same bucket through gcsfs, s3fs or adlfs."""
    return dataclasses.replace(store, storage=store.storage.model_copy(update={"options": {"transport": "fsspec"}}))


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _send(url: str, method: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> None:
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10):
        pass


def _wait(url: str, process: subprocess.Popen[bytes], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"no answer at {url} within {seconds} s; exit code {process.poll()}")


def _listening(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nobody listens at {port} within {seconds} s; exit code {process.poll()}")


class WebServer:
    """Serves a folder by HTTP with ranges; counts requests by (method, path); `faults` are used up one a request.

    `chaos` may give a fault for the n-th request; `access_key`, where set, is the only one whose requests are answered.
    """

    def __init__(self, folder: pathlib.Path, tls: ssl.SSLContext | None = None) -> None:
        """`faults`: 503 and the like answer so, "short" breaks the body off half-way, "reset" closes without an answer, "slow" dawdles."""
        self.folder = folder
        self.requests: collections.Counter[tuple[str, str]] = collections.Counter()
        self.faults: collections.deque[int | str] = collections.deque()
        self.chaos: Callable[[int], int | str | None] = lambda _: None
        self.access_key = ""
        self.retry_after = 0  # seconds, of answers 429 and 503
        self.times: list[float] = []  # when requests came
        self._count = itertools.count()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._scheme = "https" if tls else "http"
        if tls:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """With a slash at the end."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> "WebServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _handler(web: WebServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            name = urllib.parse.unquote(self.path.lstrip("/"))
            web.requests[self.command, name] += 1
            web.times.append(time.monotonic())
            fault = web.faults.popleft() if web.faults else web.chaos(next(web._count))
            path = web.folder / name
            if fault == "slow":
                time.sleep(SLOW_SECONDS)
            if web.access_key and f"Credential={web.access_key}/" not in self.headers.get("Authorization", ""):
                self._plain(403)
            elif fault == "reset":
                self.close_connection = True
            elif isinstance(fault, int):
                self._plain(fault)
            elif not path.is_file():
                self._plain(404)
            else:
                self._file(path, body=body, short=fault == "short")

        def _plain(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            if status in (429, 503):
                self.send_header("Retry-After", str(web.retry_after))
            self.end_headers()

        def _file(self, path: pathlib.Path, *, body: bool, short: bool) -> None:
            data = path.read_bytes()
            start, stop = self._range(len(data))
            if start >= stop:
                self._plain(416)
                return
            self.send_response(206 if "Range" in self.headers else 200)
            self.send_header("Content-Length", str(stop - start))
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            self.send_header("ETag", f'"{path.stat().st_mtime_ns:x}-{len(data):x}"')
            self.end_headers()
            if body:
                self.wfile.write(data[start : start + (stop - start) // 2] if short else data[start:stop])
            self.close_connection = short

        def _range(self, size: int) -> tuple[int, int]:
            first, _, last = self.headers.get("Range", f"bytes=0-{size - 1}").removeprefix("bytes=").partition("-")
            return int(first), min(size, int(last or size - 1) + 1)

    return Handler
