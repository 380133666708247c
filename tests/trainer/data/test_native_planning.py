"""The native core against Python where patches are planned: tile positions, masks, the shares of rectangles on these."""

import shutil
import sys
import types
import zlib

import numpy as np
import pytest

from patho_trainer.data import core, places, record

if core.load() is None:
    WHY = "make native builds it" if shutil.which("cargo") else "no cargo"
    pytest.skip(f"NOT RUN: native planning: {WHY}", allow_module_level=True)

MASKS = {
    "noise": lambda random: random.random((170, 133)) < 0.5,
    "speckles, far from each other": lambda random: random.random((900, 1200)) < 1e-5,
    "a box": lambda random: np.pad(np.ones((40, 31), bool), ((12, 30), (9, 2))),
    "all": lambda random: np.ones((33, 64), bool),
    "nothing": lambda random: np.zeros((33, 65), bool),
    "one pixel": lambda random: np.ones((1, 1), bool),
    "no pixel": lambda random: np.ones((0, 0), bool),
}


@pytest.fixture(params=MASKS)
def mask(request):
    return MASKS[request.param](np.random.default_rng(0))


def make_level(random, shape):
    """Offsets and sizes in any order, near and far, some left out."""
    sizes = random.integers(0, 2 ** random.choice([8, 16, 20]), shape) * (random.random(shape) < 0.9)
    return random.integers(0, 2 ** random.choice([20, 40]), shape), sizes


@pytest.mark.parametrize("shape", [(1, 1), (150, 120), (7, 3000), (4100, 1)])
def test_tiles_are_found_where_python_finds_them(shape, monkeypatch):
    random = np.random.default_rng(shape)
    found = record.Record(record.encode([make_level(random, shape) for _ in range(2)], np.zeros((3, 3), bool)))
    rows, columns = (random.integers(0, count, 500) for count in shape)
    by_core = [found.at(level, rows, columns) for level in (0, 1)]
    assert not found._decoded  # Python has unpacked no page
    monkeypatch.setattr(record, "native", None)
    np.testing.assert_array_equal(by_core, [found.at(level, rows, columns) for level in (0, 1)])


def test_a_damaged_page_is_left_to_python():
    data = record.encode([make_level(np.random.default_rng(0), (20, 20))], np.zeros((0, 0), bool))
    with pytest.raises(zlib.error):
        record.Record(data[:-300] + bytes(300)).at(0, np.array([19]), np.array([19]))


@pytest.mark.parametrize("wrong", [(20, 0), (0, 20), (-1, 0)])
def test_a_tile_that_a_level_has_not_is_refused(wrong):
    found = record.Record(record.encode([make_level(np.random.default_rng(0), (20, 20))], np.zeros((0, 0), bool)))
    offsets = np.zeros(1, np.int64)
    bounds = np.array([found._pages[0][0][0], found._pages[0][0][1]])
    assert not record.native.locate(found._data, bounds, found._shapes[0], *np.array([wrong]).T.copy(), offsets, offsets.copy())


@pytest.mark.parametrize("columns", [2**20, 2**40, 2**62])
def test_a_page_of_more_tiles_than_its_bytes_can_hold_takes_no_memory(columns):
    data = record.encode([make_level(np.random.default_rng(0), (20, 20))], np.zeros((0, 0), bool))
    found = record.Record(data)
    found._shapes = [(20, columns, 20)]  # as a damaged directory says
    with pytest.raises(IndexError):  # Python's
        found.at(0, np.array([3]), np.array([400]))


def test_a_mask_is_unpacked_as_python_does(mask, monkeypatch):
    found = record.Record(record.encode([], mask))
    by_core = found.packed_mask
    np.testing.assert_array_equal(found.mask, mask)
    monkeypatch.setattr(record, "native", None)
    np.testing.assert_array_equal(by_core[2], found.packed_mask[2])


@pytest.mark.parametrize("damage", [lambda d: d[:3], lambda d: d[:-1], lambda d: b"\xff\xff\xff\xff" + d[4:], lambda d: d + bytes(4)])
def test_a_damaged_mask_is_not_half_unpacked(damage):
    distances = zlib.decompress(record._pack_mask(np.eye(400, dtype=bool)))
    assert core.load().unpack_mask(distances, 400, 400) is not None
    assert core.load().unpack_mask(damage(distances), 400, 400) is None


def test_a_mask_larger_than_any_slides_is_refused():
    data = record.encode([], np.zeros((30, 40), bool)).replace(b"[30,40,", b"[%d,%d," % (2**20, 2**20))
    found = record.Record(data[:4] + (data.index(b"}") + 1 - 8).to_bytes(4, "little") + data[8:])
    assert core.load().unpack_mask(bytes(4), 2**60, 2**60) is None
    with pytest.raises(ValueError, match="has a mask of 1048576 x 1048576 px: build the index anew"):
        _ = found.packed_mask


@pytest.mark.parametrize("size", [(8.0, 8.0), (0.3, 0.7), (6.5, 4.25), (64.0, 300.5)])
def test_shares_of_rectangles_are_pythons(mask, size):
    tissue, random = places.tissue(mask), np.random.default_rng(1)
    tops, lefts = (np.sort(random.uniform(-70, edge + 5, 60)) for edge in mask.shape)
    tops[:20], lefts[:20] = np.floor(tops[:20]), np.floor(lefts[:20])
    by_core = places._counted(tissue.packed, np.sort(tops), np.sort(lefts), size)
    np.testing.assert_allclose(by_core, places._summed(tissue.integral(), np.sort(tops), np.sort(lefts), size), atol=places.ROUNDING / 10)


def test_a_core_of_another_version_is_named_and_not_used(monkeypatch):
    old = types.ModuleType("patho_native")
    old.__file__ = "/somewhere/patho_native.so"
    monkeypatch.setitem(sys.modules, "patho_native", old)
    assert core.load() is None


def test_no_core_at_all_is_fine(monkeypatch):
    monkeypatch.setitem(sys.modules, "patho_native", None)
    assert core.load() is None
