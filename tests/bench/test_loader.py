"""The loader against OpenSlide on the same patches: patches per CPU-second, interleaved rounds, medians with spread.

`make bench` prints the numbers; those in RESULTS.md come from it.
"""

import statistics
import time
from collections.abc import Callable, Sequence

import openslide
import pytest

from patho_api import pretrain
from patho_trainer.data import catalog, index, sampler, storage, stream
from tests.trainer import slides

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1200)]

ROUNDS, STEPS, BATCH, SLIDES, EDGE_PX = 5, 12, 32, 4, 4096
Requests = Sequence[sampler.Request]


def make_spec(folder, coordinates: str) -> pretrain.PretrainSpec:
    return pretrain.PretrainSpec.model_validate(
        {
            "slides": {"source": f"{folder}/slides/", "index": f"{folder}/index-{coordinates}"},
            "patches": {"magnifications": [{"mpp": 0.25}], "coordinates": coordinates},
            "training": {"batchSize": BATCH},
            "checkpoints": {"url": f"{folder}/run"},
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Slides of 4096 x 4096 px with 256 px JPEG tiles, on a local disk."""
    folder = tmp_path_factory.mktemp("bench")
    for i in range(SLIDES):
        slides.write(folder / "slides" / f"{i}.tif", slides.Recipe(((EDGE_PX, EDGE_PX),), mpp=0.25, tile=256, seed=i))
    return folder


def cpu_rate(patches: int, work: Callable[[], None]) -> float:
    """Patches a CPU-second of this process, all its threads together."""
    before = time.process_time()
    work()
    return patches / (time.process_time() - before)


def by_openslide(found: catalog.Catalog, requests: Requests, size_px: int) -> None:
    """The same patches as people read them: RGBA from OpenSlide, converted to RGB; slides stay open."""
    opened = {i: openslide.OpenSlide(found.slides[i].url) for i in {r.slide for r in requests}}
    for r in requests:
        opened[r.slide].read_region(r.xy_level0, r.level, (size_px, size_px)).convert("RGB")
    for each in opened.values():
        each.close()


@pytest.mark.parametrize(("coordinates", "floor"), [("Grid", 2.0), ("Free", 1.0)])
def test_a_patch_costs_less_than_by_openslide(folder, coordinates, floor):
    spec = make_spec(folder, coordinates)
    bucket = storage.Bucket()
    found = index.build([spec.slides.source], spec.slides.index, patches=spec.patches, bucket=bucket)
    requests = [r for step in range(STEPS) for r in sampler.requests(found, spec, 0, step)]

    def by_stream() -> None:
        with stream.batches(found, spec, seed=0, stop_step=STEPS, bucket=bucket, threads=2) as batches:
            assert sum(len(batch.slots) for batch in batches) == len(requests)

    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(cpu_rate(len(requests), by_stream))
        theirs.append(cpu_rate(len(requests), lambda: by_openslide(found, requests, spec.patches.size_px)))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    print(
        f"\n{coordinates}: {statistics.median(ours):,.0f} patches per CPU-second, OpenSlide {statistics.median(theirs):,.0f}; "
        f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}, {ROUNDS} rounds)"
    )
    assert statistics.median(ratios) > floor
