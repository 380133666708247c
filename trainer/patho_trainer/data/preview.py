"""Pictures for people: a contact sheet of what a model sees, and thumbnails that show where patches may lie."""

import dataclasses
import posixpath
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from patho_trainer.data import catalog as catalogs
from patho_trainer.data import chart, coverage, slide, stream
from patho_trainer.data.chart import FAINT, INK, PAPER, fit, font, png

Pixels = NDArray[np.uint8]

PATCH_PX = 168  # edge at which a patch is shown; crops are shown to the same scale
GAP_PX, MARGIN_PX, LABEL_PX = 10, 28, 190
OUTLINE = np.array([0, 110, 80], dtype=np.uint8)
VEIL = 0.55  # how far glass fades out of a thumbnail


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a contact sheet: a heading with a fainter second line, and pictures, uint8 (height, width, 3), with their captions."""

    label: str
    detail: str
    pictures: tuple[Pixels, ...]
    captions: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Box:
    """A patch on its slide: corner and edge in level-0 pixels, and the colour it is drawn in."""

    xy: tuple[int, int]
    edge: int
    colour: tuple[int, int, int]

    @property
    def corners(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Upper left and lower right."""
        return self.xy, (self.xy[0] + self.edge, self.xy[1] + self.edge)


def rows(catalog: catalogs.Catalog, batch: stream.Batch, crops: Sequence[Sequence[Pixels]] = (), count: int = 8) -> list[Row]:
    """The lines for at most `count` patches of a batch, fine to coarse, all magnifications among them.

    `crops[i]` are what the augmentation made of patch i, as pictures; without any, a line is the patches of one magnification. A line is
    headed by the magnification that was wanted, and a patch's own stands below it: scanners scatter by 2 %.
    """
    wanted = sorted({accepted.mpp for request in batch.requests for accepted in catalog.slides[request.slide].accepted})
    kinds = [coverage.wanted_mpp(request, wanted) for request in batch.requests]
    order = _spread(kinds, count if crops else len(kinds))
    names = [posixpath.basename(catalog.slides[request.slide].url) for request in batch.requests]
    patches = batch.images.numpy()
    if crops:
        return [
            Row(_label(kinds[i]), _corner(batch, i), (patches[i], *crops[i]), _captions(batch, i, names[i], len(crops[i]))) for i in order
        ]
    lines = []
    for kind in dict.fromkeys(kinds[i] for i in order):
        members = [i for i in order if kinds[i] == kind][:count]
        captions = tuple(_captions(batch, i, names[i], 0)[0] for i in members)
        lines.append(Row(_label(kind), f"{len(members)} of step {batch.step}", tuple(patches[i] for i in members), captions))
    return lines


def contact_sheet(lines: Sequence[Row], title: str, subtitle: str = "") -> bytes:
    """A PNG of labelled lines of pictures, all to one scale."""
    edge = max(line.pictures[0].shape[0] for line in lines)
    placed = [_place(line, PATCH_PX / edge) for line in lines]
    width = max(LABEL_PX + max(x + w for x, _, w in boxes) for boxes in placed) + 2 * MARGIN_PX
    height = sum(_height(line) for line in lines) + 2 * MARGIN_PX + 56
    sheet = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN_PX, MARGIN_PX - 6), title, INK, font(24))
    pen.text((MARGIN_PX, MARGIN_PX + 24), subtitle, FAINT, font(14))
    top = MARGIN_PX + 56
    for line, boxes in zip(lines, placed, strict=True):
        _draw(sheet, pen, line, boxes, top)
        top += _height(line)
    return png(sheet)


def thumbnail(
    opened: slide.Opened, mask: NDArray[np.bool_], boxes: Sequence[Box] = (), legend: Sequence[chart.Entry] = (), width_px: int = 640
) -> bytes:
    """A PNG of a whole slide: glass veiled, tissue outlined, `boxes` of patches drawn in. `mask` is the index's."""
    width, height = opened.dimensions
    rows_px = max(1, round(width_px * height / width))
    pixels = opened.thumbnail(rows_px, width_px)
    tissue = cv2.resize(mask.astype(np.uint8), (width_px, rows_px), interpolation=cv2.INTER_NEAREST)
    veiled = np.where(tissue[..., None] > 0, pixels, pixels * (1 - VEIL) + 255 * VEIL).astype(np.uint8)
    edge = cv2.morphologyEx(tissue, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    veiled[edge] = OUTLINE
    for box in sorted(boxes, key=lambda b: -b.edge):
        (left, top), (right, bottom) = ((round(x * width_px / width), round(y * width_px / width)) for x, y in box.corners)
        cv2.rectangle(veiled, (left, top), (right, bottom), box.colour, 2)
    sheet = Image.new("RGB", (width_px + 2 * GAP_PX, rows_px + GAP_PX + 48 + (24 if legend else 0)), PAPER)
    sheet.paste(Image.fromarray(veiled), (GAP_PX, GAP_PX))
    pen = ImageDraw.Draw(sheet)
    text = f"{width:,} x {height:,} px, {opened.mpp:.3g} um/px, {mask.mean():.0%} tissue"
    pen.text((GAP_PX, rows_px + GAP_PX + 12), fit(pen, f"{text}  {posixpath.basename(opened.facts.url)}", width_px, 14), INK, font(14))
    chart.draw_legend(pen, (GAP_PX, rows_px + GAP_PX + 38), legend)
    return png(sheet)


def _spread(kinds: Sequence[float], count: int) -> list[int]:
    """At most `count` indices, in the order of their kind, as many of each kind as there can be."""
    nth = [kinds[:i].count(kind) for i, kind in enumerate(kinds)]
    taken = sorted(range(len(kinds)), key=lambda i: (nth[i], kinds[i]))[:count]
    return sorted(taken, key=lambda i: kinds[i])


def _label(mpp: float) -> str:
    return f"{mpp:.2f} um/px"


def _corner(batch: stream.Batch, i: int) -> str:
    request = batch.requests[i]
    return f"level {request.level} at {request.x:,}, {request.y:,}"


def _captions(batch: stream.Batch, i: int, name: str, crops: int) -> tuple[str, ...]:
    """What stands below a patch and its crops; the small ones have no room."""
    return f"{batch.requests[i].mpp:.3f} um/px  {name}", *(f"crop {n + 1}" for n in range(crops))


def _place(line: Row, scale: float) -> list[tuple[int, int, int]]:
    """(x, y, edge) of each picture in its line; pictures of less than half the height are stacked two by two."""
    boxes, x, y = [], 0, 0
    for pixels in line.pictures:
        edge = max(1, round(pixels.shape[0] * scale))
        boxes.append((x, y, edge))
        stacked = not y and 2 * edge + GAP_PX <= PATCH_PX
        x, y = (x, edge + GAP_PX) if stacked else (x + edge + GAP_PX, 0)
    return boxes


def _height(line: Row) -> int:
    return PATCH_PX + 2 * GAP_PX + (18 if line.captions else 0)


def _draw(sheet: Image.Image, pen: ImageDraw.ImageDraw, line: Row, boxes: Sequence[tuple[int, int, int]], top: int) -> None:
    pen.text((MARGIN_PX, top + 2), line.label, INK, font(18))
    pen.text((MARGIN_PX, top + 28), fit(pen, line.detail, LABEL_PX - GAP_PX, 12), FAINT, font(12))
    captions = line.captions or ("",) * len(boxes)
    for pixels, caption, (x, y, edge) in zip(line.pictures, captions, boxes, strict=True):
        left = MARGIN_PX + LABEL_PX + x
        sheet.paste(Image.fromarray(pixels).resize((edge, edge), Image.Resampling.LANCZOS), (left, top + y))
        if edge > PATCH_PX // 2:
            pen.text((left, top + PATCH_PX + 4), fit(pen, caption, edge, 11), FAINT, font(11))
