"""How long training waits for data when a step takes as long as the loader computes for its batch: with one core's worth of loading.

The step is a sleep, as that of a process whose GPU computes; the bucket is 50 ms away.
"""

import statistics
import time

import pytest

from patho_trainer.data import index, storage, stream
from tests.bench import network, tissue
from tests.bench.test_streaming import make_spec

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

ROUNDS, STEPS, FIRST, BATCH, THREADS, LATENCY_MS = 3, 64, 16, 64, 2, 50


def waits(batches, step_seconds: float) -> float:
    """Share of the time that a loop waits for its batches, once the first ones are there."""
    for _ in range(FIRST):
        next(batches)
    waited, begin = 0.0, time.perf_counter()
    for _ in range(STEPS):
        before = time.perf_counter()
        next(batches)
        waited += time.perf_counter() - before
        time.sleep(step_seconds)
    return waited / (time.perf_counter() - begin)


def test_training_hardly_waits_for_a_loader_that_costs_one_core(tmp_path):
    for i in range(4):
        tissue.write(tmp_path / network.BUCKET / f"{i}.tif", 4096, seed=i)
    with network.bucket(tmp_path, LATENCY_MS) as place:
        spec, bucket = make_spec(place, "Free", [0.25], BATCH), storage.Bucket(place.storage)
        found = index.build([spec.slides.source], spec.slides.index, patches=spec.patches, foreground=spec.slides.foreground, bucket=bucket)

        def stream_from(seed: int) -> stream.Batches:
            return stream.batches(found, spec, seed=seed, stop_step=FIRST + STEPS, bucket=bucket, threads=THREADS)

        results = []
        for seed in range(ROUNDS):
            begin = time.process_time()
            with stream_from(seed) as batches:
                steps = sum(1 for _ in batches)
            step_seconds = (time.process_time() - begin) / steps
            with stream_from(seed) as batches:
                results.append((waits(batches, step_seconds), step_seconds))
    shares = [share for share, _ in results]
    print(
        f"\na step of {1000 * statistics.median(s for _, s in results):.0f} ms, as long as the loader computes for {BATCH} patches: waits "
        f"{statistics.median(shares):.2%} ({min(shares):.2%} to {max(shares):.2%}) of the time"
    )
    assert statistics.median(shares) <= 0.01
