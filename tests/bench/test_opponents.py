"""The engine against other readers of slides, each in its best setting, on the same patches.

PATHOSCALE_OPPONENTS names a python with openslide-python, tiffslide and cucim (they are no dependencies of ours).
"""

import json
import os
import subprocess

import pytest

from tests.bench import network, rates
from tests.bench.opponent import READERS
from tests.bench.test_streaming import ROUNDS, Work, place

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

PYTHON = os.environ.get("PATHOSCALE_OPPONENTS", "")
LOCAL, REMOTE = 1200, 160  # patches a round
__all__ = ["place"]


def told_by(reader: str, job: dict, tmp_path) -> rates.Rate:
    (tmp_path / "job.json").write_text(json.dumps(job))
    script = os.path.join(os.path.dirname(__file__), "opponent.py")
    done = subprocess.run([PYTHON, script, reader, tmp_path / "job.json"], capture_output=True, text=True, check=True)
    return rates.Rate(**json.loads(done.stdout.splitlines()[-1]))


def job_of(work: Work, urls: dict[str, str], count: int, **more) -> dict:
    patches = [[work.catalog.slides[r.slide].id, *r.xy_level0, r.source_px] for r in work.requests[:count]]
    return {"slides": urls, "patches": patches, "threads": 2, **more}


@pytest.mark.skipif(not PYTHON, reason="PATHOSCALE_OPPONENTS names no python with the other readers")
@pytest.mark.parametrize("coordinates", ["Grid", "Free"])
def test_against_readers_of_local_files(place, tmp_path, coordinates):
    """They read from the local disk; the engine reads the same patches from the bucket, at no latency."""
    work = Work(*place, coordinates, [0.25], 40)
    place[0].latency(0)
    urls = {s.id: str(work.folder / s.url.rpartition("/")[2]) for s in work.catalog.slides}
    ours, theirs = [], {reader: [] for reader in READERS}
    for _ in range(ROUNDS):
        ours.append(rates.rate(work.patches, work.stream).cpu)
        for reader, found in theirs.items():
            found.append(told_by(reader, job_of(work, urls, LOCAL), tmp_path).cpu)
    for reader, found in theirs.items():
        rates.told(f"{coordinates}, ours from a bucket / {reader} from a local disk, per CPU-second", ours, found)


@pytest.mark.skipif(not PYTHON, reason="PATHOSCALE_OPPONENTS names no python with the other readers")
@pytest.mark.parametrize("latency", [0, 20, 50])
def test_against_tiffslide_from_the_same_bucket(place, tmp_path, latency):
    """tiffslide with 8 processes over HTTP, small blocks; processes are forked after the import and count with their CPU time."""
    work = Work(*place, "Grid", [0.25], 40)
    place[0].latency(latency)
    urls = {s.id: f"{place[0].storage.endpoint}/{network.BUCKET}/{s.url.rpartition('/')[2]}" for s in work.catalog.slides}
    ours, theirs = [], []
    for _ in range(5):
        ours.append(rates.rate(work.patches, work.stream))
        theirs.append(told_by("tiffslide", job_of(work, urls, REMOTE, threads=1, processes=8), tmp_path))
    rates.told(f"Grid at {latency} ms, ours / tiffslide, per CPU-second", [r.cpu for r in ours], [r.cpu for r in theirs])
    rates.told(f"Grid at {latency} ms, ours / tiffslide, wall", [r.wall for r in ours], [r.wall for r in theirs])
