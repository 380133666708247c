"""Prometheus and promtool: those on the path, or those that tests/prepare.sh unpacked into the cache of the tests' tools."""

import os
import pathlib
import shutil
import urllib.error
import urllib.request
from typing import Any

import pytest
import yaml

from tests.cluster import controlplane, waiting
from tests.cluster.processes import Processes

PROGRAMS = ("prometheus", "promtool")


def folder() -> pathlib.Path:
    """Where they are unpacked to."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(cache).expanduser() / "pathoscale" / "tools" / "prometheus"


def path(name: str) -> str:
    """The program; skips the test, with the way out, where there is none."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), str(folder())]))
    if not found:
        pytest.skip(f"NOT RUN: {name} is not installed: tests/prepare.sh unpacks it on Debian and Ubuntu")
    return found


def start(processes: Processes, program: str, scrape: list[dict[str, Any]], rules: pathlib.Path) -> str:
    """Start a Prometheus on the loopback that scrapes every second and evaluates `rules`; its URL."""
    folder, port = processes.folder / "prometheus", controlplane.free_port()
    folder.mkdir()
    every_second = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"global": every_second, "rule_files": [str(rules)], "scrape_configs": scrape}))
    flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    processes.start("prometheus", [program, *flags])
    url = f"http://127.0.0.1:{port}"
    waiting.until(lambda: processes.check("prometheus") and _is_ready(url), what="Prometheus ready")
    return url


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


if __name__ == "__main__":  # for tests/prepare.sh: where to unpack them; nothing if they are there
    known = os.pathsep.join([os.environ.get("PATH", ""), str(folder())])
    print("" if all(shutil.which(name, path=known) for name in PROGRAMS) else folder())
