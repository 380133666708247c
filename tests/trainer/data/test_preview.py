"""Pictures for people."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from patho_trainer.data import chart, preview, sampler, slide, stream, tissue
from tests.trainer import slides
from tests.trainer.data.values import make_catalog, make_levels, make_slide, make_spec


@pytest.fixture
def catalog():
    return make_catalog(20)


@pytest.fixture
def batch(catalog):
    requests = tuple(sampler.requests(catalog, make_spec(batch_size=12), 0, 0))
    images = torch.randint(0, 255, (12, 256, 256, 3), dtype=torch.uint8)
    return stream.Batch(0, images, tuple(range(12)), requests)


def opened(png):
    return np.asarray(Image.open(io.BytesIO(png)))


def test_lines_show_every_magnification_fine_to_coarse(catalog, batch):
    crops = [[np.zeros((224, 224, 3), np.uint8)] * 2 + [np.zeros((96, 96, 3), np.uint8)] * 8] * 12
    lines = preview.rows(catalog, batch, crops, count=6)
    assert len(lines) == 6
    assert [line.label for line in lines] == sorted(line.label for line in lines)
    assert {line.label for line in lines} == {f"{r.mpp:.2f} um/px" for r in batch.requests}


def test_slides_that_scatter_are_lines_of_the_magnification_that_was_wanted():
    scattered = make_catalog([make_slide(f"slide-{i}", make_levels(mpp=0.24 + 0.002 * i)) for i in range(10)])
    requests = tuple(sampler.requests(scattered, make_spec(batch_size=32), 0, 0))
    batch = stream.Batch(0, torch.zeros((32, 8, 8, 3), dtype=torch.uint8), tuple(range(32)), requests)
    assert [line.label for line in preview.rows(scattered, batch)] == ["0.25 um/px", "0.50 um/px", "1.00 um/px", "2.00 um/px"]
    assert len({f"{r.mpp:.2f}" for r in requests}) > 4


def test_without_crops_a_line_is_a_magnification(catalog, batch):
    lines = preview.rows(catalog, batch)
    assert sum(len(line.pictures) for line in lines) == 12
    assert lines[0].captions[0].endswith(".tif")


def test_under_each_patch_stand_its_resolution_and_its_slide(catalog, batch):
    crops = [[np.zeros((96, 96, 3), np.uint8)]] * 12
    for line in preview.rows(catalog, batch, crops, count=6):
        assert line.captions[0].startswith(f"{line.label.removesuffix(' um/px')}0 um/px  slide-")


def test_a_contact_sheet_holds_the_pictures(catalog, batch):
    red = np.full((256, 256, 3), (255, 0, 0), np.uint8)
    blue = np.full((96, 96, 3), (0, 0, 255), np.uint8)
    sheet = opened(preview.contact_sheet([preview.Row("0.25 um/px", "a-slide.tif", (red, blue, blue))], "title"))
    assert (sheet == (255, 0, 0)).all(-1).sum() == preview.PATCH_PX**2
    assert (sheet == (0, 0, 255)).all(-1).sum() == 2 * 63**2


def test_a_thumbnail_veils_the_glass_and_outlines_the_tissue(tmp_path):
    whole = slide.open(str(slides.write(tmp_path / "a.tif", slides.Recipe(((1024, 768), (512, 384))))))
    mask = np.zeros(tissue.mask_shape(*whole.dimensions, whole.mpp), dtype=bool)
    mask[4:12, 4:12] = True
    picture = opened(preview.thumbnail(whole, mask, width_px=320))
    assert picture.shape == (240 + 10 + 48, 340, 3)
    assert (picture == preview.OUTLINE).all(-1).sum() > 100


def test_a_thumbnail_shows_where_patches_were_taken_and_in_which_magnification(tmp_path):
    whole = slide.open(str(slides.write(tmp_path / "a.tif", slides.Recipe(((1024, 768), (512, 384))))))
    mask = np.ones(tissue.mask_shape(*whole.dimensions, whole.mpp), dtype=bool)
    blue, red = (0, 0, 255), (255, 0, 0)
    boxes = [preview.Box((100, 100), 256, blue), preview.Box((500, 300), 64, red)]
    picture = opened(preview.thumbnail(whole, mask, boxes, [chart.Entry("0.25 um/px", blue)], width_px=512))
    assert tuple(picture[10 + 50, 10 + 100]) == blue  # the upper edge of a box at half the scale
    assert tuple(picture[10 + 150, 10 + 260]) == red
    assert (picture[384 + 10 :] == blue).all(-1).sum() == 144  # the legend
