"""Which tiles regions touch, for many regions at once."""

import numpy as np

from patho_trainer.data import tiles

LEVEL = 50, 41
TILE = 16, 12


def regions(count):
    """Rectangles on, across and off the edges of a level of 50 x 41 px in tiles of 16 x 12."""
    random = np.random.default_rng(0)
    corners, sizes = random.integers(-30, 60, (2, count)), random.integers(1, 40, (2, count))
    return tiles.Regions(*corners, *sizes, *(np.full(count, edge) for edge in (*LEVEL, *TILE)))


def test_every_pixel_of_many_regions_comes_from_where_it_lies():
    of = regions(300)
    found = tiles.touched(of)
    for k, (x, y, width, height, *_) in enumerate(zip(*of, strict=True)):
        image = np.full((height, width, 2), -1)
        here = found.region == k
        for row, column, read in zip(found.row[here], found.column[here], found.table[here], strict=True):
            tile = np.array([row * TILE[1], column * TILE[0]]) + np.moveaxis(np.indices(TILE[::-1]), 0, -1)
            one = tiles.TileRead(*read)
            assert (image[one.target] == -1).all()
            image[one.target] = tile[one.source]
        expected = np.array([y, x]) + np.moveaxis(np.indices((height, width)), 0, -1)
        expected[((expected < 0) | (expected >= LEVEL[::-1])).any(axis=2)] = -1
        np.testing.assert_array_equal(image, expected)
    assert set(range(300)) > set(found.region)  # some are off the level


def test_a_range_is_numbered_once_in_its_group_and_what_is_left_out_not_at_all():
    reads = [(30, 5), (10, 5), (30, 5), (0, 0), (10, 5), (10, 6), (2, 1)]
    table = np.array([tiles.TileRead(offset, size, 0, 0, 1, 1, 0, 0) for offset, size in reads])
    groups, rows = tiles.numbered(table, np.array([0, 0, 0, 0, 2, 2, 2]))
    assert table[:, tiles.BUFFER].tolist() == [1, 0, 1, -1, 1, 2, 0]
    assert groups.tolist() == [0, 0, 2, 2, 2]
    assert [reads[row] for row in rows] == [(10, 5), (30, 5), (2, 1), (10, 5), (10, 6)]
