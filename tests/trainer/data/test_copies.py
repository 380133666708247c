"""Local copies for OpenSlide: bounded, shared by threads, gone with their process."""

import concurrent.futures
import subprocess
import sys

import numpy as np
import openslide
import pytest

from patho_trainer.data import copies, slide, storage
from tests.trainer import slides


@pytest.fixture
def two(web):
    """Two slides on a web server that only OpenSlide reads, 3.5 MB each."""
    for name in ("a.ndpi", "b.ndpi"):
        (web.folder / name).write_bytes(slides.DAPI.read_bytes())
    return [web.url + "a.ndpi", web.url + "b.ndpi"]


def downloads(web, name):
    return web.requests["GET", name]


def etag(url):
    return storage.Bucket().head(url).etag


def read(local, url):
    with local.open(url, etag(url)) as handle:
        return copies.region(handle, (512, 256), 0, (64, 64))


def test_a_copy_is_made_once_for_many_threads(web, two, tmp_path):
    local = copies.Copies(storage.Bucket(), str(tmp_path / "scratch"))
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        regions = list(pool.map(lambda _: read(local, two[0]), range(16)))
    assert downloads(web, "a.ndpi") == 1
    assert all(np.array_equal(region, regions[0]) for region in regions)


def test_the_least_recently_used_copy_makes_room(web, two, tmp_path):
    local = copies.Copies(storage.Bucket(), str(tmp_path / "scratch"), limit_bytes=5_000_000)
    for url in (two[0], two[1], two[1], two[0]):
        read(local, url)
        assert sum(f.stat().st_size for f in (tmp_path / "scratch").rglob("*.ndpi")) <= 5_000_000
    assert (downloads(web, "a.ndpi"), downloads(web, "b.ndpi")) == (2, 1)


def test_a_copy_in_use_is_not_taken_away(two, tmp_path):
    local = copies.Copies(storage.Bucket(), str(tmp_path / "scratch"), limit_bytes=1)
    with local.open(two[0], etag(two[0])) as held:
        read(local, two[1])
        assert copies.region(held, (0, 0), 0, (8, 8)).shape == (8, 8, 3)


def test_downloads_at_the_same_time_stay_within_the_limit_together(web, two, tmp_path, monkeypatch):
    local, flying, most = copies.Copies(storage.Bucket(), str(tmp_path / "scratch"), limit_bytes=5_000_000), [], []
    download = storage.Bucket.download

    def watched(bucket, url, path):
        flying.append(url)
        most.append(len(flying))
        download(bucket, url, path)
        flying.remove(url)

    monkeypatch.setattr(storage.Bucket, "download", watched)
    web.chaos = lambda number: "slow"
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda url: read(local, url), two))
    assert most == [1, 1]


def test_an_object_that_has_changed_is_not_taken_for_the_one_that_was_indexed(web, two, tmp_path):
    local, known = copies.Copies(storage.Bucket(), str(tmp_path / "scratch")), etag(two[0])
    (web.folder / "a.ndpi").write_bytes(slides.DAPI.read_bytes() + b"more")
    with pytest.raises(storage.NotFound, match="has changed since it was indexed"), local.open(two[0], known):
        pass


def test_more_slides_than_handles_are_closed_but_not_fetched_again(web, two, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "OPEN_SLIDES", 1)
    local = copies.Copies(storage.Bucket(), str(tmp_path / "scratch"))
    regions = [read(local, two[i]) for i in (0, 1, 0, 1, 0)]
    assert (downloads(web, "a.ndpi"), downloads(web, "b.ndpi")) == (1, 1)
    assert sum(copy.handle is not None for copy in local._copies.values()) <= 2
    assert all(np.array_equal(region, regions[0]) for region in regions)


def test_a_copy_that_cannot_be_opened_again_still_makes_room(two, tmp_path, monkeypatch):
    monkeypatch.setattr(copies, "OPEN_SLIDES", 1)
    local = copies.Copies(storage.Bucket(), str(tmp_path / "scratch"), limit_bytes=10_000_000)
    read(local, two[0])
    (file,) = (tmp_path / "scratch").rglob("*.ndpi")
    read(local, two[1])  # which closes the first
    file.write_bytes(b"damaged")
    with pytest.raises(openslide.OpenSlideError):
        read(local, two[0])
    assert [copy.users for copy in local._copies.values()] == [0, 0]


def test_a_download_that_breaks_off_leaves_nothing_and_can_be_repeated(web, two, tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "TRIES", 1)
    local = copies.Copies(storage.Bucket(), str(tmp_path / "scratch"))
    known = etag(two[0])
    web.faults.extend(["slow", 404])
    with pytest.raises(storage.NotFound), local.open(two[0], known):
        pass
    assert not list((tmp_path / "scratch").rglob("*.ndpi*"))
    assert read(local, two[0]).shape == (64, 64, 3)


def test_a_local_slide_is_not_copied(tmp_path):
    local = copies.Copies(storage.Bucket(), str(tmp_path / "scratch"))
    read(local, str(slides.DAPI))
    assert not (tmp_path / "scratch").exists()


def test_what_a_killed_process_left_is_removed_and_the_living_are_left_alone(two, tmp_path):
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True, check=True)
    dead = tmp_path / f"{copies.FOLDER_PREFIX}{gone.stdout.strip()}-x"
    alive = tmp_path / f"{copies.FOLDER_PREFIX}1-x"
    dead.mkdir()
    alive.mkdir()
    read(copies.Copies(storage.Bucket(), str(tmp_path)), two[0])
    assert not dead.exists()
    assert alive.exists()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("s/a.svs", ["a.svs"]),
        ("s/m.mrxs", ["m.mrxs", "m/Data0001.dat", "m/Slidedat.ini"]),
        ("s/case/1.dcm", ["case/1.dcm", "case/2.dcm"]),
    ],
)
def test_formats_of_several_files_bring_all_of_them(store, url, expected):
    bucket = store.bucket()
    for name in ("a.svs", "m.mrxs", "m/Data0001.dat", "m/Slidedat.ini", "case/1.dcm", "case/2.dcm", "case/notes.txt"):
        bucket.write(f"{store.url}s/{name}", b"1")
    assert [f.url.removeprefix(f"{store.url}s/") for f in copies.companions(bucket, store.url + url)] == expected


def test_a_region_beyond_the_slide_is_white(tmp_path):
    opened = slide.open(str(slides.DAPI))
    assert (opened.read_level(0, 100_000, 0, 16, 16) == 255).all()
