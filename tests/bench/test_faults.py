"""What a bad network costs: 5 % of all requests fail, dawdle or break off, on a line of 20 ms, against the same line without faults."""

import contextlib
import hashlib
import pathlib
import sys

import pytest

from patho_api import pretrain
from patho_trainer.data import index, storage, stream
from tests.bench import faulty, network, rates, tissue
from tests.trainer import servers

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

SHARE, LATENCY_MS = 0.05, 20
ROUNDS, BATCH, STEPS, WARM_UP_STEPS, SLIDES, THREADS = 7, 64, 80, 20, 4, 2  # the first steps fill what is read ahead
LINES = {"calm": 0.0, "faulty": SHARE}


@contextlib.contextmanager
def lines(folder: pathlib.Path):
    """Urls of the same folder, without and with faults, each behind a line with latency."""
    (folder / "ping").touch()
    with contextlib.ExitStack() as stack:
        control, urls = servers.free_port(), {}
        stack.enter_context(network._proxy(control))
        for name, share in LINES.items():
            server, port = servers.free_port(), servers.free_port()
            command = [sys.executable, faulty.__file__, folder, share, server]
            stack.enter_context(network._running(command, f"http://127.0.0.1:{server}/ping"))
            proxy = f"http://127.0.0.1:{control}/proxies"
            network._send(proxy, {"name": name, "listen": f"127.0.0.1:{port}", "upstream": f"127.0.0.1:{server}"})
            network._send(f"{proxy}/{name}/toxics", {"name": "delay", "type": "latency", "attributes": {"latency": LATENCY_MS}})
            urls[name] = f"http://127.0.0.1:{port}/"
        yield urls


def make_run(url: str, folder: pathlib.Path):
    """The specification and the index of a run on the slides behind a url."""
    folder.mkdir()
    (folder / "slides.csv").write_text("id,url\n" + "".join(f"{i},{url}{i}.tif\n" for i in range(SLIDES)))
    spec = pretrain.PretrainSpec.model_validate(
        {
            "slides": {"source": f"{folder}/slides.csv", "index": f"{folder}/index"},
            "patches": {"magnifications": [{"mpp": 0.25}], "coordinates": "Grid"},
            "training": {"batchSize": BATCH},
            "checkpoints": {"url": "unused"},
        }
    )
    return spec, index.build([spec.slides.source], spec.slides.index, patches=spec.patches)


def digests(begun) -> list[str]:
    with begun as work:
        return [hashlib.sha256(batch.images.numpy()).hexdigest() for batch in work()]


def test_one_bad_request_in_twenty_costs_little(tmp_path):
    for i in range(SLIDES):
        tissue.write(tmp_path / "slides" / f"{i}.tif", seed=i)
    with lines(tmp_path / "slides") as urls:
        runs = {name: make_run(url, tmp_path / name) for name, url in urls.items()}
        buckets = {name: storage.Bucket() for name in runs}

        @contextlib.contextmanager
        def begun(name: str):
            spec, catalog = runs[name]
            with stream.batches(catalog, spec, seed=0, bucket=buckets[name], threads=THREADS) as batches:
                for _ in range(WARM_UP_STEPS):
                    next(batches)
                yield lambda: [next(batches) for _ in range(STEPS)]

        pixels = {name: digests(begun(name)) for name in runs}
        found: dict[str, list[rates.Rate]] = {name: [] for name in runs}
        for k in range(ROUNDS):
            for name in sorted(runs, reverse=k % 2 == 0):
                with begun(name) as work:
                    found[name].append(rates.rate(BATCH * STEPS, work))
    assert pixels["faulty"] == pixels["calm"]
    print("\n", {name: dict(bucket.requests) for name, bucket in buckets.items()})
    cpu = rates.told("5 % of faults / none, patches per CPU-second", [r.cpu for r in found["faulty"]], [r.cpu for r in found["calm"]])
    wall = rates.told("5 % of faults / none, wall throughput", [r.wall for r in found["faulty"]], [r.wall for r in found["calm"]])
    assert cpu > 0.8
    assert wall > 0.5
