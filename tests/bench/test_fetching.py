"""Fetching alone: what a range of a tile's size costs by the native core and by obstore, from a bucket behind 50 ms. CPU time."""

import asyncio
import os
import random

import pytest

from patho_trainer.data import fetching, storage
from tests.bench import network, rates

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROUNDS = int(os.environ.get("PATHOSCALE_BENCH_ROUNDS", "7"))
OBJECTS, OBJECT_BYTES, RANGE_BYTES, SPACING = 8, 40_000_000, 17_000, 40_000
COLUMNS, PER_COLUMN, AT_ONCE, LATENCY_MS = 300, 16, 64, 50


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Objects of random bytes in a bucket behind a line with latency."""
    root = tmp_path_factory.mktemp("bench")
    (root / network.BUCKET).mkdir()
    for i in range(OBJECTS):
        (root / network.BUCKET / f"{i}.bin").write_bytes(random.Random(i).randbytes(OBJECT_BYTES))
    with network.bucket(root, LATENCY_MS) as found:
        yield found


async def fetch(bucket: storage.Bucket, url: str, seed: int) -> None:
    """Columns of ranges that do not touch, so many at once."""
    draw, gate = random.Random(seed), asyncio.Semaphore(AT_ONCE)

    async def column() -> None:
        starts = sorted(draw.sample(range(0, OBJECT_BYTES - RANGE_BYTES, SPACING), PER_COLUMN))
        async with gate:
            _, found = await bucket.read_checked_async(f"{url}{draw.randrange(OBJECTS)}.bin", starts, [RANGE_BYTES] * PER_COLUMN)
        assert {len(buffer) for buffer in found} == {RANGE_BYTES}

    await asyncio.gather(*(column() for _ in range(COLUMNS)))


@pytest.mark.skipif(fetching.core is None, reason="NOT RUN: the native core is not built: make native")
def test_fetching_by_the_native_core_against_obstore(place, monkeypatch):
    """Ranges per CPU-second of this process."""
    found = {"native": [], "obstore": []}
    for seed in range(ROUNDS):
        for name, core in (("native", fetching.core), ("obstore", None)):
            with monkeypatch.context() as patch:
                patch.setattr(fetching, "core", core)
                bucket = storage.Bucket(place.storage)
                found[name].append(rates.rate(COLUMNS * PER_COLUMN, lambda: asyncio.run(fetch(bucket, place.url, seed))).cpu)  # noqa: B023
    assert rates.told("fetching alone: native core / obstore, ranges per CPU-second", found["native"], found["obstore"]) > 1.3
