"""What a slide offers, and the values that describe it: tables of cases, no file."""

import cv2
import numpy as np
import pytest

from patho_api import pretrain
from patho_trainer import errors
from patho_trainer.data import catalog, record, table


def levels(*mpps, size=100_000):
    return tuple(catalog.Level(round(size * mpps[0] / m), round(size * mpps[0] / m), m / mpps[0], m) for m in mpps)


def offered(mpps, wanted, tolerance=0.05):
    return catalog.offer(levels(*mpps), pretrain.Magnification(mpp=wanted), tolerance)


# levels' um/px, wanted um/px -> level, ratio; None: it would have to be upsampled
RULES = [
    ((0.25, 1.0, 4.0), 0.25, (0, 1.0)),
    ((0.2525, 1.01, 4.04), 0.25, (0, 1.0)),  # scanners scatter by 2 %: 0.2525 *is* 40x
    ((0.262, 1.05), 0.25, (0, 1.0)),
    ((0.27, 1.08), 0.25, None),  # coarser by more than 5 %
    ((0.5, 2.0), 0.25, None),
    ((0.25, 1.0, 4.0), 0.5, (0, 2.0)),  # the coarsest finer level
    ((0.25, 1.0, 4.0), 2.0, (1, 2.0)),
    ((0.25, 0.5, 1.0), 2.0, (2, 2.0)),
    ((0.2525, 1.01), 0.5, (0, 2.0)),  # 1.98 is as good as 2
    ((0.25,), 2.0, (0, 8.0)),
    ((0.33, 1.32), 0.5, (0, 0.5 / 0.33)),  # 1.515 is no integer, and stays
    ((0.25, 0.5001, 1.0004), 1.0, (2, 1.0)),
    ((0.48, 0.52), 0.5, (0, 1.0)),  # both within tolerance: the nearer, the finer of equals
    ((0.25, 1.0), 0.97, (1, 1.0)),
]


@pytest.mark.parametrize(("mpps", "wanted", "expected"), RULES)
def test_a_magnification_comes_from_the_right_level(mpps, wanted, expected):
    found = offered(mpps, wanted)
    assert (found and (found.level, pytest.approx(found.ratio))) == expected


# what scanners write -> for 40x, 20x, 10x, 5x: level and ratio, None where it would have to be upsampled
PYRAMIDS = {"1/2/4/8": (1, 2, 4, 8), "1/4/16": (1, 4, 16), "one level": (1,), "1/4.0001/16.003": (1, 4.0001, 16.003)}
SCANNED = [
    (0.2425, "1/2/4/8", [(0, 1), (1, 1), (2, 1), (3, 1)]),
    (0.2425, "1/4/16", [(0, 1), (0, 2), (1, 1), (1, 2)]),
    (0.2425, "one level", [(0, 1), (0, 2), (0, 4), (0, 8)]),
    (0.25, "1/4.0001/16.003", [(0, 1), (0, 2), (1, 1), (1, 2)]),
    (0.2525, "1/4.0001/16.003", [(0, 1), (0, 2), (1, 1), (1, 2)]),
    (0.2623, "1/2/4/8", [(0, 1), (1, 1), (2, 1), (3, 1)]),  # 4.9 % off
    (0.2623, "one level", [(0, 1), (0, 2), (0, 4), (0, 8)]),
    (0.27, "1/4/16", [None, (0, 0.5 / 0.27), (0, 1 / 0.27), (1, 2 / 1.08)]),  # 8 % off: averaged by a broken ratio
    (0.33, "1/4/16", [None, (0, 0.5 / 0.33), (0, 3), (1, 2 / 1.32)]),
    (0.46, "1/2/4/8", [None, (0, 0.5 / 0.46), (1, 1 / 0.92), (2, 2 / 1.84)]),
    (0.4950, "1/4/16", [None, (0, 1), (0, 2), (1, 1)]),
    (0.5, "1/2/4/8", [None, (0, 1), (1, 1), (2, 1)]),
    (0.5, "one level", [None, (0, 1), (0, 2), (0, 4)]),
    (0.5, "1/4.0001/16.003", [None, (0, 1), (0, 2), (1, 1)]),
]


@pytest.mark.parametrize(("base", "pyramid", "expected"), SCANNED)
def test_what_scanners_write_serves_the_papers_four_magnifications(base, pyramid, expected):
    found = [offered([base * d for d in PYRAMIDS[pyramid]], wanted) for wanted in (0.25, 0.5, 1.0, 2.0)]
    assert [each and (each.level, pytest.approx(each.ratio)) for each in found] == expected
    assert all(abs(each.mpp / each.wanted_mpp - 1) <= 0.05 / 0.95 for each in found if each)


def test_an_offer_carries_the_actual_resolution():
    assert offered((0.2525, 1.01), 0.5).mpp == pytest.approx(0.505)
    assert offered((0.2525,), 0.25).mpp == 0.2525


def test_without_tolerance_only_exact_resolutions_are_read_as_they_are():
    assert offered((0.24, 0.96), 0.25, tolerance=0).ratio == pytest.approx(0.25 / 0.24)


def slide(*mpps, positions=None, size=100_000):
    counted = {0.25: 5, 0.5: 5, 1.0: 5, 2.0: 5} | (positions or {})
    accepted = tuple(catalog.Accepted(mpp, 256, n) for mpp, n in counted.items())
    return catalog.Slide("a", "s3://b/a.svs", mpp=mpps[0], levels=levels(*mpps, size=size), accepted=accepted)


def weights(found):
    return {offer.wanted_mpp: pytest.approx(offer.weight) for offer in found}


def test_a_40x_slide_offers_all_four_equally_often():
    assert weights(catalog.offers(slide(0.25, 1.0), pretrain.Patches())) == {0.25: 0.25, 0.5: 0.25, 1.0: 0.25, 2.0: 0.25}


def test_weights_are_renormalised_over_what_a_20x_slide_has():
    third = 1 / 3
    assert weights(catalog.offers(slide(0.5, 2.0), pretrain.Patches())) == {0.5: third, 1.0: third, 2.0: third}


def test_a_magnification_without_an_accepted_position_is_not_offered():
    found = catalog.offers(slide(0.25, positions={2.0: 0, 1.0: 0}), pretrain.Patches())
    assert weights(found) == {0.25: 0.5, 0.5: 0.5}


def test_a_patch_has_to_fit_on_the_slide():
    found = catalog.fitting_offers(slide(0.25, size=1100).levels, pretrain.Patches())
    assert [offer.wanted_mpp for offer in found] == [0.25, 0.5, 1.0]


def test_an_index_built_for_other_patches_says_so():
    patches = pretrain.Patches(magnifications=[pretrain.Magnification(mpp=0.3)])
    with pytest.raises(errors.InvalidConfiguration, match=r"not built for patches of 256 px at 0\.3 um/px: run `patho index`"):
        catalog.offers(slide(0.25), patches)


def test_the_global_mix_weighs_slides_and_sums_to_one():
    mix = catalog.mix([slide(0.25), slide(0.5)], pretrain.Patches())
    assert mix == {0.25: pytest.approx(0.125), 0.5: pytest.approx(7 / 24), 1.0: pytest.approx(7 / 24), 2.0: pytest.approx(7 / 24)}


def test_fractions_are_nested_because_the_order_is_the_ids_hash():
    ids = [f"slide-{i}" for i in range(40)]
    large = catalog.Catalog("v", [catalog.Slide(i, i) for i in ids], lambda places: [])
    small = catalog.Catalog("v", [catalog.Slide(i, i) for i in ids[::2]], lambda places: [])
    order = [s.id for s in large.slides]
    assert [s.id for s in small.slides] == [i for i in order if i in ids[::2]]


def tiles(rows, columns, seed=0):
    """Offsets and sizes as a scanner writes them: back to back, 14.6 kB on average, every row of tiles after the other."""
    sizes = np.random.default_rng(seed).normal(14_600, 3_500, (rows, columns)).clip(900).astype(np.int64)
    offsets = 4_096 + np.concatenate([[0], np.cumsum(sizes.ravel())[:-1]]).reshape(rows, columns)
    return offsets, sizes


def test_a_record_gives_back_every_tile_and_the_mask():
    mask = np.random.default_rng(1).random((70, 53)) > 0.5
    found = record.Record(record.encode([tiles(150, 120), tiles(38, 30, 1)], mask))
    for level, (offsets, sizes) in enumerate([tiles(150, 120), tiles(38, 30, 1)]):
        np.testing.assert_array_equal(found.tiles(level), (offsets.ravel(), sizes.ravel()))
        rows, columns = np.random.default_rng(0).permuted(np.indices(sizes.shape).reshape(2, -1), axis=1)
        np.testing.assert_array_equal(found.at(level, rows, columns), (offsets[rows, columns], sizes[rows, columns]))
    np.testing.assert_array_equal(found.mask, mask)


@pytest.mark.parametrize("mask", [np.zeros((5, 7)), np.ones((5, 7)), np.eye(1), np.zeros((0, 0)), np.arange(12).reshape(3, 4) % 2])
def test_masks_of_every_kind_come_back(mask):
    found = record.Record(record.encode([], mask.astype(bool)))
    np.testing.assert_array_equal(found.mask, mask.astype(bool))


def test_a_record_keeps_tiles_in_any_order_and_those_that_are_left_out():
    offsets, sizes = tiles(5, 7)
    offsets, sizes = offsets[::-1].copy(), sizes[::-1].copy()
    sizes[2, 3] = 0
    found_offsets, found_sizes = record.Record(record.encode([(offsets, sizes)], np.ones((1, 1), dtype=bool))).tiles(0)
    np.testing.assert_array_equal(found_sizes, sizes.ravel())
    np.testing.assert_array_equal(found_offsets[found_sizes > 0], offsets.ravel()[sizes.ravel() > 0])


def ragged(edge, seed=0):
    """Tissue with rough edges and small holes in half of a slide: (edge, edge)."""
    random = np.random.default_rng(seed)
    shapes, rough = (cv2.resize(random.random((n, n), dtype=np.float32), (edge, edge), interpolation=cv2.INTER_CUBIC) for n in (12, 300))
    return shapes + 0.1 * rough > 0.6


def test_a_record_takes_at_most_two_bytes_a_tile_with_a_rough_mask():
    """Sizes are noise all over the slide: more than a real one has, whose glass is alike."""
    pyramid = [tiles(312, 312), tiles(78, 78, 1), tiles(20, 20, 2)]
    mask = ragged(2500)
    data = record.encode(pyramid, mask)
    assert len(data) / sum(sizes.size for _, sizes in pyramid) <= 2.0
    np.testing.assert_array_equal(record.Record(data).mask, mask)


def test_another_mask_leaves_the_tiles_alone():
    first = record.Record(record.encode([tiles(9, 9)], np.zeros((0, 0), dtype=bool)))
    second = record.Record(first.with_mask(np.eye(12, dtype=bool)))
    np.testing.assert_array_equal(second.mask, np.eye(12))
    np.testing.assert_array_equal(second.tiles(0), first.tiles(0))


def test_bytes_of_something_else_are_no_record():
    with pytest.raises(ValueError, match="not a slide record"):
        record.Record(b"PAR1....")


def test_a_table_gives_back_every_field():
    encoding = catalog.Encoding(7, 6, jpeg_tables=b"\xff\xd8\xff\xd9")
    full = catalog.Slide(
        id="a",
        url="gs://b/a.svs",
        size=5,
        etag="e",
        reader="openslide",
        mpp=0.25,
        levels=(catalog.Level(10, 20, 1.0, 0.25, 8, 8, encoding),),
        label="tumour",
        patient="p",
        weight=2.0,
        flags=frozenset({"held_out"}),
        accepted=(catalog.Accepted(0.25, 256, 3),),
        place=catalog.Place("tiles-00000.bin", 7, 9),
    )
    bare = catalog.Slide("b", "gs://b/b.svs", rejected="NoMpp", message="says nothing")
    rows = [table.Row(full, "key"), table.Row(bare, "")]
    assert table.read(table.write(rows, {"version": "v"})) == (rows, {"version": "v"})


def test_records_are_fetched_once_and_together():
    data = record.encode([tiles(2, 2)], np.ones((1, 1), dtype=bool))
    calls = []

    def fetch(places):
        calls.append([place.object for place in places])
        return [data] * len(places)

    slides = [catalog.Slide(str(i), str(i), place=catalog.Place(f"tiles-{i}.bin", 0, len(data))) for i in range(4)]
    found = catalog.Catalog("v", slides, fetch)
    found.records([2, 0, 2])
    found.records([0, 1, 2])
    assert [len(call) for call in calls] == [2, 1]
