"""The engine against other readers of slides, each in its best setting, on the same patches; and the decoder alone as the limit.

They run in an environment of their own (tests/aside). OpenSlide and cuCIM read local files only; wsistream chooses its own patches.
"""

import json
import pathlib
import subprocess
import sys

import pytest

from tests.aside import place as aside
from tests.bench import network, rates
from tests.bench.test_streaming import PAPER, Work, place

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROUNDS, STEPS = 3, 24
LOCAL, REMOTE, PROCESSES = 320, 128, 4  # patches a round; of tiffslide in the bucket, whose threads wait for each other
KINDS = {"Grid": ("Grid", [0.25]), "Free": ("Free", [0.25]), "four magnifications": ("Free", PAPER)}
__all__ = ["place"]


def told_by(
    reader: str, work: Work, urls: dict[str, str], count: int, folder: pathlib.Path, threads: int = 1, processes: int = 1
) -> rates.Rate:
    aside.install(aside.OPPONENTS)
    every = len(work.requests) // count
    patches = [[work.catalog.slides[r.slide].id, *r.xy_level0, r.level, r.source_px] for r in work.requests[::every][:count]]
    job = {"slides": urls, "patches": patches, "size": 256, "threads": threads, "processes": processes}
    (folder / "job.json").write_text(json.dumps(job))
    command = [sys.executable, "-W", "ignore", str(pathlib.Path(__file__).with_name("opponent.py")), reader, str(folder / "job.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=aside.environment(aside.OPPONENTS))
    assert done.returncode == 0, done.stderr[-3000:]
    return rates.Rate(**json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("kind", KINDS)
def test_against_readers_of_local_files(place, tmp_path, kind):
    """They read from the local disk; the engine reads the same patches from the bucket, at no latency."""
    place[0].latency(0)
    work = Work(*place, *KINDS[kind], STEPS)
    work.stream()
    urls = {s.id: str(work.folder / s.url.rpartition("/")[2]) for s in work.catalog.slides}
    readers = {"openslide": 2, "cucim": 2, "tiffslide": 1} | ({"wsistream": 1} if kind == "Free" else {})
    ours, limits, theirs = [], [], {reader: [] for reader in readers}
    for _ in range(ROUNDS):
        ours.append(rates.rate(work.patches, work.stream).cpu)
        limits.append(rates.rate(len(work.requests[::8]), work.limit(8)).cpu)
        for reader, threads in readers.items():
            theirs[reader].append(told_by(reader, work, urls, LOCAL, tmp_path, threads).cpu)
    rates.told(f"{kind}, ours from a bucket / whole decode of the tiles touched, per CPU-second", ours, limits)
    for reader, found in theirs.items():
        rates.told(f"{kind}, ours from a bucket / {reader} from a local disk, per CPU-second", ours, found)


@pytest.mark.parametrize("latency", [0, 20, 50])
def test_against_readers_of_the_same_bucket(place, tmp_path, latency):
    """tiffslide over HTTP with small blocks in many processes; wsistream, once, through its tiffslide, whose blocks cannot be set."""
    work = Work(*place, *KINDS["Grid"], STEPS)
    place[0].latency(latency)
    urls = {s.id: f"{place[0].storage.endpoint}/{network.BUCKET}/{s.url.rpartition('/')[2]}" for s in work.catalog.slides}
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(rates.rate(work.patches, work.stream))
        theirs.append(told_by("tiffslide", work, urls, REMOTE, tmp_path, processes=PROCESSES))
    streamed = told_by("wsistream", work, dict(list(urls.items())[:1]), 8, tmp_path)
    for name, found in (("tiffslide", theirs), ("wsistream", [streamed] * ROUNDS)):
        rates.told(f"Grid at {latency} ms, ours / {name}, per CPU-second", [r.cpu for r in ours], [r.cpu for r in found])
        rates.told(f"Grid at {latency} ms, ours / {name}, wall", [r.wall for r in ours], [r.wall for r in found])
