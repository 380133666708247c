"""What is seen in time: shares of tissue by magnification, and their chart."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from patho_trainer.data import chart, coverage, sampler
from tests.trainer.data.values import make_catalog, make_mask, make_slide, make_spec


def shares_of(catalog, steps):
    masks = {i: make_mask(slide) for i, slide in enumerate(catalog.slides)}
    return coverage.over_steps(catalog, steps, masks, (0.25, 0.5, 1.0, 2.0))


def test_a_patch_covers_the_mask_pixels_that_it_touches():
    catalog = make_catalog(1)  # 8192 x 6144 px at 0.25 um/px: a mask of 256 x 192, half of it tissue each way
    request = sampler.Request(0, 0, slide=0, mpp=1.0, level=1, x=1000, y=800, source_px=256, size_px=256, xy_level0=(4000, 3200))
    shares = shares_of(catalog, [[request], [request]])  # mask pixels 125 to 156 across, 100 to 131 down
    assert shares[1.0] == [32 * 32 / (128 * 96)] * 2
    assert shares[0.25] == [0.0, 0.0]


def test_shares_only_grow_and_end_with_all_of_a_small_slide():
    catalog, spec = make_catalog(2), make_spec(batch_size=8)
    shares = shares_of(catalog, [sampler.requests(catalog, spec, 0, step) for step in range(60)])
    assert all(np.all(np.diff(values) >= 0) for values in shares.values())
    assert shares[2.0][-1] > 0.97 > shares[0.25][-1] > 0


def test_a_slide_without_a_magnification_does_not_count_for_it():
    request = sampler.Request(0, 0, slide=0, mpp=1.0, level=1, x=1000, y=800, source_px=256, size_px=256, xy_level0=(4000, 3200))
    catalog = make_catalog([make_slide("a"), make_slide("b"), make_slide("c", magnifications=(0.25,))])
    request = request._replace(slide=[s.id for s in catalog.slides].index("a"))
    assert shares_of(catalog, [[request]])[1.0] == [32 * 32 / (2 * 128 * 96)]


def test_a_chart_draws_each_line_in_its_colour_and_says_where_it_ends():
    picture = Image.open(io.BytesIO(chart.lines("Title", "below", "step", [0, 1, 2], {"a": [0.0, 0.1, 0.3], "b": [0.0, 0.0, 0.0]})))
    pixels = np.asarray(picture.convert("RGB"))
    for colour in chart.COLOURS[:2]:
        assert (pixels == colour).all(-1).sum() > 300
    assert picture.size == chart.SIZE_PX


@pytest.mark.parametrize(("share", "top"), [(0.0004, 0.001), (0.03, 0.05), (0.5, 0.5), (0.51, 1.0), (1.0, 1.0)])
def test_an_axis_ends_at_a_round_number(share, top):
    assert chart._round_up(share) == top


def test_a_long_name_loses_its_middle_and_keeps_what_two_blanks_part_off():
    pen = ImageDraw.Draw(Image.new("RGB", (10, 10)))
    text = chart.fit(pen, "0.50 um/px  a-very-long-name-of-a-slide-DX1.svs", 150, 11)
    assert text.startswith("0.50 um/px  a-very")
    assert "…" in text
    assert text.endswith("DX1.svs")
    assert pen.textlength(text, chart.font(11)) <= 150
    assert chart.fit(pen, "short", 150, 11) == "short"
