"""1,000 random reads of every tiled format: level 0 equals OpenSlide byte for byte, coarser levels the stored level decoded whole."""

import functools

import numpy as np
import openslide
import pytest

from patho_api import pretrain
from patho_trainer.data import columns, copies, index, painting, sampler, slide, stats, storage, stream
from tests.trainer import dicom, formats, mirax, slides
from tests.trainer.data import sets
from tests.trainer.data.values import make_spec
from tests.trainer.slides import Recipe, scanned

READS = 1000
ODD = scanned(1003, 771, (1, 2.0005, 4.0001))  # no edge is whole tiles, no downsample an integer
LONG = scanned(1501, 1130, (1, 4))  # more than one tile of 1,024 each way
EVEN = scanned(640, 512, (1, 2))


def aperio(tile, sizes=ODD, stored="ycbcr", **more):
    return Recipe(vendor=True, tile=tile, sizes=sizes, stored=stored, **more)


def jpeg(recipe, shared, subsampling="420"):
    return functools.partial(formats.write_jpeg, recipe=recipe, subsampling=subsampling, shared=shared)


def plain(recipe):
    return functools.partial(slides.write, recipe=recipe)


def ome(**recipe):
    return functools.partial(formats.write_ome, recipe=Recipe(sizes=ODD, **recipe))


WRITERS = {
    **{f"svs-jpeg-tables-{edge}": ("svs", jpeg(aperio(edge), shared=True)) for edge in (240, 256, 512)},
    "svs-jpeg-tables-1024": ("svs", jpeg(aperio(1024, LONG), shared=True)),
    "svs-jpeg-rgb-tables": ("svs", jpeg(aperio(240, stored="rgb"), shared=True)),
    "svs-jpeg-rgb": ("svs", jpeg(aperio(256, stored="rgb"), shared=False)),
    "svs-jpeg": ("svs", jpeg(aperio(256), shared=False)),
    "svs-jpeg-422-tables": ("svs", jpeg(aperio(256), shared=True, subsampling="422")),
    "svs-jpeg-444-tables": ("svs", jpeg(aperio(256), shared=True, subsampling="444")),
    "svs-jpeg-bigtiff": ("svs", jpeg(aperio(256, bigtiff=True), shared=True)),
    "svs-jpeg2000-33003": ("svs", plain(aperio(128, EVEN, compression=33003))),
    "svs-jpeg2000-33005": ("svs", plain(aperio(96, scanned(523, 401, (1, 2.0005, 4.0001)), compression=33005))),
    "tiff-deflate": ("tif", plain(Recipe(sizes=ODD, tile=256, compression="deflate"))),
    "tiff-deflate-predictor": ("tif", plain(Recipe(sizes=ODD, tile=256, compression="deflate", predictor=True))),
    "tiff-lzw-predictor": ("tif", plain(Recipe(sizes=ODD, tile=256, compression="lzw", predictor=True))),
    "tiff-jpeg": ("tif", plain(Recipe(sizes=ODD, tile=256))),
    "tiff-jpeg-tables-bigtiff": ("tif", jpeg(Recipe(sizes=ODD, tile=256, bigtiff=True), shared=True)),
    "ome-deflate": ("ome.tif", ome(tile=256, compression="deflate")),
    "ome-lzw-bigtiff": ("ome.tif", ome(tile=256, compression="lzw", bigtiff=True)),
    "ome-jpeg": ("ome.tif", ome(tile=240)),
    "philips-sparse": ("tiff", functools.partial(formats.write_philips, recipe=Recipe(sizes=ODD, tile=256, tissue=0.5))),
    "philips-sparse-bigtiff-512": (
        "tiff",
        functools.partial(formats.write_philips, recipe=Recipe(sizes=scanned(1500, 1100, (1, 2, 4)), tile=512, tissue=0.4, bigtiff=True)),
    ),
}


def regions(random, size, tile, count):
    """(x, y, width, height) in pixels of a level: inside, over the edges, in the corners, one pixel, whole tiles, off the slide."""
    for _ in range(count):
        spans = []
        for length in size:
            edge = int(random.choice([1, 2, 31, 64, random.integers(1, 160)]))
            start = int(random.integers(-edge, length + 1))
            kind = random.integers(8)
            if kind == 0:
                start = 0
            elif kind == 1:
                start = length - edge
            elif kind == 2:
                start = int(random.integers(0, length // tile + 1)) * tile
            elif kind == 3:
                start = length - edge // 2  # half off the slide
            spans.append((start, edge))
        (x, width), (y, height) = spans
        yield x, y, width, height


def stored_levels(name, path, opened, oracle):
    """What each coarser level is, decoded whole."""
    if name.startswith("svs-jpeg2000-33003"):  # tifffile leaves Aperio's YCbCr as it is; whole downsamples, so that OpenSlide is exact
        return [copies.region(oracle, (0, 0), i, size) for i, size in enumerate(oracle.level_dimensions)]
    levels = slides.decoded_levels(path)
    if name.startswith("philips"):  # tifffile has zeros where a tile is left out, and counts the padding in
        levels = [formats.cut(level, 0, 0, width, height) for level, (_, width, height) in zip(levels, opened.levels, strict=True)]
        levels = [whiten_missing(opened, i, level) for i, level in enumerate(levels)]
    return levels


def whiten_missing(opened, level, pixels):
    shape = opened.facts.levels[level]
    sizes = opened.record.tiles(level)[1].reshape(shape.rows, -1)
    for row in range(shape.rows):
        for column, size in enumerate(sizes[row, : shape.columns]):
            if not size:
                y, x = row * shape.tile_height, column * shape.tile_width
                pixels[y : y + shape.tile_height, x : x + shape.tile_width] = 255
    return pixels


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_thousand_random_reads_of_a_tiled_format_are_right_to_the_byte(name, tmp_path):
    suffix, write = WRITERS[name]
    path = write(tmp_path / f"slide.{suffix}")
    opened, random = slide.open(str(path)), np.random.default_rng(len(name))
    assert opened.facts.reader == "tiff"
    with openslide.OpenSlide(path) as oracle:
        for x, y, width, height in regions(random, opened.dimensions, opened.facts.levels[0].tile_width, READS):
            region = copies.region(oracle, (x, y), 0, (width, height))
            np.testing.assert_array_equal(opened.read_level(0, x, y, width, height), region, str((x, y)))
        levels = stored_levels(name, path, opened, oracle)
    for number, shape in enumerate(opened.facts.levels[1:], 1):
        count = READS // (len(levels) - 1)
        for x, y, width, height in regions(random, (shape.width, shape.height), shape.tile_width, count):
            found = opened.read_level(number, x, y, width, height)
            np.testing.assert_array_equal(found, formats.cut(levels[number], x, y, width, height), str((number, x, y)))


@pytest.mark.parametrize("name", WRITERS)
def test_what_the_engine_paints_is_what_a_read_gives(name, tmp_path):
    suffix, write = WRITERS[name]
    opened, random = slide.open(str(write(tmp_path / f"slide.{suffix}"))), np.random.default_rng(1)
    for level, shape in enumerate(opened.facts.levels):
        for edge in (64, 100):  # 1:1, and averaged down to 64
            x, y = (int(random.integers(0, length - edge + 1)) for length in (shape.width, shape.height))
            request = sampler.Request(0, 0, 0, shape.mpp, level, x, y, edge, 64, (0, 0))
            found = paint(opened, request)
            np.testing.assert_array_equal(found, slide.resample(opened.read_level(level, x, y, edge, edge), 64))


def paint(opened, request):
    """A patch as the stream makes it."""
    reads = slide.plan(opened.facts, opened.record, request.level, request.x, request.y, request.source_px, request.source_px)
    column = columns.alone(columns.Patch(request, np.array(reads, dtype=np.int64).reshape(-1, 9)))
    data = storage.Bucket().read_ranges(opened.facts.url, column.starts, column.sizes)
    out = np.zeros((request.size_px, request.size_px, 3), np.uint8)
    job = painting.Job(opened.facts, column.patches[0], data, out)
    assert painting.paint([job], copies.Copies(storage.Bucket()), stats.Stats()) == [True]
    return out


@pytest.mark.parametrize("name", ["svs-jpeg-tables-240", "svs-jpeg-rgb-tables", "svs-jpeg2000-33003", "ome-jpeg", "philips-sparse"])
def test_every_level_has_openslides_or_the_ome_series_size(name, tmp_path):
    suffix, write = WRITERS[name]
    opened = slide.open(str(write(tmp_path / f"slide.{suffix}")))
    with openslide.OpenSlide(tmp_path / f"slide.{suffix}") as oracle:
        sizes, scales = oracle.level_dimensions, oracle.level_downsamples
    found = [(level.width, level.height) for level in opened.facts.levels]
    assert len(found) == (2 if name == "svs-jpeg2000-33003" else 3)
    assert tuple(found[: len(sizes)]) == sizes  # OpenSlide does not look into OME's sub-directories
    assert [level.downsample for level in opened.facts.levels[: len(sizes)]] == pytest.approx(list(scales))


def test_philips_levels_lose_their_padding_and_missing_tiles_are_white(tmp_path):
    path = formats.write_philips(tmp_path / "a.tiff", Recipe(sizes=((1000, 700), (500, 350)), tile=256, tissue=0.4))
    opened = slide.open(str(path))
    assert (opened.facts.reader, opened.mpp) == ("tiff", pytest.approx(0.25))
    assert [size for _, *size in opened.levels] == [[1024, 768], [512, 384]]  # level 0 keeps its padding, as in OpenSlide
    assert (opened.record.tiles(0)[1] == 0).any()
    assert (opened.read_level(0, 768, 0, 256, 256) == 255).all()


@pytest.mark.parametrize("software", ["ScanOutputManager 1.1.0.15854", "somebody's converter"])
def test_overlapping_tiles_go_through_openslide_whoever_wrote_the_file(software, tmp_path):
    recipe = Recipe(sizes=((1024, 768), (512, 384)), tile=256)
    path = formats.write_ventana(tmp_path / "a.tif", recipe, overlap=24, software=software)
    opened = slide.open(str(path))
    assert (opened.facts.reader, opened.mpp) == ("openslide", 0.25)
    assert opened.dimensions == (4 * 256 - 3 * 24, 3 * 256 - 2 * 24)
    with openslide.OpenSlide(path) as oracle:
        for x, y, width, height in regions(np.random.default_rng(0), opened.dimensions, 256, 200):
            region = copies.region(oracle, (x, y), 0, (width, height))
            np.testing.assert_array_equal(opened.read_level(0, x, y, width, height), region)


def test_trestles_overlapping_tiles_are_left_to_openslide(tmp_path):
    path = slides.write(tmp_path / "a.tif", Recipe(sizes=((512, 512),), software="MedScan 1.0"))
    assert slide.open(str(path), mpp=0.25).facts.reader == "openslide"


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_dicom_slide_of_several_files_is_read_from_copies_of_all_of_them(kind, request, tmp_path):
    path = dicom.write(tmp_path / "case", Recipe(tile=128, sizes=EVEN))
    url, bucket = str(path), storage.Bucket()
    if kind == "s3":
        store = request.getfixturevalue("s3")
        urls = [store.put(each, f"case/{each.name}") for each in sorted(path.parent.iterdir())]
        url, bucket = urls[0], store.bucket()
    opened = slide.open(url, bucket=bucket)
    assert (opened.facts.reader, opened.mpp, len(opened.levels)) == ("openslide", pytest.approx(0.25), 2)
    with openslide.OpenSlide(path) as oracle:
        for x, y, width, height in regions(np.random.default_rng(0), opened.dimensions, 128, 200):
            np.testing.assert_array_equal(
                opened.read_level(0, x, y, width, height), copies.region(oracle, (x, y), 0, (width, height)), str((x, y))
            )
        np.testing.assert_array_equal(opened.read_level(1, 32, 16, 100, 100), copies.region(oracle, (64, 32), 1, (100, 100)))


def test_a_folder_of_dicom_files_is_one_slide_of_the_index(tmp_path):
    dicom.write(tmp_path / "s" / "case-1", Recipe(tile=128, mpp=0.5, sizes=EVEN))
    dicom.write(tmp_path / "s" / "case-2", Recipe(tile=128, mpp=0.5, sizes=EVEN, seed=1))
    patches = pretrain.Patches(size_px=64, magnifications=[pretrain.Magnification(mpp=0.5)])
    built = index.build([f"{tmp_path}/s/"], f"{tmp_path}/i", patches=patches)
    assert sorted(each.url.split("/")[-2] for each in built.slides) == ["case-1", "case-2"]
    assert {each.reader for each in built.slides} == {"openslide"}


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_mirax_slide_is_read_as_it_was_written_from_copies_of_all_its_files(kind, request, tmp_path):
    recipe = Recipe(tile=128, mpp=0.5, sizes=EVEN)
    path = mirax.write(tmp_path / "a.mrxs", recipe)
    url, bucket = str(path), storage.Bucket()
    if kind == "s3":
        store = request.getfixturevalue("s3")
        url, bucket = store.put(path), store.bucket()
        for each in path.with_suffix("").iterdir():
            store.put(each, f"a/{each.name}")
    opened = slide.open(url, bucket=bucket)
    assert (opened.facts.reader, opened.mpp, len(opened.levels)) == ("openslide", pytest.approx(0.5), 2)
    base, half = slides.pyramid(recipe)
    around = np.pad(base, ((200, 200), (200, 200), (0, 0)), constant_values=255)
    for x, y, width, height in regions(np.random.default_rng(0), opened.dimensions, 128, 200):
        expected = around[y + 200 : y + 200 + height, x + 200 : x + 200 + width]
        np.testing.assert_array_equal(opened.read_level(0, x, y, width, height), expected, str((x, y, width, height)))
    np.testing.assert_array_equal(opened.read_level(1, 32, 16, 100, 100), half[16:116, 32:132])


@pytest.mark.parametrize("lost", ["Index.dat", "Data0001.dat"])
def test_a_mirax_slide_without_one_of_its_files_is_rejected_and_the_others_are_used(lost, tmp_path):
    for name in ("whole", "broken"):
        mirax.write(tmp_path / "s" / f"{name}.mrxs", Recipe(tile=128, mpp=0.5, sizes=EVEN))
    (tmp_path / "s" / "broken" / lost).unlink()
    patches = pretrain.Patches(size_px=64, magnifications=[pretrain.Magnification(mpp=0.5)])
    built = index.build([f"{tmp_path}/s/"], f"{tmp_path}/i", patches=patches)
    assert [each.id for each in built.slides] == [f"{tmp_path}/s/whole.mrxs"]
    assert [each.rejected for each in built.rejected] == ["Unreadable"]


def test_a_change_of_any_of_a_slides_files_is_noticed_by_the_index_and_by_a_stream(tmp_path):
    first, second = (dicom.write(tmp_path / "s" / name, Recipe(tile=128, mpp=0.5, sizes=EVEN)) for name in ("case-1", "case-2"))
    spec = make_spec(2, {"sizePx": 64, "magnifications": [{"mpp": 0.5}]}, crops={"globalSizePx": 64, "localSizePx": 32})
    built = sets.build(spec, f"{tmp_path}/s/", f"{tmp_path}/i")
    coarse = second.with_name("level-1.dcm")
    coarse.write_bytes(coarse.read_bytes() + b"\0\0")
    stats = stream.Stats()
    with stream.batches(built, spec, seed=0, stop_step=2, threads=1, stats=stats) as batches:
        seen = {built.slides[r.slide].url for batch in batches for r in batch.requests}
    again = sets.build(spec, f"{tmp_path}/s/", f"{tmp_path}/i")
    assert set(stats.replaced) == {"Changed"}
    assert seen == {str(first)}
    assert sum(one.etag != other.etag for one, other in zip(built.slides, again.slides, strict=True)) == 1
