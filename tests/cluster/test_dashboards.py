"""Dashboards and alerts on a real Prometheus that scrapes a real run and the operator that watches it: no panel stays empty.

The pod is a fake one, but its address answers with the progress of training processes on this machine: so the operator's and the trainer's
metrics speak of the same run. One of its slides is broken, and its checkpoints are evaluated (by a fake pod with a real score).
"""

import http.server
import json
import os
import pathlib
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import tifffile

from charts import boards
from patho_api import names
from tests.chart import alerts, pictures, prometheus
from tests.cluster import release, runs, waiting
from tests.cluster.cluster import Cluster, kubectl_binary
from tests.cluster.processes import Processes
from tests.docs import captures
from tests.trainer import runs as training
from tests.trainer import slides

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
DOCS = pathlib.Path(__file__).parents[2] / "docs" / "dashboards"
RUN, STEPS = "watched", 60
SPAN = "5s"  # for $__rate_interval: the run is short and scraped every second
SCORE = {"task": "PatchClassification", "metric": "balancedAccuracy", "mean": 0.875, "std": 0.0125, "runs": 5, "samples": 40}


@pytest.fixture(scope="module")
def watched(cluster: Cluster, operator: release.Operator, processes: Processes, tmp_path_factory) -> Iterator["Watched"]:
    """A Prometheus that has seen the whole life of a run."""
    program, folder = prometheus.path("prometheus"), tmp_path_factory.mktemp("watched")
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "watched"}})
    here = cluster.inside("watched")
    wanted = spec(folder)
    manifest = runs.resource(names.PRETRAIN, RUN, wanted.dump())
    manifest["spec"]["compute"]["resources"]["limits"] = {"nvidia.com/gpu": 2}  # what the fake node has: the hours of two are counted
    here.apply(manifest)
    (fake,) = runs.running(here, RUN, 1)
    begin = time.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "RUN_ID", f"{runs.uid(here.get('ppt', RUN))}-1")
        with training.pod(wanted, folder / "pod") as pod, answering(fake["status"]["podIP"], pod):
            found = Watched(
                prometheus.start(processes, program, targets(operator.port, pod.port), alerts.RULES), begin, folder / "watch.txt"
            )
            pod.wait_for(lambda now: now.stage == "Training")
            with pod.held(rank=0):
                waiting.until(lambda: stage(here) == "Training", what="progress in the status", seconds=120)
            watch = f"{kubectl_binary()} get ppt --namespace=watched --watch > {found.shown}"
            processes.start("watch", ["bash", "-c", f"exec {watch}"], here.environment())
            assert pod.end()[0] == 0
            found.end = time.time()  # of training
    waiting.until(lambda: found.query(f'{names.EVAL_SCORE}{{run="{RUN}"}}'), what="a score of the run in Prometheus")
    yield found
    processes.stop("watch")
    processes.stop("prometheus")
    cluster.kubectl("delete", "namespace", "watched", "--wait=false")


def stage(cluster: Cluster) -> str:
    """What the run says that it does."""
    return str(((cluster.get("ppt", RUN).get("status") or {}).get("progress") or {}).get("stage", ""))


class Watched:
    """Asks that Prometheus about the time of the run."""

    def __init__(self, url: str, begin: float, shown: pathlib.Path) -> None:
        self.url, self.begin, self.end, self.shown = url, begin, begin, shown

    def query(self, expression: str) -> list[Any]:
        """Series of an expression over the run's time; NaN is no value."""
        span = {"query": expression, "start": self.begin, "end": time.time(), "step": 1}
        found = self._get("query_range", span)["result"]
        kept = [(s["metric"], [(t, float(v)) for t, v in s["values"] if v not in ("NaN", "+Inf")]) for s in found]
        return [(labels, values) for labels, values in kept if values]

    def rules(self) -> list[Any]:
        """The rules as Prometheus evaluates them."""
        return [rule for group in self._get("rules", {})["groups"] for rule in group["rules"]]

    def _get(self, what: str, parameters: dict[str, Any]) -> Any:
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{urllib.parse.urlencode(parameters)}", timeout=30) as answer:
            return json.load(answer)["data"]


def spec(folder: pathlib.Path) -> Any:
    """A run of two processes on a good and a broken slide; its checkpoints are evaluated."""
    (folder / "slides").mkdir()
    (folder / "slides" / "good.svs").symlink_to(slides.CMU)
    broken(folder / "slides" / "broken.svs")
    scored = {"metadata": {"annotations": runs.ends(0, reason="Completed", results=[SCORE])}}
    probe = {"tasks": [{"name": "PatchClassification", "data": "gs://slides/patches"}], "compute": {"podTemplate": scored}}
    changes = {
        "slides__source": f"{folder}/slides/",
        "slides__maxBadShare": 0.9,
        "model": {"architecture": "test_vit"},
        "training__steps": STEPS,
        "training__monitorEverySteps": STEPS // 2,
        "checkpoints__everySteps": 20,
        "compute__processesPerNode": 2,
        "evaluations": [{"name": "probe", "everySteps": 20, "template": probe}],
    }
    return training.spec(folder, **changes)


def broken(path: pathlib.Path) -> None:
    """A slide whose tiles of level 0 are zeroes for the most part."""
    slides.write(path, slides.Recipe(mpp=0.5, vendor=True))
    with tifffile.TiffFile(path) as file:
        page = file.pages[0]
        damaged = list(zip(page.dataoffsets, page.databytecounts, strict=True))[4:]
    with path.open("r+b") as file:
        for offset, size in damaged:
            file.seek(offset)
            file.write(bytes(size))


class answering:
    """While it lasts, the fake pod's address serves what the training processes report."""

    def __init__(self, address: str, pod: training.Pod) -> None:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                try:
                    body = pod.get(self.path)
                except urllib.error.HTTPError as error:  # no report yet
                    return self.send_error(error.code)
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer((address, names.PORT_METRICS), Handler)

    def __enter__(self) -> None:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def targets(operator: int, pod: int) -> list[dict[str, Any]]:
    """What the chart's monitors would scrape, and how."""
    run = {"namespace": "watched", "run": RUN, "pod": f"{RUN}-pt-1-0"}
    return [
        {"job_name": "operator", "honor_labels": True, "static_configs": [target(operator, {"namespace": "ops", "pod": "operator-0"})]},
        {"job_name": "runs", "static_configs": [target(pod, run)]},
    ]


def target(port: int, labels: dict[str, str]) -> dict[str, Any]:
    return {"targets": [f"127.0.0.1:{port}"], "labels": labels}


def expression(text: str) -> str:
    """A query with its dashboard's variables filled in."""
    for variable, value in (("$namespace", "watched"), ("$run", RUN), ("$__rate_interval", SPAN), ("$price", "2.5")):
        text = text.replace(variable, value)
    return text


@pytest.mark.parametrize("board", boards.BOARDS, ids=lambda board: board.name)
def test_no_panel_is_empty(watched, board):
    found = {p.title: [watched.query(expression(query)) for query, _ in p.queries] for p in board.panels}
    needs_gpu = {p.title for p in board.panels if p.gpu}
    assert [title for title, results in found.items() if not all(results) and title not in needs_gpu] == []
    picture = pictures.draw(board, found, until=watched.end)
    assert picture.size[0] == pictures.WIDTH
    if os.environ.get("PATHOSCALE_PICTURES"):
        DOCS.mkdir(exist_ok=True)
        picture.save(DOCS / f"{board.name}.png", optimize=True)


def test_the_broken_slide_is_seen(watched):
    assert watched.query(f'{names.STREAM_REPLACED}{{reason="Undecodable"}} > 0')
    assert watched.query(f"{names.STREAM_QUARANTINED} == 1")


def test_prometheus_evaluates_every_alert(watched):
    found = watched.rules()
    assert {rule["name"] for rule in found} == set(alerts.rules())
    assert {rule["health"] for rule in found} == {"ok"}


def test_a_healthy_operator_raises_no_alert(watched):
    firing = {rule["name"] for rule in watched.rules() if rule["state"] == "firing"}
    assert not {name for name in firing if name.startswith("PathoOperator")}


def test_kubectl_shows_the_runs_life_on_80_columns(watched):
    lines = [line.rstrip() for line in watched.shown.read_text().splitlines()]
    assert lines[0].split() == ["NAME", "PHASE", "STEP", "IMG/S", "WAIT", "ETA", "NODES", "RESTARTS", "AGE"]
    assert max(map(len, lines)) <= 80
    assert any(f"{STEPS}/{STEPS} (100%)" in line for line in lines)
    if os.environ.get("PATHOSCALE_PICTURES"):
        captures.put("watch", ["$ kubectl get ppt --watch", *lines[:6], "...", lines[-1]])
