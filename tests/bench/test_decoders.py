"""Decoding alone: what painting costs by the native core and by Python, against the whole decode of the tiles touched. CPU time."""

import time

import numpy as np
import pytest
import simplejpeg

from patho_trainer.data import catalog, columns, copies, decode, native, painting, sampler, slide, stats, storage
from tests.bench import rates, tissue

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

ROUNDS, PATCHES, ACROSS, SIZE_PX = 9, 60, 12, 256
LEVEL_PX = ACROSS * tissue.TILE_PX
ENCODING = catalog.Encoding(compression=decode.JPEG, photometric=decode.YCBCR)
LEVEL = catalog.Level(LEVEL_PX, LEVEL_PX, 1.0, tissue.MPP, tissue.TILE_PX, tissue.TILE_PX, ENCODING)
CASES = {"one tile": (SIZE_PX, tissue.TILE_PX), "anywhere, 256 px": (SIZE_PX, 1), "anywhere, 512 px averaged": (2 * SIZE_PX, 1)}


@pytest.fixture(scope="module")
def tiles():
    """A level of one slide: compressed tiles, row by row."""
    random = np.random.default_rng(0)
    return [tissue._compress(tissue._tile(random, 1), random) for _ in range(ACROSS * ACROSS)]


def make_job(tiles, edge, grid, random):
    """A patch somewhere, its corner on a multiple of `grid` pixels."""
    x, y = (int(v) * grid for v in random.integers(0, (LEVEL_PX - edge) // grid + 1, 2))
    facts = catalog.Slide("a", "a", levels=(LEVEL,))
    reads = slide.plan(facts, Places([len(tile) for tile in tiles]), 0, x, y, edge, edge)
    request = sampler.Request(0, 0, 0, LEVEL.mpp, 0, x, y, edge, SIZE_PX, (x, y))
    out = np.empty((SIZE_PX, SIZE_PX, 3), np.uint8)
    table = np.array([read._replace(buffer=read.offset) for read in reads])
    return painting.Job(facts, columns.Patch(request, table), tiles, out)


class Places:
    """Positions of tiles, as a record gives them: a tile's offset is its number."""

    def __init__(self, sizes) -> None:
        self.sizes = np.array(sizes)

    def at(self, level, rows, columns):
        offsets = rows * ACROSS + columns
        return offsets, self.sizes[offsets]


def per_second(count, work):
    """How often a second of CPU time of this thread some work was done."""
    start = time.thread_time()
    work()
    return count / (time.thread_time() - start)


@pytest.mark.skipif(native.core is None, reason="NOT RUN: the native core is not built: make native")
@pytest.mark.parametrize("case", CASES)
def test_painting_by_the_native_core_against_python_and_the_decoder_alone(case, tiles, monkeypatch):
    edge, grid = CASES[case]
    random, buffer = np.random.default_rng(1), np.empty((tissue.TILE_PX, tissue.TILE_PX, 3), np.uint8)
    jobs = [make_job(tiles, edge, grid, random) for _ in range(PATCHES)]
    touched = [tiles[offset] for job in jobs for offset, *_ in job.patch.tiles.tolist()]
    local, counters, core = copies.Copies(storage.Bucket()), stats.Stats(), native.core
    found = {"native": [], "Python": [], "decoder alone": []}
    for _ in range(ROUNDS):
        for name, decoder in (("native", core), ("Python", None)):
            monkeypatch.setattr(native, "core", decoder)
            found[name].append(per_second(PATCHES, lambda: painting.paint(jobs, local, counters)))
        alone = per_second(PATCHES, lambda: [simplejpeg.decode_jpeg(tile, colorspace="RGB", buffer=buffer) for tile in touched])
        found["decoder alone"].append(alone)
    assert rates.told(f"{case}: native / decoder alone, patches per CPU-second", found["native"], found["decoder alone"]) > 1
    assert rates.told(f"{case}: native / Python, patches per CPU-second", found["native"], found["Python"]) > 1
