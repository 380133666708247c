"""The sampler: a pure function from a step to the patches of its global batch."""

import collections
import tracemalloc

import numpy as np
import pytest
import scipy.stats

from patho_trainer import errors, keyed
from patho_trainer.data import draws, places, sampler
from tests.trainer.data.values import MAGNIFICATIONS, make_catalog, make_levels, make_mask, make_slide, make_spec

# (slide, mpp, level, x, y) of one step, written down when the rules were made: a change makes runs unrepeatable across releases
GOLDEN = [(1, 1.0, 1, 771, 542), (2, 0.5, 0, 5789, 3995), (5, 2.0, 1, 791, 873)]


def coverage(mask, slide, request):
    """Share of a patch on the mask, counted pixel by pixel."""
    per_mask_px = slide.width / mask.shape[1]
    edge = request.source_px * slide.levels[request.level].downsample
    x, y = (corner * slide.levels[request.level].downsample for corner in (request.x, request.y))
    fine = np.arange(64) / 64 * edge
    rows, columns = ((start + fine) / per_mask_px for start in (y, x))
    return mask[np.ix_(rows.astype(int), columns.astype(int))].mean()


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_its_authors(counter, key, words):  # Random123 1.14, kat_vectors, philox4x32 10
    assert tuple(int(w) for w in draws.philox(tuple(np.uint64(c) for c in counter), key)) == words


def test_the_same_step_gives_the_same_batch_whatever_was_asked_before():
    spec = make_spec()
    first = sampler.requests(make_catalog(20), spec, 0, 17)
    other = make_catalog(20)
    for step in (3, 400, 16):
        sampler.requests(other, spec, 0, step)
    assert sampler.requests(other, spec, 0, 17) == first
    assert [r.slot for r in first] == list(range(8))


def test_another_seed_gives_other_patches():
    catalog, spec = make_catalog(20), make_spec()
    assert sampler.requests(catalog, spec, 0, 5) != sampler.requests(catalog, spec, 1, 5)


def test_the_golden_step_has_not_changed():
    requests = sampler.requests(make_catalog(20), make_spec(batch_size=3), 7, 1000)
    assert [(r.slide, r.mpp, r.level, r.x, r.y) for r in requests] == GOLDEN


@pytest.mark.parametrize("coordinates", ["Free", "Grid"])
def test_patches_lie_on_the_slide_and_on_tissue(coordinates):
    catalog, spec = make_catalog(6), make_spec(patches={"coordinates": coordinates}, slides={"foreground": {"minCoverage": 0.4}})
    requests = [r for step in range(60) for r in sampler.requests(catalog, spec, 0, step)]
    for r in requests:
        level = catalog.slides[r.slide].levels[r.level]
        assert 0 <= r.x <= level.width - r.source_px
        assert 0 <= r.y <= level.height - r.source_px
    shares = [coverage(make_mask(catalog.slides[r.slide]), catalog.slides[r.slide], r) for r in requests]
    assert min(shares) > 0.4 - 0.02  # counted on 64 x 64 points


def test_free_corners_are_spread_evenly_over_the_slide():
    catalog = make_catalog(4, mask=lambda slide: np.ones_like(make_mask(slide)))
    spec = make_spec(batch_size=64, patches={"magnifications": [{"mpp": 0.25}]})
    xs = [r.x for step in range(40) for r in sampler.requests(catalog, spec, 0, step)]
    assert scipy.stats.kstest(xs, "uniform", args=(0, 8192 - 256 + 1)).pvalue > 0.01


def test_free_positions_are_uniform_over_the_area_that_tissue_allows():
    catalog = make_catalog(4)  # tissue in the middle half, each way: 4096 x 3072 px of level 0
    spec = make_spec(batch_size=64, patches={"magnifications": [{"mpp": 0.25}]}, slides={"foreground": {"minCoverage": 1.0}})
    requests = [r for step in range(60) for r in sampler.requests(catalog, spec, 3, step)]
    xs, ys = ([getattr(r, axis) for r in requests] for axis in "xy")
    box = [[2048 + 64, 6144 - 256 - 64], [1536 + 64, 4608 - 256 - 64]]  # well inside, where no cell is cut
    counts, *_ = np.histogram2d(xs, ys, bins=(8, 6), range=box)
    assert scipy.stats.chisquare(counts.ravel()).pvalue > 0.01
    assert min(xs) >= 2048
    assert max(xs) <= 6144 - 256


def test_grid_positions_are_the_accepted_tiles_equally_often():
    catalog = make_catalog(4)
    spec = make_spec(batch_size=64, patches={"coordinates": "Grid", "magnifications": [{"mpp": 0.25}]})
    counts = collections.Counter((r.x, r.y) for step in range(100) for r in sampler.requests(catalog, spec, 3, step))
    assert len(counts) == 16 * 12  # the tiles of the tissue
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 0.01


def test_grid_takes_whole_stored_tiles_of_native_levels():
    catalog, spec = make_catalog(6), make_spec(patches={"coordinates": "Grid"})
    requests = [r for step in range(40) for r in sampler.requests(catalog, spec, 0, step)]
    assert {(r.x % 256, r.y % 256, r.source_px) for r in requests} == {(0, 0, 256)}
    assert {r.mpp for r in requests} == {0.25, 1.0}  # 0.5 and 2.0 are stored nowhere


def test_magnifications_come_as_often_as_they_weigh():
    weights = [4, 2, 1, 1]
    wanted = [{"mpp": mpp, "weight": weight} for mpp, weight in zip(MAGNIFICATIONS, weights, strict=True)]
    catalog, spec = make_catalog(40), make_spec(batch_size=64, patches={"magnifications": wanted})
    counts = collections.Counter(r.mpp for step in range(50) for r in sampler.requests(catalog, spec, 3, step))
    observed = [counts[mpp] for mpp in MAGNIFICATIONS]
    assert scipy.stats.chisquare(observed, np.array(weights) / 8 * sum(observed)).pvalue > 0.01


def test_a_slide_that_lacks_a_magnification_shares_its_weight_among_the_others():
    catalog = make_catalog([make_slide("a", make_levels(mpp=0.5), magnifications=(0.5, 1.0, 2.0))])
    counts = collections.Counter(r.mpp for step in range(200) for r in sampler.requests(catalog, make_spec(), 0, step))
    assert set(counts) == {0.5, 1.0, 2.0}
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 0.01


@pytest.mark.parametrize(
    ("base_mpp", "wanted", "source_px", "mpp"),
    [(0.2525, 0.25, 256, 0.2525), (0.2525, 0.5, 512, 0.505), (0.25, 2.0, 512, 2.0), (0.3, 0.5, 427, 0.3 * 427 / 256)],
)
def test_a_request_carries_the_actual_resolution(base_mpp, wanted, source_px, mpp):
    catalog = make_catalog([make_slide("a", make_levels(mpp=base_mpp), magnifications=(wanted,))])
    request = sampler.requests(catalog, make_spec(patches={"magnifications": [{"mpp": wanted}]}), 0, 0)[0]
    assert request.source_px == source_px
    assert request.mpp == pytest.approx(mpp, rel=0.005)


def test_few_tissue_pixels_are_found_where_no_patch_sized_cell_has_enough():
    def speck(slide):
        mask = np.zeros_like(make_mask(slide))
        mask[100:106, 123:129] = True
        return mask

    catalog = make_catalog([make_slide("a", magnifications=(0.25,))], mask=speck)
    spec = make_spec(patches={"magnifications": [{"mpp": 0.25}]})
    requests = [r for step in range(20) for r in sampler.requests(catalog, spec, 0, step)]
    assert min(coverage(speck(catalog.slides[0]), catalog.slides[0], r) for r in requests) > 0.38
    assert len({(r.x, r.y) for r in requests}) > 100


def covered(tissue, *rectangle):
    """Coverage of one rectangle."""
    return places.coverage([tissue], *(np.array([float(each)]) for each in rectangle))[0]


def test_coverage_is_exact_to_the_fraction_of_a_pixel():
    mask = np.random.default_rng(0).random((30, 41)) < 0.5
    tissue = places.tissue(mask)
    fine = np.kron(mask, np.ones((8, 8)))
    for top, left, edge in ((0, 0, 30), (3.5, 7.25, 9.125), (20.125, 31.5, 9.5), (12, 40.5, 0.5)):
        expected = fine[int(top * 8) : int((top + edge) * 8), int(left * 8) : int((left + edge) * 8)].mean()
        assert covered(tissue, top, left, edge, edge) == pytest.approx(expected)


def large_rectangles(count):
    """Tops, lefts, heights and widths of patches of about 256 mask pixels, and the mask that each lies on."""
    random = np.random.default_rng(0)
    tissue = places.tissue(random.random((600, 700)) < 0.5)
    return [tissue] * count, *(random.uniform(0, 300, count) for _ in range(2)), *(random.uniform(200, 256, count) for _ in range(2))


def test_coverage_of_many_large_patches_takes_little_memory():
    rectangles = large_rectangles(160)  # 82 MiB of mask pixels as numbers
    tracemalloc.start()
    places.coverage(*rectangles)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.25 * places.CHUNK_BYTES


@pytest.mark.parametrize("chunk_bytes", [1, 3_000_000])
def test_coverage_is_the_same_to_the_bit_in_chunks_of_any_size(chunk_bytes, monkeypatch):
    rectangles = large_rectangles(16)
    whole = places.coverage(*rectangles)
    monkeypatch.setattr(places, "CHUNK_BYTES", chunk_bytes)
    assert places.coverage(*rectangles).tobytes() == whole.tobytes()


def test_per_slide_limits_the_distinct_patches_and_keys_them_by_slide():
    catalog, spec = make_catalog(5), make_spec(patches={"perSlide": 7, "windowSteps": 4})
    seen = collections.defaultdict(set)
    for step in range(200):
        for r in sampler.requests(catalog, spec, 0, step):
            seen[r.slide].add((r.level, r.x, r.y, r.source_px))
    assert [len(patches) for patches in seen.values()] == [7] * 5


def test_small_fractions_lie_inside_larger_ones():
    catalog = make_catalog(100)
    chosen = [set(sampler.chosen(catalog, make_spec(slides={"fraction": f}))) for f in (0.01, 0.1, 0.55, 1.0)]
    assert [len(c) for c in chosen] == [1, 10, 55, 100]
    assert chosen[0] < chosen[1] < chosen[2] < chosen[3]


def test_slides_marked_in_the_exclude_column_are_left_out():
    slides = [make_slide(f"s{i}", flags=frozenset({"heldout"} if i < 3 else ())) for i in range(10)]
    spec = make_spec(slides={"excludeColumn": "heldout"})
    chosen = sampler.chosen(make_catalog(slides, columns=("url", "heldout")), spec)
    assert len(chosen) == 7
    with pytest.raises(errors.InvalidConfiguration, match="no such column, only url"):
        sampler.chosen(make_catalog(slides, columns=("url",)), spec)


def test_an_index_without_a_usable_slide_is_an_error():
    with pytest.raises(errors.DataNotFound, match="none of the 1 slides"):
        sampler.chosen(make_catalog([make_slide("a", make_levels(mpp=8.0))]), make_spec())


@pytest.mark.parametrize("count", [2, 3, 5, 40])
def test_replacements_visit_other_slides_and_end(count):
    catalog, spec = make_catalog(count), make_spec(batch_size=2)
    chain = [sampler.requests(catalog, spec, 0, 9)[1]]
    while (following := sampler.replacement(catalog, spec, 0, chain[-1])) is not None:
        chain.append(following)
    assert [r.attempt for r in chain] == list(range(9))
    assert chain[0].slide != chain[1].slide
    assert {(r.step, r.slot) for r in chain} == {(9, 1)}


@pytest.mark.parametrize(("batch_size", "group_size", "world_size"), [(8, 1, 3), (64, 8, 2), (256, 64, 4), (6, 6, 1)])
def test_ranks_share_the_slots_in_whole_loss_groups(batch_size, group_size, world_size):
    groups = batch_size // group_size
    shares = [sampler.rank_slots(batch_size, groups, rank, world_size) for rank in range(world_size)]
    assert sorted(slot for share in shares for slot in share) == list(range(batch_size))
    owners = [{rank for rank, share in enumerate(shares) for slot in share if slot % groups == g} for g in range(groups)]
    assert all(len(owner) == 1 for owner in owners)


def test_more_processes_than_loss_groups_are_refused():
    with pytest.raises(errors.InvalidConfiguration, match="5 processes share 4 loss groups"):
        sampler.rank_slots(256, 4, 0, 5)


def test_patches_may_be_asked_to_lie_on_tissue_entirely():
    catalog, spec = make_catalog(2), make_spec(slides={"foreground": {"minCoverage": 1.0}}, patches={"magnifications": [{"mpp": 0.25}]})
    requests = [r for step in range(30) for r in sampler.requests(catalog, spec, 0, step)]
    assert {coverage(make_mask(catalog.slides[r.slide]), catalog.slides[r.slide], r) for r in requests} == {1.0}
    assert len({(r.x, r.y) for r in requests}) > 200


def test_a_place_is_drawn_again_on_the_same_slide_and_ends():
    catalog, spec = make_catalog(20), make_spec()
    plan = sampler.plan(catalog, spec, 0)
    chain = [sampler.requests(catalog, spec, 0, 9)[1]]
    while (following := plan.redraw(chain[-1])) is not None:
        chain.append(following)
    assert [r.redraw for r in chain] == list(range(9))
    assert {(r.step, r.slot, r.slide, r.mpp, r.attempt) for r in chain} == {(9, 1, chain[0].slide, chain[0].mpp, 0)}
    assert len({(r.x, r.y) for r in chain}) == 9


@pytest.mark.parametrize("box", [(0, 70, 0, 53), (12, 40, 9, 31), (69, 70, 52, 53), (0, 1, 0, 1), (5, 5, 0, 0)])
def test_cells_have_the_coverage_that_the_patch_at_their_centre_has(box):
    top, bottom, left, right = box
    mask = np.zeros((70, 53), dtype=bool)
    mask[top:bottom, left:right] = np.random.default_rng(2).random((bottom - top, right - left)) < 0.8
    tissue, level = places.tissue(mask), make_levels(1696, 2240)[0]  # 32 px a mask pixel
    starts = np.arange(0, 1500, 97) / 32
    shares = places._summed(tissue.integral(), starts, starts, (6.5, 4.25))
    expected = [[covered(tissue, y, x, 4.25, 6.5) for x in starts] for y in starts]
    np.testing.assert_allclose(shares, expected, atol=1e-12)
    assert len(places.places(tissue, places.shares(tissue), level, 200, 0.4, free=True).accepted) > 0


def test_the_sampler_shares_no_random_number_with_the_training_step():
    shuffles, again = {draws.SHUFFLE, draws.RESAMPLE}, range(0, (sampler.MAX_REDRAWS + 1) * draws.REDRAW, draws.REDRAW)
    sampled = {use + slide + k for use in (draws.MAGNIFICATION, draws.CELL, draws.CORNER) for slide in (0, draws.PER_SLIDE) for k in again}
    bases = (keyed.CROP, keyed.DROP_PATH, keyed.MASK_STRATUM, keyed.MASK_RATIO, keyed.MASK_BLOCKS)
    assert not (shuffles | sampled) & {base + view for base in bases for view in range(34)}
