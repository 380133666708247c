"""How long training waits for data when a step takes as long as the loader computes for its batch: with one core's worth of loading.

The step is a sleep, as that of a process whose GPU computes, so the loader is the child process that such a run gets; beside it, in turns,
the threads of a run on a CPU, which wait for the interpreter's lock as well. The bucket is 50 ms away.
"""

import statistics
import time

import pytest

from patho_trainer.data import child, index, storage, stream
from tests.bench import network, tissue
from tests.bench.test_streaming import make_spec

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

ROUNDS, STEPS, FIRST, BATCH, THREADS, LATENCY_MS = 3, 40, 10, 256, 2, 50


def waits(batches, step_seconds: float) -> float:
    """Share of the time that a loop waits for its batches, after its first ones, which come at the same pace."""
    waited, begin = 0.0, 0.0
    for step in range(FIRST + STEPS):
        before = time.perf_counter()
        next(batches)
        if step == FIRST:
            waited, begin = 0.0, before
        waited += time.perf_counter() - before
        time.sleep(step_seconds)
    return waited / (time.perf_counter() - begin)


def test_training_hardly_waits_for_a_loader_that_costs_one_core(tmp_path):
    for i in range(4):
        tissue.write(tmp_path / network.BUCKET / f"{i}.tif", 4096, seed=i)
    with network.bucket(tmp_path, LATENCY_MS) as place:
        spec, bucket = make_spec(place, "Free", [0.25], BATCH), storage.Bucket(place.storage)
        found = index.build([spec.slides.source], spec.slides.index, patches=spec.patches, foreground=spec.slides.foreground, bucket=bucket)

        options = {"stop_step": FIRST + STEPS, "bucket": bucket, "threads": THREADS}
        results = []
        for seed in range(ROUNDS):
            begin = time.process_time()
            with stream.batches(found, spec, seed=seed, **options) as batches:
                steps = sum(1 for _ in batches)
            step_seconds = (time.process_time() - begin) / steps
            with child.batches(found, spec, seed=seed, **options) as batches:
                apart = waits(batches, step_seconds)
            with stream.batches(found, spec, seed=seed, **options) as batches:
                results.append((apart, waits(batches, step_seconds), step_seconds))
    apart, inside, seconds = zip(*results, strict=True)
    print(f"\na step of {1000 * statistics.median(seconds):.0f} ms, as long as the loader computes for {BATCH} patches, waits")
    for name, shares in (("in a process", apart), ("in threads", inside)):
        print(f"loader {name}: {statistics.median(shares):.2%} ({min(shares):.2%} to {max(shares):.2%}) of the time")
    assert statistics.median(apart) <= 0.01
