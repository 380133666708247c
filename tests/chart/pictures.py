"""A dashboard drawn without Grafana: the same panels in the same places, from the results of the same queries."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from charts import boards, dashboards

UNIT = 50  # of Grafana's grid, px
WIDTH = UNIT * dashboards.COLUMNS
ROW = 30
LINES = ("#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0")
INK, FAINT, PAPER, PANEL = "#24292f", "#6e7781", "#f6f8fa", "#ffffff"
Series = tuple[Mapping[str, str], Sequence[tuple[float, float]]]
Results = Mapping[str, Sequence[Sequence[Series]]]  # panel's title -> a list of series for each of its queries
FORMS = {"percentunit": ("{:.3g} %", 100), "s": ("{:.3g} s", 1), "currencyUSD": ("${:.3g}", 1), "Bps": ("{:.3g} MB/s", 1e-6)}
FORMS |= {"bytes": ("{:.3g} kB", 1e-3)}


def draw(board: boards.Board, results: Results, until: float) -> Image.Image:
    """The picture of a dashboard as it was at the Unix time `until`."""
    results = {title: [_before(found, until) for found in queries] for title, queries in results.items()}
    placed = list(dashboards.placed(board.panels))
    height = max(place.y + place.h for _, place in placed) * ROW + 40
    picture = Image.new("RGB", (WIDTH, height), PAPER)
    pen = ImageDraw.Draw(picture)
    pen.text((12, 8), board.title, INK, _font(20))
    for panel, place in placed:
        x, y = place.x * UNIT, place.y * ROW + 40
        box = (x + 4, y + 4, x + place.w * UNIT - 4, y + place.h * ROW - 4)
        pen.rounded_rectangle(box, 4, PANEL, "#d0d7de")
        pen.text((box[0] + 8, box[1] + 5), panel.title, INK, _font(13))
        if any(results[panel.title]):
            _KINDS[panel.kind](pen, box, panel, results[panel.title])
        else:
            pen.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), "no data", FAINT, _font(13), anchor="mm")
    return picture


def _before(found: Sequence[Series], until: float) -> Sequence[Series]:
    """What was known then; what came later is shown where nothing was."""
    cut = [(labels, [(t, v) for t, v in values if t <= until]) for labels, values in found]
    return [(labels, values) for labels, values in cut if values] or found


def _stat(pen: ImageDraw.ImageDraw, box: tuple[int, ...], panel: boards.Panel, results: Sequence[Sequence[Series]]) -> None:
    labels, values = max(results[0], key=lambda series: series[1][-1][0])  # the one that was seen last
    legend = panel.queries[0][1]
    said = _named(legend, labels) if legend else _number(panel, values[-1][1])
    pen.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2 + 8), said, LINES[5], _font(30), anchor="mm")


def _table(pen: ImageDraw.ImageDraw, box: tuple[int, ...], panel: boards.Panel, results: Sequence[Sequence[Series]]) -> None:
    newest = max(values[-1][0] for found in results for _, values in found)
    now = [[(labels, values[-1][1]) for labels, values in found if values[-1][0] > newest - 2] for found in results]  # what exists now
    rows = [_row(panel, labels, now[1:]) for labels, _ in now[0]]
    for i, row in enumerate(rows[:9]):
        pen.text((box[0] + 8, box[1] + 30 + 20 * i), row, INK, _font(12))


def _row(panel: boards.Panel, labels: Mapping[str, str], others: Sequence[Sequence[tuple[Mapping[str, str], float]]]) -> str:
    """What the first query calls a row, and the values of the other queries about the same."""
    same = [value for found in others for theirs, value in found if theirs.items() <= labels.items()]
    return "  ".join([_named(panel.queries[0][1], labels), *[_number(panel, value) for value in same]])


def _lines(pen: ImageDraw.ImageDraw, box: tuple[int, ...], panel: boards.Panel, results: Sequence[Sequence[Series]]) -> None:
    series = [(_named(legend, s[0]), s[1]) for (_, legend), found in zip(panel.queries, results, strict=True) for s in found]
    times = [t for _, values in series for t, _ in values]
    numbers = [v for _, values in series for _, v in values]
    left, top, right, bottom = box[0] + 70, box[1] + 30, box[2] - 12, box[3] - 14 - 15 * min(3, len(series))
    low, high = min(0.0, *numbers), max(numbers)
    high = high if high > low else low + 1

    def place(t: float, v: float) -> tuple[float, float]:
        begin, end = min(times), max(times)
        return left + (t - begin) / max(1e-9, end - begin) * (right - left), bottom - (v - low) / (high - low) * (bottom - top)

    for v in (low, (low + high) / 2, high):
        y = place(times[0], v)[1]
        pen.line((left, y, right, y), "#eaeef2")
        pen.text((left - 6, y), _number(panel, v), FAINT, _font(11), anchor="rm")
    for i, (name, values) in enumerate(series):
        pen.line([place(t, v) for t, v in values] * (2 if len(values) == 1 else 1), LINES[i % len(LINES)], 2)
        if i < 6:
            x, y = left - 60 + (i // 3) * (box[2] - box[0]) // 2, bottom + 8 + 15 * (i % 3)
            pen.text((x, y), f"- {name}"[: 60 if len(series) < 4 else 30], LINES[i % len(LINES)], _font(11))


_KINDS = {"stat": _stat, "table": _table, "timeseries": _lines}


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"\{\{(\w+)\}\}", lambda found: labels.get(found[1], ""), legend) or "value"


def _number(panel: boards.Panel, value: float) -> str:
    form, factor = FORMS.get(panel.unit, ("{:.4g}", 1))
    return form.format(value * factor)


def _font(size: int) -> Any:
    return ImageFont.load_default(size)
