"""What the loader costs the thread that trains: time in which it could run and has a core, but the interpreter's lock is taken, and the
time on a core that taking a batch costs.

Wall time less time on a core (the thread's own clock), less time in the queue for one (/proc/self/task/ID/schedstat: the machine is
shared), less the wait for a batch. As a share of the time on a core: of a step that nothing disturbs.
"""

import contextlib
import statistics
import threading
import time

import pytest
import torch

from patho_trainer.data import child, index, storage, stream
from tests.bench import network, tissue
from tests.bench.test_streaming import make_spec

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

ROUNDS, STEPS, BATCH, WIDTH, LAYERS, OPERATIONS = 5, 30, 32, 384, 12, 200


def clock() -> tuple[float, float, float]:
    """Seconds of this thread: wall, on a core, in the queue for one."""
    with open(f"/proc/self/task/{threading.get_native_id()}/schedstat", encoding="ascii") as file:
        _, queued, _ = file.read().split()  # its first number is as old as the last tick, up to 4 ms
    return time.perf_counter(), time.thread_time(), int(queued) / 1e9


def blocked(work) -> tuple[float, float]:
    """Seconds in which this thread neither ran nor waited for a core, and seconds that it ran."""
    before = clock()
    work()
    wall, running, queued = (b - a for a, b in zip(before, clock(), strict=True))
    return wall - running - queued, running


def step(layers, x) -> None:
    """Many small operations, as a training step launches on a GPU."""
    for i in range(OPERATIONS):
        x = torch.nn.functional.layer_norm(torch.nn.functional.gelu(layers[i % LAYERS](x)), (WIDTH,))


def lost(batches) -> float:
    """The share of the steps' time that is lost while batches are read beside them: to the lock, and to taking a batch."""
    layers, x = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)], torch.randn(BATCH, WIDTH)
    found = []
    with torch.no_grad():
        for _ in range(STEPS):
            _, taking = blocked(lambda: next(batches))
            found.append((taking, *blocked(lambda: step(layers, x))))
    return sum(taking + waiting for taking, waiting, _ in found) / sum(running for *_, running in found)


def test_a_training_thread_loses_little_to_a_loader_in_a_process_of_its_own(tmp_path):
    torch.set_num_threads(1)
    for i in range(4):
        tissue.write(tmp_path / network.BUCKET / f"{i}.tif", 4096, seed=i)
    results = {"no loader": [], "in threads": [], "in a process": []}
    with network.bucket(tmp_path, 20) as place:
        spec = make_spec(place, "Grid", [0.25], BATCH)
        bucket = storage.Bucket(place.storage)
        found = index.build([spec.slides.source], spec.slides.index, patches=spec.patches, foreground=spec.slides.foreground, bucket=bucket)
        kinds = {
            "no loader": lambda: contextlib.nullcontext(iter(range(STEPS))),
            "in threads": lambda: stream.batches(found, spec, seed=0, bucket=bucket, threads=1),
            "in a process": lambda: child.batches(found, spec, seed=0, bucket=bucket, threads=1),
        }
        for _ in range(ROUNDS):
            for name, make in kinds.items():
                with make() as batches:
                    results[name].append(lost(batches))
    for name, shares in results.items():
        print(f"\nlost to the interpreter's lock, {name}: {statistics.median(shares):.2%} ({min(shares):.2%} to {max(shares):.2%})")
    assert statistics.median(results["in a process"]) < 0.02
