"""The engine's figures: from a bucket behind a line with latency, against the decoder alone and against OpenSlide on a local disk.

`make bench` prints them; those in RESULTS.md come from it. What is asserted guards against falling back; the floors are in RESULTS.md.
The native core, where it is built, fetches and decodes, decodes only, or does nothing in turn, in the same rounds.
"""

import collections
import functools
import os
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import openslide
import pytest
import simplejpeg

from patho_api import pretrain
from patho_trainer.data import columns, decode, fetching, index, native, sampler, storage, stream
from tests.bench import network, rates, tissue

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROUNDS = int(os.environ.get("PATHOSCALE_BENCH_ROUNDS", "7"))
BATCH, STEPS, SLIDES, THREADS, LATENCY_MS = 64, 40, 8, 2, 50
# what the native core does: (decodes, fetches)
DECODERS = {"native fetch and decode": (native.core, fetching.core), "native decode": (native.core, None), "Python": (None, None)}
if native.core is None:
    DECODERS = {"Python": (None, None)}
PAPER = (0.25, 0.5, 1.0, 2.0)
Requests = Sequence[sampler.Request]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Slides of 80,000 squared px in a bucket; the same files lie in `folder`."""
    root = tmp_path_factory.mktemp("bench")
    for i in range(SLIDES):
        tissue.write(root / network.BUCKET / f"{i}.tif", seed=i)
    with network.bucket(root) as found:
        yield found, root / network.BUCKET


def make_spec(found: network.Place, coordinates: str, magnifications: Sequence[float], batch_size: int) -> pretrain.PretrainSpec:
    """A run on the slides of a bucket."""
    return pretrain.PretrainSpec.model_validate(
        {
            "slides": {"source": found.url, "index": f"{found.url}index-{coordinates}-{len(magnifications)}"},
            "patches": {"magnifications": [{"mpp": mpp} for mpp in magnifications], "coordinates": coordinates},
            "training": {"batchSize": batch_size},
            "checkpoints": {"url": "unused"},
        }
    )


class Work:
    """Slides, what to read of them, and the ways to do so."""

    def __init__(self, found: network.Place, folder, coordinates: str, magnifications: Sequence[float], steps: int) -> None:
        self.folder = folder
        self.spec = make_spec(found, coordinates, magnifications, BATCH)
        self.steps, self.bucket = steps, storage.Bucket(found.storage)
        slides = self.spec.slides
        self.catalog = index.build(
            [slides.source], slides.index, patches=self.spec.patches, foreground=slides.foreground, bucket=self.bucket
        )
        plan = sampler.plan(self.catalog, self.spec, 0)
        self.requests: Requests = [r for step in range(steps) for r in plan.requests(step)]
        self.patches = len(self.requests)

    def stream(self, decoder: str = next(iter(DECODERS))) -> None:
        """All patches by the engine, fetched and decoded by one of DECODERS; by the best."""
        native.core, fetching.core = DECODERS[decoder]  # in this process only, which measures nothing else
        with stream.batches(self.catalog, self.spec, seed=0, stop_step=self.steps, bucket=self.bucket, threads=THREADS) as batches:
            assert sum(len(batch.slots) for batch in batches) == self.patches

    def limit(self, share: int) -> Callable[[], None]:
        """Nothing but libjpeg-turbo on every `share`-th patch: all tiles that it touches, whole, out of memory and into one buffer."""
        tiles, buffer = self._tiles(share), np.empty((tissue.TILE_PX, tissue.TILE_PX, 3), dtype=np.uint8)

        def work() -> None:
            for tile in tiles:
                simplejpeg.decode_jpeg(tile, colorspace="RGB", buffer=buffer)

        return work

    @functools.cache  # noqa: B019
    def _tiles(self, share: int) -> list[bytes]:
        found = []
        for patch in columns.patches(self.catalog, self.requests[::share]):
            slide = self.catalog.slides[patch.request.slide]
            data = memoryview(_content(self.folder / slide.url.rpartition("/")[2]))
            encoding = slide.levels[patch.request.level].encoding
            found += [bytes(decode.jpeg_file(encoding, data[offset : offset + size])) for offset, size, *_ in patch.tiles.tolist()]
        return found

    def openslide(self, share: int) -> Callable[[], None]:
        """Every `share`-th patch by OpenSlide from the local disk, the regions area-averaged by OpenCV; slides stay open."""
        requests, size = self.requests[::share], self.spec.patches.size_px
        opened = {s.url: openslide.OpenSlide(self.folder / s.url.rpartition("/")[2]) for s in self.catalog.slides}

        def work() -> None:
            for r in requests:
                handle = opened[self.catalog.slides[r.slide].url]
                region = np.asarray(handle.read_region(r.xy_level0, r.level, (r.source_px, r.source_px)).convert("RGB"))
                if r.source_px != size:
                    cv2.resize(region, (size, size), interpolation=cv2.INTER_AREA)

        return work


@functools.cache
def _content(path) -> bytes:
    return path.read_bytes()


def test_one_tile_patches_from_a_bucket_against_the_decoder_alone(place):
    """Patches that are stored tiles, at 50 ms: the share of the decoder's own speed; and the wall throughput against 0 ms."""
    work = Work(*place, "Grid", [0.25], STEPS)
    work.stream()
    limits, near, far = [], collections.defaultdict(list), collections.defaultdict(list)
    for _ in range(ROUNDS):
        limits.append(rates.rate(len(work.requests[::4]), work.limit(4)).cpu)
        for latency, results in ((0, near), (LATENCY_MS, far)):
            place[0].latency(latency)
            for decoder in DECODERS:
                results[decoder].append(rates.rate(work.patches, functools.partial(work.stream, decoder)))
    for decoder in DECODERS:
        cpu, wall = [r.cpu for r in far[decoder]], [r.wall for r in far[decoder]]
        share = rates.told(f"{decoder}: one-tile patches, 50 ms bucket / raw decode, per CPU-second", cpu, limits)
        kept = rates.told(f"{decoder}: wall throughput, 50 ms / 0 ms", wall, [r.wall for r in near[decoder]])
        assert share > 0.35
        assert kept > 0.7


def test_patches_anywhere_from_a_bucket_against_the_decoder_alone(place):
    """`Free` patches of 256 px, at 50 ms, against the whole decode of the tiles that they touch."""
    work = Work(*place, "Free", [0.25], STEPS)
    place[0].latency(LATENCY_MS)
    work.stream()
    limits, ours = [], collections.defaultdict(list)
    for _ in range(ROUNDS):
        limits.append(rates.rate(len(work.requests[::8]), work.limit(8)).cpu)
        for decoder in DECODERS:
            ours[decoder].append(rates.rate(work.patches, functools.partial(work.stream, decoder)).cpu)
    for decoder, found in ours.items():
        share = rates.told(f"{decoder}: Free patches, 50 ms bucket / decode of the tiles touched, per CPU-second", found, limits)
        assert share > 0.5


def test_the_papers_magnifications_from_a_bucket_against_openslide_on_a_local_disk(place):
    """0.25, 0.5, 1 and 2 um/px on levels 1/4/16; OpenSlide reads the same regions of the same levels."""
    work = Work(*place, "Free", PAPER, STEPS)
    place[0].latency(LATENCY_MS)
    work.stream()
    theirs, ours = [], collections.defaultdict(list)
    for _ in range(ROUNDS):
        for decoder in DECODERS:
            ours[decoder].append(rates.rate(work.patches, functools.partial(work.stream, decoder)).cpu)
        theirs.append(rates.rate(len(work.requests[::16]), work.openslide(16)).cpu)
    for decoder, found in ours.items():
        ratio = rates.told(f"{decoder}: four magnifications, 50 ms bucket / OpenSlide on a local disk, per CPU-second", found, theirs)
        assert ratio > 1.5
