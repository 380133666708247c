"""The user's own masks: what is tissue in them, at whatever resolution they come, and what is wrong with them."""

import hashlib
import io

import imagecodecs
import numpy as np
import pytest
import tifffile

from patho_api import pretrain
from patho_trainer.data import index, manifest, masks, slide, tissue
from tests.trainer import slides

SHAPE = (60, 80)  # rows, columns
SMALL = slides.Recipe(mpp=0.5, vendor=True, sizes=((384, 256), (192, 128)))
PATCHES = pretrain.Patches(size_px=64, magnifications=[pretrain.Magnification(mpp=0.5)])


def drawing(scale=1):
    mask = np.zeros(SHAPE, dtype=np.uint8)
    mask[10:40, 20:60] = 255
    return np.kron(mask, np.ones((scale, scale), dtype=np.uint8))


def png(picture):
    return bytes(imagecodecs.png_encode(np.ascontiguousarray(picture)))


def tiff(*pictures, **options):
    file = io.BytesIO()
    with tifffile.TiffWriter(file) as writer:
        for picture in pictures:
            writer.write(picture, **options)
    return file.getvalue()


def decoded(data):
    return masks.decode(data, "gs://m/a.png", *SHAPE)


def rgba(mask):
    return np.dstack([np.full_like(mask, 90)] * 3 + [mask])


FORMS = {
    "png": png(drawing()),
    "png 16 times as fine": png(drawing(16)),
    "png of zeros and ones": png(drawing() // 255),
    "16 bit": png(drawing().astype(np.uint16)),
    "colour": png(np.dstack([drawing(), drawing() * 0, drawing() * 0])),
    "transparent glass": png(rgba(drawing())),
    "tiff": tiff(drawing(), compression="deflate"),
    "tiff of one bit": tiff(drawing(4) > 0),
    "tiled pyramid": tiff(drawing(16), drawing(4), drawing(1), tile=(64, 64), compression="lzw"),
    "a picture coarser than the index's": png(drawing()[::2, ::2]),
}


@pytest.mark.parametrize("form", FORMS)
def test_non_zero_is_tissue_in_every_form_of_mask(form):
    found = decoded(FORMS[form])
    assert found.shape == SHAPE
    np.testing.assert_array_equal(found, drawing() > 0)


def test_a_pixel_is_tissue_where_half_of_it_is():
    fine = np.zeros((120, 160), np.uint8)
    fine[:2, :2], fine[:1, 4:6], fine[:1, 8:9] = 1, 1, 1  # all, a half, a quarter of a pixel
    assert decoded(png(fine))[0, :5].tolist() == [True, False, True, False, False]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"GIF89a", "no readable PNG or TIFF"),
        (png(drawing())[:60], "no readable PNG or TIFF"),
        (png(drawing().T), "60 x 80 px, another shape than the whole slide"),
        (png(drawing())[:16] + (2**15).to_bytes(4, "big") * 2, "32768 x 32768 px, more than 268,435,456: write it at 8 um/px"),
    ],
)
def test_a_mask_of_no_use_is_named_with_what_is_wrong(data, words):
    with pytest.raises(slide.Rejected, match=words) as caught:
        decoded(data)
    assert caught.value.reason == "BadMask"
    assert "gs://m/a.png" in str(caught.value)


@pytest.mark.parametrize(
    ("pattern", "url"),
    [
        ("gs://m/{id}.png", "gs://m/case-7.png"),
        ("gs://m/{name}/mask.tif", "gs://m/a.b/mask.tif"),
        ("/m/{id}-{name}.png", "/m/case-7-a.b.png"),
    ],
)
def test_a_pattern_names_a_mask_by_the_slides_id_or_file_name(pattern, url):
    assert masks.url_of(pattern, manifest.Entry("case-7", "s3://slides/x/a.b.svs")) == url


def build(tmp_path, **foreground):
    chosen = pretrain.Foreground(method="Masks", masks_url=f"{tmp_path}/m/{{name}}.png", **foreground)
    return index.build([f"{tmp_path}/s/"], f"{tmp_path}/i", foreground=chosen, patches=PATCHES)


def write_mask(tmp_path, name, left):
    (tmp_path / "m").mkdir(exist_ok=True)
    mask = np.zeros((64, 96), np.uint8)  # four times as fine as the index's
    mask[:, left:] = 255
    (tmp_path / "m" / f"{name}.png").write_bytes(png(mask))


def test_an_index_takes_the_users_masks_and_follows_their_changes(tmp_path):
    slides.write(tmp_path / "s" / "a.svs", SMALL)
    write_mask(tmp_path, "a", left=48)
    first = build(tmp_path)
    assert first.record(0).mask.sum() == 16 * 12
    assert (first.record(0).mask[:, 12:]).all()
    assert build(tmp_path).version == first.version
    write_mask(tmp_path, "a", left=24)
    assert build(tmp_path).record(0).mask.sum() == 16 * 18


def test_a_slide_without_its_mask_is_rejected_until_the_mask_is_there(tmp_path):
    for name in ("a", "b"):
        slides.write(tmp_path / "s" / f"{name}.svs", SMALL)
    write_mask(tmp_path, "a", left=0)
    (rejected,) = build(tmp_path).rejected
    assert rejected.rejected == "NoMask"
    assert rejected.message.endswith("/m/b.png: foreground.masksUrl says where masks lie")
    write_mask(tmp_path, "b", left=0)
    assert len(build(tmp_path)) == 2


# (rows, columns), tissue pixels and blake2b of the mask as kaiko-eva's get_mask makes it (commit 73b61a79, defaults: saturation above 20)
EVA = {
    "a real slide": ((185, 138), 9395, "b0b573833827549e"),
    "a synthetic slide": ((256, 320), 54132, "8e2327069d1c43dd"),
    "noise": ((64, 80), 5082, "87021984de9f427b"),
}


def picture(name):
    if name == "a real slide":
        return slide.open(str(slides.CMU)).thumbnail(185, 138)
    if name == "a synthetic slide":
        return slides.picture(slides.Recipe(sizes=((320, 256),), seed=3))
    return np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", EVA)
def test_saturation_gives_evas_mask_of_the_same_picture(name):
    found = tissue.mask(picture(name), "Saturation")
    assert (found.shape, int(found.sum()), digest(found)) == EVA[name]


def digest(mask):
    return hashlib.blake2b(mask.astype(np.uint8).tobytes(), digest_size=8).hexdigest()
