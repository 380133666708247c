"""A line chart and the pieces of ink that pictures share. Drawn by Pillow alone, because a pod has no browser and no fonts."""

import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, FAINT, GRID = "white", (28, 32, 40), (112, 118, 130), (226, 229, 234)
# apart from each other on paper and on stained tissue; green is the outline of tissue
COLOURS = ((0, 84, 210), (226, 112, 0), (24, 24, 24), (190, 0, 60), (0, 140, 160), (120, 60, 160), (130, 100, 0), (110, 110, 110))
SIZE_PX, EDGE_PX = (760, 360), (64, 84, 28, 48)  # the whole, and left, top, right, bottom of it around the plot

Colour = tuple[int, int, int]


class Entry(NamedTuple):
    """A line of a legend."""

    name: str
    colour: Colour


def lines(title: str, subtitle: str, x_name: str, x: Sequence[float], shares: Mapping[str, Sequence[float]]) -> bytes:
    """A PNG of shares (0 to 1) over `x`, one line each; every line's last value stands in the legend."""
    sheet = Image.new("RGB", SIZE_PX, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((24, 14), title, INK, font(20))
    pen.text((24, 40), subtitle, FAINT, font(13))
    entries = [Entry(f"{name}: {values[-1]:.1%}", colour) for (name, values), colour in zip(shares.items(), COLOURS, strict=False)]
    draw_legend(pen, (24, 62), entries)
    top = _round_up(max(max(values) for values in shares.values()))
    _axes(pen, x_name, x, top)
    for values, entry in zip(shares.values(), entries, strict=False):
        pen.line([_point(x, at, value / top) for at, value in zip(x, values, strict=True)], entry.colour, 3, joint="curve")
    return png(sheet)


def _round_up(share: float) -> float:
    """The next round number: what the axis ends at."""
    return next((top for top in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if share <= top), 1.0)


def _point(x: Sequence[float], at: float, height: float) -> tuple[float, float]:
    (width, full), (left, top, right, bottom) = SIZE_PX, EDGE_PX
    along = (at - x[0]) / ((x[-1] - x[0]) or 1)
    return left + along * (width - left - right), full - bottom - height * (full - top - bottom)


def _axes(pen: ImageDraw.ImageDraw, x_name: str, x: Sequence[float], top: float) -> None:
    for part in (0, 0.25, 0.5, 0.75, 1):
        start, end = _point(x, x[0], part), _point(x, x[-1], part)
        pen.line([start, end], GRID, 1)
        pen.text(
            (start[0] - 8, start[1]), f"{part * top:.3g}" if top < 0.01 else f"{part * top:.3g}".rstrip(), FAINT, font(12), anchor="rm"
        )
    for part in (0, 0.5, 1):
        at = x[0] + part * (x[-1] - x[0])
        pen.text((_point(x, at, 0)[0], SIZE_PX[1] - 36), f"{at:,.0f}", FAINT, font(12), anchor="mt")
    pen.text((SIZE_PX[0] / 2, SIZE_PX[1] - 18), x_name, FAINT, font(12), anchor="mt")


def draw_legend(pen: ImageDraw.ImageDraw, xy: tuple[int, int], entries: Sequence[Entry]) -> None:
    """Squares of colour with their names, side by side from `xy` on."""
    x, y = xy
    for name, colour in entries:
        pen.rectangle((x, y + 3, x + 11, y + 14), colour)
        pen.text((x + 17, y), name, INK, font(13))
        x += 17 + round(pen.textlength(name, font(13))) + 18


def fit(pen: ImageDraw.ImageDraw, text: str, width_px: int, size: int) -> str:
    """The text, or as much of both its ends as there is room for: slides' names differ at either. What two blanks part off is kept."""
    head, blanks, tail = text.rpartition("  ")
    cut, kept = tail, len(tail)
    while kept and pen.textlength(head + blanks + cut, font(size)) > width_px:
        kept -= 1
        cut = f"{tail[: (kept + 1) // 2]}…{tail[len(tail) - kept // 2 :]}"
    return head + blanks + cut


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own."""
    return ImageFont.load_default(size)


def png(sheet: Image.Image) -> bytes:
    """The picture as a file."""
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
