"""The native core against the Python path: the same bytes for every kind of JPEG tile, and no other verdict on damaged ones."""

import concurrent.futures
import dataclasses
import pathlib
import shutil

import cv2
import imagecodecs
import numpy as np
import pytest

from patho_trainer.data import catalog, columns, copies, decode, native, painting, sampler, slide, stats, storage, stream, tiles
from tests.trainer import formats, slides
from tests.trainer.data import fuzz, sets
from tests.trainer.data.test_formats import WRITERS, regions
from tests.trainer.data.values import make_spec

READS, DAMAGED = 1000, 1000
JPEGS = [name for name in WRITERS if ("jpeg" in name and "2000" not in name) or "philips" in name]
KINDS = {
    "4:2:0": ("ycbcr", "420"),
    "4:2:2": ("ycbcr", "422"),
    "4:4:4": ("ycbcr", "444"),
    "4:4:0": ("ycbcr", "440"),
    "4:1:1": ("ycbcr", "411"),
    "RGB": ("rgb", "444"),
}

if native.core is None:
    WHY = "make native builds it" if shutil.which("cargo") else "no cargo"
    pytest.skip(f"NOT RUN: native decode: {WHY}", allow_module_level=True)


def level_of(tile, **encoding):
    encoding = catalog.Encoding(compression=decode.JPEG, photometric=decode.YCBCR, **encoding)
    return catalog.Level(tile, tile, 1.0, 0.25, tile, tile, encoding)


def a_tile(kind="4:2:0", edge=256, seed=0):
    """A level of one tile, and the tile's bytes."""
    stored, subsampling = KINDS[kind]
    level = level_of(edge)
    if stored == "rgb":
        level = dataclasses.replace(level, encoding=dataclasses.replace(level.encoding, photometric=decode.RGB))
    pixels = slides.picture(slides.Recipe(sizes=((edge, edge),), seed=seed))
    return level, formats.jpeg_tile(pixels, stored, subsampling)


def part_of(random, edge):
    """A random rectangle of a tile, as (rows, columns)."""
    spans = []
    for _ in range(2):
        size = int(random.choice([1, 2, 7, edge // 2, edge, random.integers(1, edge + 1)]))
        start = int(random.integers(0, edge - size + 1))
        spans.append(slice(start, start + size))
    return tuple(spans)


def table_of(*parts, column=0, row=0):
    """Of tiles that are read one after the other, of which (size, x, y, width, height) go to one place."""
    return np.array([tiles.TileRead(0, *part, column, row, number) for number, part in enumerate(parts)])


def painted(level, data, rows, columns_):
    """The part by the native core, None where it does not paint it."""
    height, width = rows.stop - rows.start, columns_.stop - columns_.start
    edge = max(height, width)
    out = np.zeros((edge, edge, 3), np.uint8)
    table = table_of((len(data), columns_.start, rows.start, width, height))
    (good,), *_ = native.paint([native.job(level, table, [data], edge, out)])
    return out[:height, :width] if good else None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("edge", [240, 256, 100])
def test_any_part_of_a_tile_has_the_pixels_of_the_whole_tile(kind, edge):
    level, data = a_tile(kind, edge)
    whole, random = decode.tile(level, data), np.random.default_rng(edge)
    for _ in range(100):
        rows, columns_ = part_of(random, edge)
        found = painted(level, data, rows, columns_)
        if kind in ("4:4:0", "4:1:1"):  # no scanner writes these
            assert found is None
        else:
            np.testing.assert_array_equal(found, whole[rows, columns_], str((rows, columns_)))


@pytest.mark.parametrize("kind", ["grey", "own tables", "bytes after the end"])
def test_grey_tables_of_its_own_and_bytes_after_the_end_are_nothing_special(kind):
    level, data = a_tile()
    pixels = slides.picture(slides.Recipe(sizes=((256, 256),)))
    other = {
        "grey": lambda: encoded(pixels[..., 0], cv2.IMWRITE_JPEG_QUALITY, 80),
        "own tables": lambda: encoded(pixels, cv2.IMWRITE_JPEG_OPTIMIZE, 1),
        "bytes after the end": lambda: data + bytes(100),
    }[kind]()
    part = slice(50, 200), slice(33, 170)
    np.testing.assert_array_equal(painted(level, other, *part), decode.tile(level, other)[part])


def encoded(pixels, *options):
    """A JPEG by OpenCV, which has other options than imagecodecs."""
    found, data = cv2.imencode(".jpg", pixels, options)
    assert found
    return bytes(data)


@pytest.mark.parametrize("quality", [1, 30, 95, 100])
@pytest.mark.parametrize("kind", ["noise", "black and white", "flat"])
def test_long_codes_large_values_and_empty_blocks_are_decoded_right(kind, quality):
    level, random = level_of(128), np.random.default_rng(quality)
    pixels = {
        "noise": lambda: random.integers(0, 256, (128, 128, 3)),
        "black and white": lambda: 255 * random.integers(0, 2, (128, 128, 1)).repeat(3, axis=2),
        "flat": lambda: np.full((128, 128, 3), 77),
    }[kind]()
    data = encoded(pixels.astype(np.uint8), cv2.IMWRITE_JPEG_QUALITY, quality)
    for part in [(slice(0, 128), slice(0, 128)), (slice(100, 128), slice(90, 99))]:
        np.testing.assert_array_equal(painted(level, data, *part), decode.tile(level, data)[part])


@pytest.mark.parametrize("kind", ["progressive", "restarts", "CMYK", "truncated", "other size", "no JPEG", "empty"])
def test_what_is_out_of_the_ordinary_is_left_to_python(kind):
    level, data = a_tile()
    pixels = slides.picture(slides.Recipe(sizes=((256, 256),)))
    other = {
        "progressive": lambda: encoded(pixels, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "restarts": lambda: encoded(pixels, cv2.IMWRITE_JPEG_RST_INTERVAL, 5),
        "CMYK": lambda: bytes(imagecodecs.jpeg8_encode(np.dstack([pixels, pixels[..., 0]]), colorspace="cmyk", outcolorspace="cmyk")),
        "truncated": lambda: data[:-2],
        "other size": lambda: a_tile(edge=240)[1],
        "no JPEG": lambda: b"garbage",
        "empty": lambda: b"\xff\xd8\xff\xd9",
    }[kind]()
    assert painted(level, data, slice(0, 9), slice(0, 9)) is not None
    assert painted(level, other, slice(0, 9), slice(0, 9)) is None


@pytest.mark.parametrize("marker", [0xDB, 0xC4])
def test_a_tile_without_its_tables_is_not_decoded_with_those_of_the_tile_before(marker):
    level, data = a_tile()
    part = slice(0, 256), slice(0, 256)
    kept = [segment for found, segment in formats.segments(data) if found != marker]
    assert painted(level, data, *part) is not None
    assert painted(level, formats.SOI + b"".join(kept), *part) is None


def test_a_tile_that_names_a_table_that_cannot_be_is_left_to_python():
    level, data = a_tile()
    at = data.index(b"\xff\xc0") + 12  # the number of the first component's quantisation table
    assert data[at] == 0
    assert painted(level, data[:at] + b"\xc8" + data[at + 1 :], slice(0, 9), slice(0, 9)) is None


def damage(data, random):
    """A tile as the fuzzer damages slides."""
    spans = {"structure": [(0, min(600, len(data)))], "tiles": [(0, len(data))]}
    return bytes(fuzz.MUTATORS[random.integers(len(fuzz.MUTATORS))](bytearray(data), spans, random))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["4:2:0", "4:2:2", "4:4:4", "RGB"])
def test_a_damaged_tile_has_the_same_verdict_and_the_same_pixels(kind):
    level, data = a_tile(kind, 128)
    random, good = np.random.default_rng(5), 0
    for number in range(DAMAGED):
        other, (rows, columns_) = damage(data, random), part_of(random, 128)
        found = painted(level, other, rows, columns_)
        if found is not None:
            np.testing.assert_array_equal(found, decode.tile(level, other)[rows, columns_], str(number))
            good += 1
    assert DAMAGED * 0.02 < good < DAMAGED * 0.9


@pytest.mark.parametrize("ratio", [2, 3, 4, 5, 7, 8, 16])
def test_whole_ratios_are_averaged_as_opencv_does(ratio):
    size = 33
    edge = size * ratio
    level, random = level_of(edge), np.random.default_rng(ratio)
    pixels = random.integers(0, 256, (edge, edge, 3)).astype(np.uint8)
    data, out = formats.jpeg_tile(pixels, "ycbcr", "444"), np.zeros((size, size, 3), np.uint8)
    assert native.paint([native.job(level, table_of((len(data), 0, 0, edge, edge)), [data], edge, out)])[0] == [True]
    np.testing.assert_array_equal(out, slide.resample(decode.tile(level, data), size))


@pytest.mark.parametrize("ratio", [2, 3, 8])
def test_what_lies_where_tiles_meet_is_averaged_as_opencv_does(ratio):
    opened, content, random = slide.open(str(slides.CMU)), memoryview(slides.CMU.read_bytes()), np.random.default_rng(ratio)
    level, size = opened.facts.levels[0], 512 // ratio
    for number in range(12):
        x, y = (int(random.integers(0, length - size * ratio)) for length in (level.width, level.height))
        reads = slide.plan(opened.facts, opened.record, 0, x, y, size * ratio, size * ratio)
        missing = number % len(reads)  # as if the file left that one out
        reads = [read._replace(buffer=k, size=read.size * (k != missing)) for k, read in enumerate(reads)]
        data, out = [content[r.offset : r.offset + r.size] for r in reads], np.zeros((size, size, 3), np.uint8)
        assert native.paint([native.job(level, np.array(reads), data, size * ratio, out)])[0] == [True]
        whole = slide.assemble(opened.facts, 0, reads, data, size * ratio, size * ratio)
        np.testing.assert_array_equal(out, slide.resample(whole, size), str((x, y)))


@pytest.mark.slow
@pytest.mark.parametrize("name", JPEGS)
def test_a_thousand_random_regions_of_every_jpeg_format_are_equal_to_the_byte(name, tmp_path):
    suffix, write = WRITERS[name]
    compare(write(tmp_path / f"slide.{suffix}"), READS)


def test_regions_of_a_real_slide_are_equal_to_the_byte():
    compare(slides.CMU, 200)


def compare(path, count):
    """Random squares of all levels, native against `slide.assemble`; every one is painted."""
    opened, content, random = slide.open(str(path)), memoryview(path.read_bytes()), np.random.default_rng(path.stat().st_size)
    for number, level in enumerate(opened.facts.levels):
        assert native.takes(level, level.tile_width)
        for x, y, edge, _ in regions(random, (level.width, level.height), level.tile_width, count // len(opened.levels)):
            reads = slide.plan(opened.facts, opened.record, number, x, y, edge, edge)
            data = [content[r.offset : r.offset + r.size] for r in reads]
            out = np.full((edge, edge, 3), decode.WHITE, np.uint8)
            table = np.array([read._replace(buffer=k) for k, read in enumerate(reads)], dtype=np.int64).reshape(-1, 9)
            assert native.paint([native.job(level, table, data, edge, out)])[0] == [True]
            np.testing.assert_array_equal(out, slide.assemble(opened.facts, number, reads, data, edge, edge), str((number, x, y)))


def patch_job(level, data, edge, size=64):
    """A job of `painting` on a slide of one level, and its patch."""
    facts = catalog.Slide("a", "a", levels=(level,))
    request = sampler.Request(0, 0, 0, level.mpp, 0, 0, 0, edge, size, (0, 0))
    table = table_of((len(data), 0, 0, edge, edge))
    return painting.Job(facts, columns.Patch(request, table), [data], np.zeros((size, size, 3), np.uint8))


def paint(jobs):
    return painting.paint(jobs, copies.Copies(storage.Bucket()), stats.Stats())


def test_a_region_that_is_too_large_for_the_core_is_painted_without_it():
    level, data = a_tile(edge=64)
    job = patch_job(level, data, 64 * 300)
    corner = table_of((len(data), 0, 0, 64, 64))
    assert job.patch.request.source_px > native.MOST_PX
    assert paint([job._replace(patch=job.patch._replace(tiles=corner))]) == [True]


def test_a_damaged_patch_among_others_is_the_only_one_that_is_not_painted():
    level, data = a_tile()
    jobs = [patch_job(level, each, 128) for each in (data, data[:900], data)]
    assert paint(jobs) == [True, False, True]
    np.testing.assert_array_equal(jobs[0].out, jobs[2].out)


@pytest.mark.parametrize("edge", [64, 128, 100])
def test_patches_are_the_same_without_the_native_core(edge, monkeypatch):
    jobs = [patch_job(*a_tile(seed=1), edge) for _ in range(2)]
    assert paint(jobs[:1]) == [True]
    monkeypatch.setattr(native, "core", None)
    assert paint(jobs[1:]) == [True]
    np.testing.assert_array_equal(jobs[0].out, jobs[1].out)


def test_the_module_brings_no_interpreter_and_the_licences_of_what_is_in_it():
    module = pathlib.Path(native.core.__file__)
    assert b"libpython" not in module.read_bytes()
    licences = module.with_name("patho_native.licenses")
    crates = [line.split() for line in (licences / "crates.txt").read_text().splitlines()]
    assert all(any((licences / f"{name}-{version}").iterdir()) for name, version, _ in crates)
    assert (licences / "turbojpeg-sys-1.2.0" / "README.ijg").exists()


def test_threads_paint_beside_each_other_as_one_alone_does():
    jobs = [[patch_job(*a_tile(list(KINDS)[i % 3], seed=i), 128) for i in range(24)] for _ in range(5)]
    assert all(paint(jobs[0]))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        assert all(all(done) for done in pool.map(paint, jobs[1:]))
    for others in jobs[1:]:
        assert all(np.array_equal(other.out, job.out) for other, job in zip(others, jobs[0], strict=True))


def test_batches_of_a_stream_are_the_same_without_the_native_core(tmp_path, monkeypatch):
    patches = {"sizePx": 96, "magnifications": [{"mpp": mpp} for mpp in (0.5, 1.0, 1.5, 2.0)]}
    spec = make_spec(8, patches, crops={"globalSizePx": 64, "localSizePx": 32})
    found = sets.build(spec, sets.write_slides(tmp_path / "slides", 3), tmp_path / "index")
    batches = {}
    for decoder in (native.core, None):
        monkeypatch.setattr(native, "core", decoder)
        with stream.batches(found, spec, seed=0, stop_step=4, threads=2) as each:
            batches[decoder] = [batch.images.clone().numpy() for batch in each]
    np.testing.assert_array_equal(*batches.values())


@pytest.mark.parametrize("wrong", ["tile", "region", "out", "read-only"])
def test_a_part_outside_of_its_tile_or_region_is_refused(wrong):
    level, data = a_tile()
    out = np.zeros((64, 64, 3), np.uint8)
    table = table_of((1, 0, 200 if wrong == "tile" else 0, 64, 64), row=int(wrong == "region"))
    if wrong == "read-only":
        out.flags.writeable = False
    job = native.job(level, table, [data], 64, out[:, :50] if wrong == "out" else out)
    with pytest.raises(ValueError):
        native.paint([job])
