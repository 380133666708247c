"""Directories of TIFF files: resolution, levels, and what is refused or left to OpenSlide."""

import io

import numpy as np
import pytest
import tifffile

from patho_trainer.data import copies, resolution, slide, storage, tiff
from tests.trainer import formats, slides


def inspect(path, mpp=0.0):
    bucket = storage.Bucket()
    return slide.inspect(bucket.head(str(path)), bucket, copies.Copies(bucket), mpp)


def ome(size_x, unit="µm", size_y=None):
    pixels = "".join(
        f' PhysicalSize{axis}="{size}" PhysicalSize{axis}Unit="{unit}"' for axis, size in (("X", size_x), ("Y", size_y or size_x))
    )
    return (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0">'
        f'<Pixels ID="Pixels:0"{pixels}/></Image></OME>'
    )


@pytest.mark.parametrize(
    ("description", "mpp"),
    [
        ("Aperio Image Library\n|AppMag = 40|MPP = 0.2527|Left = 1", 0.2527),
        ("Aperio Image Library\n|AppMag = 40", 0.0),
        (ome(0.5), 0.5),
        (ome(0.0005, "mm"), 0.5),
        (ome(250, "nm"), 0.25),
        (ome(0.5, "reference frame"), 0.0),  # another unit is not guessed at
        (ome(0.25, size_y=0.5), 0.0),  # pixels that are not square have no single resolution
        (ome(0.25, size_y=0.252), 0.251),
        (formats.philips_xml([0.2273, 0.4546]), 0.2273),
        ("|MPP = 353", 0.0),  # no microscope's
        ("", 0.0),
    ],
)
def test_the_vendors_field_says_the_resolution(description, mpp):
    assert resolution.vendor_mpp(description) == pytest.approx(mpp)


def test_the_vendors_field_wins_over_the_tiffs_and_the_manifests_over_both(tmp_path):
    recipe = slides.Recipe(vendor=True, mpp=0.25)
    assert inspect(slides.write(tmp_path / "a.svs", recipe)).mpp == 0.25
    assert inspect(tmp_path / "a.svs", mpp=0.3).mpp == 0.3


def test_the_tiffs_own_resolution_is_used_where_the_vendor_says_nothing(tmp_path):
    opened = inspect(slides.write(tmp_path / "a.tif", slides.Recipe(mpp=0.46)))
    assert opened.mpp == pytest.approx(0.46, rel=1e-4)
    assert [round(mpp, 3) for mpp, _, _ in opened.levels] == [0.46, 0.92, 1.84]


def test_without_a_resolution_a_slide_is_rejected_and_the_manifest_helps(tmp_path):
    path = slides.write(tmp_path / "a.tif", slides.Recipe(resolution=False))
    with pytest.raises(slide.Rejected, match="give a column `mpp` in the manifest") as caught:
        inspect(path)
    assert caught.value.reason == "NoMpp"
    assert inspect(path, mpp=0.5).mpp == 0.5


def test_a_photographs_72_dpi_is_no_resolution(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(slides.picture(slides.Recipe()), tile=(128, 128), photometric="rgb", resolution=(72, 72), resolutionunit="INCH")
    with pytest.raises(slide.Rejected, match="how many um a square pixel"):
        inspect(tmp_path / "a.tif")


def test_pixels_that_are_not_square_are_no_resolution(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        picture = slides.picture(slides.Recipe())
        writer.write(picture, tile=(128, 128), photometric="rgb", resolution=(40_000, 20_000), resolutionunit="CENTIMETER")
    with pytest.raises(slide.Rejected, match="a square pixel") as caught:
        inspect(tmp_path / "a.tif")
    assert caught.value.reason == "NoMpp"


def test_levels_as_sub_directories_are_found(tmp_path):
    levels = slides.pyramid(slides.Recipe())
    options = {"tile": (128, 128), "photometric": "rgb", "compression": "deflate"}
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(levels[0], subifds=2, resolution=(4e4, 4e4), resolutionunit="CENTIMETER", **options)
        for pixels in levels[1:]:
            writer.write(pixels, subfiletype=1, **options)
    opened = inspect(tmp_path / "a.tif")
    assert [size for _, *size in opened.levels] == [[640, 512], [320, 256], [160, 128]]
    np.testing.assert_array_equal(opened.read_level(2, 0, 0, 160, 128), levels[2])


def test_a_label_of_another_shape_is_no_level(tmp_path):
    recipe = slides.Recipe(sizes=((640, 512),))
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for pixels in (slides.picture(recipe), np.full((256, 256, 3), 200, dtype=np.uint8)):
            writer.write(pixels, tile=(128, 128), photometric="rgb", resolution=(2e4, 2e4), resolutionunit="CENTIMETER")
    assert len(inspect(tmp_path / "a.tif").levels) == 1


def test_a_stripped_tiff_is_left_to_openslide_which_says_what_it_thinks(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", slides.picture(slides.Recipe()), photometric="rgb")
    with pytest.raises(slide.Rejected, match="OpenSlide cannot read it") as caught:
        inspect(tmp_path / "a.tif")
    assert caught.value.reason == "Unreadable"


def test_a_file_that_was_cut_off_is_truncated(tmp_path):
    path = slides.truncate(slides.write(tmp_path / "a.svs", slides.Recipe(compression="none", sizes=((640, 512),))), 0.6)
    with pytest.raises(slide.Rejected, match="upload it again") as caught:
        inspect(path)
    assert caught.value.reason == "Truncated"


@pytest.mark.parametrize("content", [b"", b"II*\0", b"not a slide at all", b"II*\0" + b"\xff" * 600])
def test_bytes_of_anything_else_are_unreadable(tmp_path, content):
    (tmp_path / "a.svs").write_bytes(content)
    with pytest.raises(slide.Rejected) as caught:
        inspect(tmp_path / "a.svs")
    assert caught.value.reason == "Unreadable"


def test_a_damaged_header_never_crashes_the_parser(tmp_path):
    data = bytearray(slides.write(tmp_path / "a.tif", slides.Recipe(sizes=((256, 256),))).read_bytes())
    random = np.random.default_rng(0)
    for _ in range(150):
        mutated = bytearray(data)
        for at in random.integers(0, 400, 6):
            mutated[at] = random.integers(256)
        bucket = storage.Bucket()
        (tmp_path / "m.tif").write_bytes(mutated)
        try:
            pyramid = slide._pyramid(bucket.head(str(tmp_path / "m.tif")), bucket, 0.25)
        except slide.Rejected:
            continue
        assert pyramid is None or pyramid.levels[0].width > 0


def test_something_without_a_tiffs_magic_is_not_parsed():
    assert tiff.parse(io.BytesIO(b"DICM" * 100), 400) is None
