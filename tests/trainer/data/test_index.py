"""The index: every slide looked at once, by any run; killed, changed and damaged as in real life."""

import collections
import pathlib
import threading

import numpy as np
import pytest

from patho_api import pretrain
from patho_trainer import errors
from patho_trainer.data import copies, index, scan, slide, storage
from tests.trainer import slides

PATCHES = pretrain.Patches(size_px=64, magnifications=[pretrain.Magnification(mpp=0.5), pretrain.Magnification(mpp=1.0)])


def write_slides(folder, count):
    for number in range(count):
        slides.write(folder / f"slide-{number}.svs", slides.Recipe(mpp=0.5, vendor=True, sizes=((384, 256), (192, 128)), seed=number))


def build(source, out, **options):
    return index.build([str(source)], str(out), **{"patches": PATCHES, **options})


@pytest.fixture
def looks(monkeypatch):
    """How often each slide was opened by a build."""
    counted: collections.Counter[str] = collections.Counter()
    look = scan.Scanner.look

    def counting(self, entry):
        counted[entry.url.rsplit("/", 1)[-1]] += 1
        return look(self, entry)

    monkeypatch.setattr(scan.Scanner, "look", counting)
    return counted


def test_an_index_holds_what_opening_the_slides_would_say(store, tmp_path):
    write_slides(tmp_path / "s", 3)
    for path in (tmp_path / "s").iterdir():
        store.put(path, f"slides/{path.name}")
    built = build(store.url + "slides/", store.url + "index", bucket=store.bucket())
    loaded = index.load(store.url + "index", bucket=store.bucket())
    assert loaded.slides == built.slides
    for i, facts in enumerate(loaded.slides):
        opened = slide.open(facts.url, bucket=store.bucket())
        assert facts.levels == opened.facts.levels
        np.testing.assert_array_equal(loaded.record(i).tiles(1), opened.record.tiles(1))
        by_index = slide.Opened(facts, loaded.record(i), store.bucket(), copies.Copies(store.bucket()))
        np.testing.assert_array_equal(by_index.read((40, 40), 64, 0.5), opened.read((40, 40), 64, 0.5))


def test_positions_are_counted_for_the_wanted_patches(tmp_path):
    write_slides(tmp_path / "s", 1)
    built = build(f"{tmp_path}/s/", tmp_path / "i")
    assert [(a.mpp, a.size_px, a.positions > 0) for a in built.slides[0].accepted] == [(0.5, 64, True), (1.0, 64, True)]
    assert built.record(0).mask.shape == (16, 24)


def test_a_second_build_opens_no_slide_and_gives_the_same_version(tmp_path, looks):
    write_slides(tmp_path / "s", 3)
    first = build(f"{tmp_path}/s/", tmp_path / "i")
    second = build(f"{tmp_path}/s/", tmp_path / "i")
    assert second.version == first.version
    assert set(looks.values()) == {1}


def test_only_changed_and_new_slides_are_opened_again_and_a_run_keeps_its_version(tmp_path, looks):
    write_slides(tmp_path / "s", 3)
    first = build(f"{tmp_path}/s/", tmp_path / "i")
    slides.write(tmp_path / "s" / "slide-1.svs", slides.Recipe(mpp=0.5, vendor=True, seed=77))
    slides.write(tmp_path / "s" / "slide-9.svs", slides.Recipe(mpp=0.5, vendor=True, seed=9))
    (tmp_path / "s" / "slide-2.svs").unlink()
    second = build(f"{tmp_path}/s/", tmp_path / "i")
    assert looks == {"slide-0.svs": 1, "slide-1.svs": 2, "slide-2.svs": 1, "slide-9.svs": 1}
    assert len(second) == 3
    pinned = index.load(str(tmp_path / "i"), version=first.version)
    assert pinned.slides == first.slides
    assert pinned.record(0).mask.shape == first.record(0).mask.shape


def test_other_patches_are_counted_from_the_masks_without_opening_a_slide(tmp_path, looks):
    write_slides(tmp_path / "s", 2)
    build(f"{tmp_path}/s/", tmp_path / "i")
    other = pretrain.Patches(size_px=32, magnifications=[pretrain.Magnification(mpp=0.5)])
    second = build(f"{tmp_path}/s/", tmp_path / "i", patches=other)
    assert set(looks.values()) == {1}
    assert [a.size_px for a in second.slides[0].accepted] == [32]


def test_another_foreground_method_makes_other_masks(tmp_path):
    write_slides(tmp_path / "s", 1)
    otsu = build(f"{tmp_path}/s/", tmp_path / "i")
    everywhere = build(f"{tmp_path}/s/", tmp_path / "i", foreground=pretrain.Foreground(method="None"))
    assert otsu.version != everywhere.version
    assert everywhere.record(0).mask.all()


def test_a_killed_build_goes_on_where_it_was(tmp_path, looks, monkeypatch):
    write_slides(tmp_path / "s", 5)
    monkeypatch.setattr(index, "FLUSH_SLIDES", 2)
    monkeypatch.setattr(index, "WORKERS", 1)

    def die(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(f"{tmp_path}/s/", tmp_path / "i", progress=die)
    looks.clear()
    built = build(f"{tmp_path}/s/", tmp_path / "i")
    assert len(built) == 5
    assert sum(looks.values()) == 1
    assert built.version == build(f"{tmp_path}/s/", tmp_path / "other").version


def test_ranks_share_the_work_and_see_one_catalog(tmp_path, looks):
    write_slides(tmp_path / "s", 6)
    barrier = threading.Barrier(3, timeout=60)
    found = {}

    def run(rank):
        found[rank] = build(f"{tmp_path}/s/", tmp_path / "i", rank=rank, world_size=3, barrier=barrier.wait)

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(looks.values()) == {1}
    assert len({c.version for c in found.values()}) == 1
    assert found[0].slides == found[2].slides
    assert found[0].version == build(f"{tmp_path}/s/", tmp_path / "alone").version


def damaged(folder):
    """One slide for every way to be useless, by the reason that should be given."""
    recipe = slides.Recipe(mpp=0.5, vendor=True, sizes=((384, 256),))
    write = slides.write
    return {
        "Truncated": slides.truncate(write(folder / "short.svs", recipe), 0.7),
        "Unreadable": slides.scribble(write(folder / "scribbled.svs", recipe)),
        "NoMpp": write(folder / "mute.tif", slides.Recipe(resolution=False)),
        "NoMagnification": write(folder / "coarse.svs", slides.Recipe(mpp=4.0, vendor=True)),
        "NoForeground": write(folder / "empty.svs", slides.Recipe(mpp=0.5, vendor=True, tissue=0.0)),
        "NotBrightfield": pathlib.Path(slides.DAPI),
    }


def test_useless_slides_are_rejected_with_a_reason_and_the_index_still_builds(tmp_path):
    write_slides(tmp_path / "s", 2)
    reasons = damaged(tmp_path / "s")
    lines = ["url", "slide-0.svs", "slide-1.svs", "missing.svs", *map(str, reasons.values())]
    (tmp_path / "s" / "m.csv").write_text("\n".join(lines))
    built = build(tmp_path / "s" / "m.csv", tmp_path / "i")
    assert len(built) == 2
    found = {pathlib.Path(s.url).name: s.rejected for s in built.rejected}
    assert found == {path.name: reason for reason, path in reasons.items()} | {"missing.svs": "Missing"}
    assert all(s.message for s in built.rejected)


def test_a_slide_that_came_late_is_found_by_the_next_build(tmp_path):
    write_slides(tmp_path / "s", 1)
    (tmp_path / "s" / "m.csv").write_text("url\nslide-0.svs\nlate.svs\n")
    assert len(build(tmp_path / "s" / "m.csv", tmp_path / "i")) == 1
    slides.write(tmp_path / "s" / "late.svs", slides.Recipe(mpp=0.5, vendor=True))
    assert len(build(tmp_path / "s" / "m.csv", tmp_path / "i")) == 2


def test_a_manifests_facts_reach_the_catalog_and_change_without_opening_slides(tmp_path, looks):
    write_slides(tmp_path / "s", 1)
    manifest = tmp_path / "s" / "m.csv"
    manifest.write_text("url,patient,label,weight,held_out\nslide-0.svs,p1,tumour,2,no\n")
    build(manifest, tmp_path / "i")
    manifest.write_text("url,patient,label,weight,held_out\nslide-0.svs,p1,normal,3,true\n")
    built = build(manifest, tmp_path / "i")
    facts = built.slides[0]
    assert (facts.patient, facts.label, facts.weight, facts.flags) == ("p1", "normal", 3.0, {"held_out"})
    assert built.columns == ("held_out",)
    assert set(looks.values()) == {1}


def test_a_build_sends_few_requests_and_a_second_one_fewer(web, tmp_path):
    write_slides(web.folder, 4)
    lines = ["url", *(f"{web.url}slide-{n}.svs" for n in range(4))]
    (tmp_path / "m.csv").write_text("\n".join(lines))
    build(tmp_path / "m.csv", tmp_path / "i")
    assert sum(web.requests.values()) <= 4 * 6  # head, header and directories, the tiles of the coarsest level
    web.requests.clear()
    build(tmp_path / "m.csv", tmp_path / "i")
    assert web.requests == {("HEAD", f"slide-{n}.svs"): 1 for n in range(4)}


def test_loading_and_the_first_records_take_two_requests(s3, tmp_path):
    write_slides(tmp_path / "s", 4)
    build(f"{tmp_path}/s/", s3.url + "index", bucket=s3.bucket())
    bucket = s3.bucket()
    index.load(s3.url + "index", bucket=bucket).records(range(4))
    assert bucket.requests == {("s3", "ok"): 2}


def test_progress_counts_every_slide(tmp_path):
    write_slides(tmp_path / "s", 3)
    seen = []
    build(f"{tmp_path}/s/", tmp_path / "i", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_folder_without_an_index_says_how_to_make_one(tmp_path):
    with pytest.raises(errors.DataNotFound, match=r"no slide index at .*: build one with `patho index SOURCE --out"):
        index.load(str(tmp_path))


def test_a_folder_with_another_parquet_is_refused(tmp_path):
    (tmp_path / "catalog.parquet").write_bytes(b"something else")
    with pytest.raises(errors.InvalidConfiguration, match="is no slide index: give `index` a folder of its own"):
        index.load(str(tmp_path))


def test_the_index_of_a_release_with_another_format_is_named_and_a_new_run_makes_its_own(tmp_path, looks, monkeypatch):
    write_slides(tmp_path / "s", 1)
    with monkeypatch.context() as older:
        older.setattr(index, "FORMAT", index.FORMAT - 1)
        version = build(f"{tmp_path}/s/", tmp_path / "i").version
    with pytest.raises(errors.InvalidConfiguration, match=rf"{version} .*has format \d, and this release reads format \d: end a run"):
        index.load(str(tmp_path / "i"), version=version)
    assert build(f"{tmp_path}/s/", tmp_path / "i").version != version
    assert looks == {"slide-0.svs": 2}


def test_a_bucket_that_fails_for_long_ends_the_build_and_rejects_nothing(web, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "TRIES", 1)
    write_slides(web.folder, 1)
    (tmp_path / "m.csv").write_text(f"url\n{web.url}slide-0.svs\n")
    web.faults.extend(["reset"] * 30)
    with pytest.raises(storage.Transient):
        build(tmp_path / "m.csv", tmp_path / "i")
    web.faults.clear()
    assert len(build(tmp_path / "m.csv", tmp_path / "i")) == 1
