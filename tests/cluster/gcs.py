"""A Google Cloud Storage server on this machine (fake-gcs-server), reachable for pods too."""

import json
import pathlib
import urllib.error
import urllib.parse
import urllib.request

from tests.cluster import controlplane, tools, waiting
from tests.cluster.processes import Processes


def start(processes: Processes, host: str, data: pathlib.Path) -> str:
    """Start a server that holds `data/<bucket>/<object>` in memory; its URL."""
    address = f"{host}:{controlplane.free_port()}"
    command = [tools.path("fake-gcs-server"), "-scheme=http", f"-host={host}", f"-port={address.rpartition(':')[2]}", "-backend=memory"]
    processes.start("gcs", [*command, f"-data={data}", f"-public-host={address}", f"-external-url=http://{address}", "-log-level=warn"])
    waiting.until(lambda: processes.check("gcs") and _answers(f"http://{address}/storage/v1/b"), what="GCS server answers")
    return f"http://{address}"


def objects(server: str, bucket: str, prefix: str = "") -> list[str]:
    """Names of the objects in a bucket, sorted."""
    query = urllib.parse.urlencode({"prefix": prefix, "maxResults": 1000})
    with urllib.request.urlopen(f"{server}/storage/v1/b/{bucket}/o?{query}", timeout=10) as answer:
        return sorted(item["name"] for item in json.load(answer).get("items", []))


def read(server: str, bucket: str, name: str) -> bytes:
    """One object."""
    address = f"{server}/storage/v1/b/{bucket}/o/{urllib.parse.quote(name, safe='')}?alt=media"
    with urllib.request.urlopen(address, timeout=10) as answer:
        return bytes(answer.read())


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False
