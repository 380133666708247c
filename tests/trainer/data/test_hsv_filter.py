"""Which patches count as stained: Midnight's and Virchow's rule, 60 % of the pixels in a range of HSV."""

import numpy as np
import pytest

from patho_trainer.data import painting

STAIN, NUCLEUS, GLASS = (222, 150, 190), (96, 58, 132), (243, 242, 244)


def patch(share, colour, rest=GLASS):
    """100 x 100 px, of which a share has a colour."""
    pixels = np.full((100, 100, 3), rest, dtype=np.uint8)
    pixels[: round(100 * share)] = colour
    return pixels


@pytest.mark.parametrize(
    ("colour", "stained"),
    [
        (STAIN, True),
        (NUCLEUS, True),
        (GLASS, False),  # no saturation
        ((200, 120, 60), False),  # brown: hue below 180 degrees
        ((60, 160, 80), False),  # green ink
        ((60, 30, 90), False),  # a dark fold: value below 103
        ((103, 60, 103), True),
        ((102, 60, 102), False),
    ],
)
def test_a_colour_is_stained_by_hue_saturation_and_value(colour, stained):
    assert painting.is_stained(patch(1.0, colour)) == stained


def test_three_fifths_of_a_patch_have_to_be_stained():
    assert painting.is_stained(patch(0.6, STAIN))
    assert not painting.is_stained(patch(0.59, STAIN))
