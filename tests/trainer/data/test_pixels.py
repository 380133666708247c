"""Pixels: equal to OpenSlide's on level 0, to the stored level on coarser ones, from wherever the slide lies."""

import numpy as np
import openslide
import pytest

from patho_trainer import errors
from patho_trainer.data import catalog, decode, slide
from tests.trainer import slides

ODD = slides.scanned(1003, 771, (1, 4, 16))  # downsamples 4.008 and 16.1: levels that a scanner rounded down
KINDS = {
    "jpeg": slides.Recipe(),
    "jpeg stored as RGB": slides.Recipe(stored="rgb"),
    "Aperio": slides.Recipe(vendor=True),
    "1, 4, 16 rounded": slides.Recipe(sizes=ODD),
    "BigTIFF": slides.Recipe(bigtiff=True),
    "deflate with predictor": slides.Recipe(compression="deflate", predictor=True),
    "LZW": slides.Recipe(compression="lzw"),
    "uncompressed": slides.Recipe(compression="none"),
    "zstd": slides.Recipe(compression="zstd"),
    "JPEG 2000, Aperio RGB": slides.Recipe(compression=33005, vendor=True),
    "JPEG 2000, Aperio YCbCr": slides.Recipe(compression=33003, vendor=True),
}


def whole(opened, level=0):
    _, width, height = opened.levels[level]
    return opened.read_level(level, 0, 0, width, height)


def by_openslide(path, xy, size):
    with openslide.OpenSlide(path) as oracle:
        return np.asarray(oracle.read_region(xy, 0, size))[..., :3]


@pytest.mark.parametrize("kind", KINDS)
def test_level_0_equals_openslide_byte_for_byte(kind, tmp_path):
    path = slides.write(tmp_path / "slide.svs", KINDS[kind])
    opened = slide.open(str(path))
    assert opened.facts.reader == "tiff"
    np.testing.assert_array_equal(whole(opened), by_openslide(path, (0, 0), opened.dimensions))


def test_level_0_of_a_real_slide_equals_openslide_byte_for_byte_from_every_store(store):
    url = store.put(slides.CMU)
    opened = slide.open(url, bucket=store.bucket())
    np.testing.assert_array_equal(whole(opened), by_openslide(slides.CMU, (0, 0), (2220, 2967)))
    np.testing.assert_array_equal(opened.read((700, 800), 300, 0.499), by_openslide(slides.CMU, (700, 800), (300, 300)))


def test_a_synthetic_slide_equals_openslide_from_every_store(store, tmp_path):
    path = slides.write(tmp_path / "slide.svs", slides.Recipe(vendor=True))
    opened = slide.open(store.put(path), bucket=store.bucket())
    np.testing.assert_array_equal(whole(opened), by_openslide(path, (0, 0), (640, 512)))


@pytest.mark.parametrize("kind", [k for k in KINDS if "YCbCr" not in k])  # tifffile leaves Aperio's YCbCr as it is
def test_coarser_levels_equal_the_stored_level_decoded_whole(kind, tmp_path):
    path = slides.write(tmp_path / "slide.svs", KINDS[kind])
    opened = slide.open(str(path))
    for level, pixels in enumerate(slides.decoded_levels(path)):
        np.testing.assert_array_equal(whole(opened, level), pixels)


def test_a_region_of_a_rounded_level_is_cut_out_and_not_interpolated(tmp_path):
    path = slides.write(tmp_path / "slide.tif", slides.Recipe(sizes=ODD))
    stored = slides.decoded_levels(path)[1]
    opened = slide.open(str(path))
    assert 4.001 < opened.facts.levels[1].downsample < 4.03
    np.testing.assert_array_equal(opened.read_level(1, 37, 21, 200, 150), stored[21:171, 37:237])


@pytest.mark.parametrize(("mpp", "level", "ratio"), [(0.25, 0, 1), (0.26, 0, 1), (0.5, 1, 1), (2.0, 2, 2), (0.75, 1, 1.5)])
def test_a_read_at_a_resolution_takes_the_right_level_and_averages_areas(tmp_path, mpp, level, ratio):
    path = slides.write(tmp_path / "slide.tif", slides.Recipe())
    opened = slide.open(str(path))
    source_px = round(64 * ratio)
    region = slides.decoded_levels(path)[level][:source_px, :source_px]
    np.testing.assert_array_equal(opened.read((0, 0), 64, mpp), slide.resample(np.ascontiguousarray(region), 64))


def test_beyond_the_edge_there_is_white(tmp_path):
    opened = slide.open(str(slides.write(tmp_path / "slide.tif")))
    patch = opened.read((-32, -32), 64, 0.25)
    assert (patch[:32] == 255).all()
    np.testing.assert_array_equal(patch[32:, 32:], opened.read((0, 0), 32, 0.25))
    assert (opened.read((5000, 5000), 16, 0.25) == 255).all()


def test_a_slide_is_never_upsampled(tmp_path):
    opened = slide.open(str(slides.write(tmp_path / "slide.tif", slides.Recipe(mpp=0.5))))
    with pytest.raises(errors.InvalidConfiguration, match=r"0\.5 um/px and is never upsampled"):
        opened.read((0, 0), 64, 0.25)


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_formats_without_plain_tiles_go_through_openslide_on_a_local_copy(kind, request, tmp_path):
    url, bucket = str(slides.DAPI), None
    if kind == "s3":
        store = request.getfixturevalue("s3")
        url, bucket = store.put(slides.DAPI), store.bucket()
    opened = slide.open(url, bucket=bucket)
    assert opened.facts.reader == "openslide"
    assert opened.mpp == pytest.approx(0.2282, abs=1e-4)
    np.testing.assert_array_equal(opened.read((512, 256), 200, 0.2282), by_openslide(slides.DAPI, (512, 256), (200, 200)))


def test_a_thumbnail_is_the_mean_of_areas_of_the_whole_slide(tmp_path):
    path = slides.write(tmp_path / "slide.tif", slides.Recipe(sizes=((1024, 768),)))
    opened = slide.open(str(path))
    expected = slides.decoded_levels(path)[0].reshape(24, 32, 32, 32, 3).mean(axis=(1, 3))
    assert np.abs(opened.thumbnail(24, 32) - expected).max() <= 1.0


def test_a_plan_names_each_tile_once_and_covers_the_region(tmp_path):
    opened = slide.open(str(slides.write(tmp_path / "slide.tif")))
    reads = slide.plan(opened.facts, opened.record, 0, 100, 90, 200, 300)
    covered = np.zeros((300, 200), dtype=int)
    for read in reads:
        covered[read.target] += 1
    assert (covered == 1).all()
    assert len({read.offset for read in reads}) == len(reads) == 3 * 4


def test_a_tile_that_the_file_leaves_out_is_white():
    level = catalog.Level(8, 8, 1.0, 0.5, 8, 8)
    assert (decode.tile(level, b"") == 255).all()


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xd9", b"garbage", b"\0" * 100])
def test_a_tile_of_other_bytes_is_undecodable_and_not_black(data):
    level = catalog.Level(8, 8, 1.0, 0.5, 8, 8, catalog.Encoding(compression=decode.JPEG, photometric=decode.YCBCR))
    with pytest.raises(slide.Undecodable):
        decode.tile(level, data)


def test_opening_takes_a_handful_of_small_requests(web, tmp_path):
    slides.write(web.folder / "slide.svs", slides.Recipe(sizes=slides.scanned(1500, 1000, (1, 4, 16)), vendor=True))
    opened = slide.open(web.url + "slide.svs")
    assert sum(web.requests.values()) <= 6
    before = sum(web.requests.values())
    opened.read((300, 300), 100, 0.25)
    assert sum(web.requests.values()) - before <= 2
