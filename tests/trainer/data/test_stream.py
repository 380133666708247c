"""The stream: what arrives is what was asked for, on any number of processes, after any restart, whatever breaks."""

import contextlib
import dataclasses
import pathlib
import shutil
import sys
import threading

import numpy as np
import pytest
import torch

from patho_trainer import errors
from patho_trainer.data import catalog as catalogs
from patho_trainer.data import columns, loader, painting, sampler, slide, storage, stream, tiles
from tests.trainer import slides
from tests.trainer.data import sets
from tests.trainer.data.values import make_spec

PATCHES = {"sizePx": 96, "windowSteps": 4, "magnifications": [{"mpp": 0.5}, {"mpp": 1.0}, {"mpp": 1.5}]}
CROPS = {"globalSizePx": 64, "localSizePx": 32}


def spec_of(batch_size=8, slides=None, **training):
    return make_spec(batch_size, PATCHES, slides, crops=CROPS, **training)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set") / "slides"
    sets.write_slides(folder, 6)
    return folder


@pytest.fixture(scope="module")
def catalog(folder):
    return sets.build(spec_of(), folder / "slides.csv", folder.parent / "index")


@pytest.fixture
def broken(folder, tmp_path):
    """A set of slides of one's own, to be damaged after it was indexed."""
    return sets.build(spec_of(), sets.copy_slides(folder, tmp_path / "slides"), tmp_path / "index")


def read(catalog, spec, steps=6, start=0, **options):
    with stream.batches(catalog, spec, seed=0, start_step=start, stop_step=steps, threads=2, **options) as batches:
        return list(batches)


def pixels(batches):
    """(step, slot) -> pixels"""
    return {(b.step, slot): image.numpy().tobytes() for b in batches for slot, image in zip(b.slots, b.images, strict=True)}


def path_of(catalog, number):
    return pathlib.Path(catalog.slides[number].url.removeprefix("file://"))


def test_every_patch_equals_a_read_of_the_slide_at_the_same_place(catalog):
    for batch in read(catalog, spec_of()):
        assert batch.images.dtype == torch.uint8
        for image, r in zip(batch.images.numpy(), batch.requests, strict=True):
            opened = slide.open(catalog.slides[r.slide].url)
            np.testing.assert_array_equal(image, opened.read(r.xy_level0, r.size_px, r.mpp))


def test_the_requests_of_a_batch_are_the_samplers(catalog):
    spec = spec_of()
    assert [list(b.requests) for b in read(catalog, spec, 3)] == [sampler.requests(catalog, spec, 0, step) for step in range(3)]


@pytest.mark.parametrize(("world_size", "group_size"), [(2, 1), (3, 1), (2, 2), (4, 2)])
def test_ranks_together_read_the_same_pixels_as_one_process(catalog, world_size, group_size):
    whole = pixels(read(catalog, spec_of(), 5))
    spec = spec_of(lossGroupSize=group_size)
    parts = [pixels(read(catalog, spec, 5, rank=rank, world_size=world_size)) for rank in range(world_size)]
    assert sum(map(len, parts)) == len(whole)
    assert {key: image for part in parts for key, image in part.items()} == whole


@pytest.mark.parametrize("start", [1, 4, 7])
def test_a_stream_begun_at_any_step_goes_on_as_if_it_had_never_stopped(catalog, start):
    whole = {key: image for key, image in pixels(read(catalog, spec_of(), 9)).items() if key[0] >= start}
    assert pixels(read(catalog, spec_of(), 9, start=start)) == whole


def test_prefetch_and_threads_change_nothing(catalog, monkeypatch):
    whole = pixels(read(catalog, spec_of(), 6))
    monkeypatch.setattr(stream, "COMPRESSED_BYTES", 1)  # every column is cut to one patch
    assert pixels(read(catalog, spec_of(), 6, prefetch=1)) == whole


def test_without_uvloop_the_same_batches_come(catalog, monkeypatch):
    whole = pixels(read(catalog, spec_of(), 3))
    monkeypatch.setitem(sys.modules, "uvloop", None)  # as if it were not installed
    assert pixels(read(catalog, spec_of(), 3)) == whole


def test_a_column_is_cut_where_it_would_hold_too_many_bytes(catalog):
    plan = sampler.plan(catalog, spec_of(), 0)
    (whole,) = columns.ahead(plan, 0, [7], None, 10**9)
    (cut,) = columns.ahead(plan, 0, [7], None, whole.patches[0].bytes + whole.patches[1].bytes)
    assert len(whole.patches) == 4
    assert [patch.request for patch in cut.patches] == [patch.request for patch in whole.patches[:2]]
    assert sum(cut.sizes) == sum(patch.bytes for patch in cut.patches) < sum(whole.sizes)


def test_closing_ends_all_threads(catalog):
    before = set(threading.enumerate())
    batches = stream.batches(catalog, spec_of(), seed=0)
    next(batches)
    batches.close()
    batches.close()
    assert set(threading.enumerate()) <= before
    with pytest.raises(StopIteration):
        next(batches)


def test_an_error_ends_all_threads_too(broken):
    before = set(threading.enumerate())
    for number in range(6):
        path_of(broken, number).unlink()
    with pytest.raises(errors.DataNotFound), stream.batches(broken, spec_of(), seed=0) as batches:
        next(batches)
    assert set(threading.enumerate()) <= before


def delete(path):
    path.unlink()


def change(path):
    slides.write(path, slides.Recipe(sets.SIZES, mpp=0.5, seed=99))


@pytest.mark.parametrize(("damage", "reason"), [(delete, "NotFound"), (change, "Changed")])
def test_a_lost_slide_is_replaced_and_counted_and_the_others_stay(broken, damage, reason):
    spec = spec_of(slides={"maxBadShare": 0.5})
    before = read(broken, spec, 8)
    damage(path_of(broken, 2))
    stats = stream.Stats()
    after = read(broken, spec, 8, stats=stats)
    lost = {(b.step, r.slot) for b in before for r in b.requests if r.slide == 2}
    assert stats.replaced == {reason: len(lost)}
    assert stats.quarantined == {broken.slides[2].id: reason}
    old, new = pixels(before), pixels(after)
    assert {key for key in old if old[key] != new[key]} == lost
    replaced = [r for b in after for r in b.requests if (r.step, r.slot) in lost]
    assert replaced == [sampler.replacement(broken, spec, 0, r) for b in before for r in b.requests if r.slide == 2]


@pytest.fixture
def corrupt(broken):
    """A catalog of slides of which number 1 has rows of zeroed tiles in its middle, and the offsets of those tiles."""
    offsets, sizes = (a.reshape(7, 8)[2:5].ravel().tolist() for a in broken.record(1).tiles(0))
    with path_of(broken, 1).open("r+b") as file:
        for offset, size in zip(offsets, sizes, strict=True):
            file.seek(offset)
            file.write(bytes(size))
    bucket = storage.Bucket()
    rows = [dataclasses.replace(s, etag=bucket.head(s.url).etag) for s in broken.slides]
    return catalogs.Catalog(broken.version, rows, broken._fetch), set(offsets)


def test_a_corrupt_tile_costs_only_the_patches_that_touch_it(corrupt):
    catalog, offsets = corrupt
    spec, stats = spec_of(slides={"maxBadShare": 0.5}), stream.Stats()
    wanted = columns.patches(catalog, [r for step in range(16) for r in sampler.requests(catalog, spec, 0, step)])
    hit = {(p.request.step, p.request.slot) for p in wanted if p.request.slide == 1 and offsets & set(p.tiles[:, tiles.OFFSET].tolist())}
    after = read(catalog, spec, 16, stats=stats)
    assert hit
    assert stats.replaced == {"Undecodable": len(hit)}
    assert {(r.step, r.slot) for b in after for r in b.requests if r.attempt} == hit


def test_what_is_replaced_does_not_depend_on_what_was_read_before(corrupt):
    spec = spec_of(slides={"maxBadShare": 0.5})
    whole = read(corrupt[0], spec, 16)
    assert {r.attempt for b in whole for r in b.requests} == {0, 1}
    for start in (1, 2, 7, 11):
        rest = read(corrupt[0], spec, 16, start=start)
        assert [b.requests for b in rest] == [b.requests for b in whole[start:]]


def test_too_many_bad_slides_end_the_run_with_a_sentence(broken):
    for i in (0, 1):
        path_of(broken, i).unlink()
    with pytest.raises(errors.DataNotFound, match=r"2 of 6 slides cannot be read, more than maxBadShare allows, such as .*NotFound"):
        read(broken, spec_of(), 8)


@pytest.mark.parametrize(("share", "ends"), [(0.05, False), (0.0, True)])
def test_one_bad_slide_ends_no_run_unless_none_is_allowed(broken, share, ends):
    path_of(broken, 0).unlink()
    with pytest.raises(errors.DataNotFound) if ends else contextlib.nullcontext():
        read(broken, spec_of(slides={"maxBadShare": share}), 8)


def for_openslide(catalog, **changes):
    """The same slides, as if they had no tiles that we can read ourselves; `changes` go into every row."""
    rows = []
    for s in catalog.slides:
        levels = tuple(dataclasses.replace(level, tile_width=0, tile_height=0) for level in s.levels)
        rows.append(dataclasses.replace(s, reader="openslide", levels=levels, **{k: v(s) for k, v in changes.items()}))
    return catalogs.Catalog("v", rows, catalog._fetch)


def test_slides_that_only_openslide_reads_come_the_same_way(catalog):
    spec = make_spec(8, PATCHES | {"magnifications": [{"mpp": 0.5}]}, crops=CROPS)
    assert pixels(read(for_openslide(catalog), spec, 3)) == pixels(read(catalog, spec, 3))


def test_a_file_that_openslide_does_not_open_is_replaced(broken):
    path_of(broken, 3).write_bytes(b"no slide at all")
    head = storage.Bucket().head
    damaged = for_openslide(broken, etag=lambda s: head(s.url).etag, size=lambda s: head(s.url).size)
    stats = stream.Stats()
    after = read(damaged, spec_of(slides={"maxBadShare": 0.5}), 4, stats=stats)
    assert set(stats.replaced) == {"Undecodable"}
    assert all(r.slide != 3 for b in after for r in b.requests)


def test_a_slide_that_is_deleted_after_its_copy_had_to_make_room_is_replaced(folder, web):
    shutil.copytree(folder, web.folder / "s")
    names = sorted(path.name for path in folder.glob("*.tif"))
    (web.folder / "slides.csv").write_text("url\n" + "".join(f"{web.url}s/{name}\n" for name in names))
    spec = spec_of(slides={"maxBadShare": 0.5})
    found = for_openslide(sets.build(spec, web.folder / "slides.csv", web.folder / "index"))
    stats = stream.Stats()
    with stream.batches(found, spec, seed=0, stop_step=4, stats=stats) as batches:
        gone = batches._pending[0].result().requests[-1].slide  # of the slot that stays longest
        batches._engine._copies._copies.clear()  # as if others had needed the room
        (web.folder / "s" / found.slides[gone].url.rpartition("/")[2]).unlink()
        after = list(batches)
    assert len(after) == 4
    assert set(stats.replaced) == {"NotFound"}


def test_the_first_batch_needs_the_records_of_its_own_slides_only(catalog):
    asked = []
    spec = make_spec(3, PATCHES, crops=CROPS)
    fresh = catalogs.Catalog(catalog.version, catalog.slides, lambda places: asked.extend(places) or catalog._fetch(places))
    with stream.batches(fresh, spec, seed=0) as batches:
        batches._pending[0].result()
        assert len(asked) == len(set(asked)) == 3
        assert len({r.slide for r in next(batches).requests}) == 3


def test_stats_count_what_happened(catalog):
    stats, bucket = stream.Stats(), storage.Bucket()
    read(catalog, spec_of(), 4, stats=stats, bucket=bucket)
    assert stats.patches == 32
    assert stats.bytes["file"] > 32 * 1000
    assert stats.requests["file", "ok"] > 0
    assert all(seconds > 0 for seconds in stats.seconds.values())
    assert stats.replaced == {}


def test_the_data_set_resumes_from_its_state(catalog):
    def make():
        return loader.Patches(catalog, spec_of(), seed=0)

    first, wanted = make(), pixels(read(catalog, spec_of(), 5))
    taken = iter(first)
    seen = pixels([next(taken), next(taken)])
    state = first.state_dict()
    taken.close()
    second = make()
    second.load_state_dict(state)
    rest = iter(torch.utils.data.DataLoader(second, batch_size=None))
    seen |= pixels([next(rest) for _ in range(3)])
    assert state == {"step": 2}
    assert seen == wanted


def test_slides_stream_out_of_an_object_store(store, folder):
    for path in sorted(folder.glob("*.tif"))[:3]:
        store.put(path, f"set/{path.name}")
    spec, stats, bucket = spec_of(), stream.Stats(), store.bucket()
    catalog = sets.build(spec, f"{store.url}set/", f"{store.url}index", bucket)
    (batch,) = read(catalog, spec, 1, bucket=bucket, stats=stats)
    r = batch.requests[0]
    np.testing.assert_array_equal(batch.images[0], slide.open(catalog.slides[r.slide].url, bucket=bucket).read(r.xy_level0, 96, r.mpp))
    assert len(catalog) == 3
    assert sum(stats.bytes.values()) > 0


def test_a_server_that_stumbles_is_asked_again_and_a_patch_costs_three_requests_at_most(web, folder, tmp_path):
    rows = []
    for path in sorted(folder.glob("*.tif"))[:3]:
        shutil.copy(path, web.folder / path.name)
        rows.append(f"{path.stem},{web.url}{path.name}\n")
    (tmp_path / "slides.csv").write_text("id,url\n" + "".join(rows))
    spec, stats = spec_of(), stream.Stats()
    catalog = sets.build(spec, tmp_path / "slides.csv", tmp_path / "index")
    web.requests.clear()
    calm = pixels(read(catalog, spec, 3))
    assert sum(web.requests.values()) <= 3 * len(calm)  # not even one more to see that the object is still the same
    assert {method for method, _ in web.requests} == {"GET"}
    web.faults.extend(["short", 503, "reset"])
    assert pixels(read(catalog, spec, 3, stats=stats)) == calm
    assert not web.faults
    assert stats.replaced == {}


PALE = {"foreground": {"minCoverage": 0.1}}  # so that many patches are mostly glass


def filtered(**more):
    return spec_of(slides=PALE, augmentation={"hsvFilter": True}, **more)


def test_pale_patches_are_drawn_again_on_their_slide_and_the_others_stay(catalog):
    stats = stream.Stats()
    before, after = read(catalog, spec_of(slides=PALE)), read(catalog, filtered(), stats=stats)
    plain, found = pixels(before), pixels(after)
    drawn_again = 0
    for one, other in zip(before, after, strict=True):
        for was, now, image in zip(one.requests, other.requests, other.images.numpy(), strict=True):
            assert (now.slide, now.mpp, now.slot) == (was.slide, was.mpp, was.slot)
            assert painting.is_stained(image) or now.redraw == sampler.MAX_REDRAWS
            assert now.redraw or plain[one.step, was.slot] == found[one.step, was.slot]
            drawn_again += now.redraw > 0
    assert 3 <= drawn_again < 40
    assert stats.redrawn == sum(request.redraw for batch in after for request in batch.requests)


def test_patches_drawn_again_are_the_same_on_two_processes_and_after_a_restart(catalog):
    whole = pixels(read(catalog, filtered()))
    shared = [pixels(read(catalog, filtered(), rank=rank, world_size=2)) for rank in range(2)]
    assert shared[0] | shared[1] == whole
    assert pixels(read(catalog, filtered(), start=3)) == {key: image for key, image in whole.items() if key[0] >= 3}


def test_a_slide_lost_while_a_patch_is_drawn_again_is_replaced_by_the_rule(broken):
    path_of(broken, 0).unlink()
    found = [r for batch in read(broken, filtered()) for r in batch.requests]
    assert 0 not in {r.slide for r in found}
    assert any(r.attempt for r in found)
