"""Plots of the report as inline SVG. Values in, markup out."""

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from patho_trainer.evaluation import exhibits
from patho_trainer.evaluation.exhibits import Point
from patho_trainer.evaluation.published import Score
from patho_trainer.evaluation.results import TaskOutcome

LEFT, WIDTH, ROW = 170, 640, 34  # of the plot of scores, px
NAMES, LINE = 250, 22  # of the plot against published scores, px
SQUARE = 360  # of a scatter plot, px
CURVE, TALL, AXIS = 480, 200, 60  # of a curve over checkpoints, px
CELL = 44  # of a confusion matrix, px
NUMBERED = 20  # classes; with more, shares are shown by colour alone
GREY, PALE, BLUE = "#57606a", "#d8dee4", "#0969da"


def scores(tasks: list[TaskOutcome]) -> str:
    """A row for each task: a dot for each run, a bar for the mean, a line over one standard deviation on either side."""
    low, high = _range([run.score for task in tasks for run in task.runs])

    def x(score: float) -> float:
        return LEFT + (min(max(score, low), high) - low) / (high - low) * (WIDTH - LEFT - 30)

    bottom = ROW * len(tasks) + 5
    marks = []
    for tick in _ticks(low, high):
        marks += [_line(x(tick), 0, x(tick), bottom, PALE), _label(x(tick), bottom + 17, f"{tick:.2f}", "middle")]
    for i, task in enumerate(tasks):
        y = ROW * (i + 0.5)
        marks += [_label(0, y + 4, task.task), _line(x(task.mean - task.std), y, x(task.mean + task.std), y, GREY, 2)]
        marks += [_line(x(task.mean), y - 9, x(task.mean), y + 9, GREY, 3)]
        marks += [_dot(x(run.score), y, f"seed {run.seed}: {run.score:.4f}") for run in task.runs]
    return _svg(WIDTH, bottom + 25, "Scores of all runs", marks)


def confusion(task: TaskOutcome) -> str:
    """True classes down, predicted classes across; shade and number are shares of the row."""
    classes = len(task.classes)
    cell = CELL if classes <= NUMBERED else max(3, CELL * NUMBERED // classes)
    marks = []
    for i, (name, shares) in enumerate(zip(task.classes, task.confusion, strict=True)):
        for j, share in enumerate(shares):
            marks.append(_cell(LEFT + j * cell, i * cell, cell, share, f"{name} taken for {task.classes[j]}: {share:.3f}"))
            if classes <= NUMBERED:
                colour = "#fff" if share > 0.6 else "#1b1f24"
                marks.append(_label(LEFT + (j + 0.5) * cell, (i + 0.5) * cell + 4, f"{share:.2f}", "middle", colour))
        if classes <= NUMBERED:
            marks.append(_label(LEFT - 8, (i + 0.5) * cell + 4, name, "end"))
            marks.append(_label(LEFT + (i + 0.5) * cell - 4, classes * cell + 12, name, turned=True))
    return _svg(LEFT + classes * cell + 120, classes * cell + 130, f"Confusion matrix of {task.task}", marks)


def _range(values: list[float]) -> tuple[float, float]:
    """A range of round numbers around values between 0 and 1."""
    return max(0.0, math.floor(20 * min(values) - 0.2) / 20), min(1.0, math.ceil(20 * max(values) + 0.2) / 20)


def _ticks(low: float, high: float) -> list[float]:
    """Every 0.05, or every 0.1 of a wide range."""
    return [i / 20 for i in range(round(20 * low), round(20 * high) + 1) if high - low < 0.4 or i % 2 == 0]


def _svg(width: float, height: float, title: str, marks: Iterable[str]) -> str:
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    return f'<svg {size} role="img" aria-label="{html.escape(title)}">{"".join(marks)}</svg>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: int = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width}"/>'


def _dot(x: float, y: float, title: str, colour: str = BLUE, radius: int = 5) -> str:
    look = f'r="{radius}" fill="{colour}" fill-opacity=".6"'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" {look}><title>{html.escape(title)}</title></circle>'


def _cell(x: float, y: float, size: float, share: float, title: str) -> str:
    fill = f'fill="{BLUE}" fill-opacity="{share:.3f}" stroke="{PALE}"'
    return f'<rect x="{x}" y="{y}" width="{size}" height="{size}" {fill}><title>{html.escape(title)}</title></rect>'


def _label(x: float, y: float, text: str, anchor: str = "start", colour: str = "#1b1f24", turned: bool = False) -> str:
    turn = f' transform="rotate(60 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{turn}>{html.escape(text)}</text>'


def against(task: TaskOutcome, published: Mapping[str, Score]) -> str:
    """This model's score as a band (mean and one standard deviation), each published one as a dot with its deviation."""
    rows = sorted(published.items(), key=lambda pair: pair[1].mean)
    ends = [value for _, s in rows for value in (s.mean - (s.std or 0), s.mean + (s.std or 0))]
    low, high = _range([*ends, task.mean - task.std, task.mean + task.std])

    def x(score: float) -> float:
        return NAMES + (min(max(score, low), high) - low) / (high - low) * (WIDTH - NAMES - 30)

    bottom = LINE * len(rows) + 5
    wide = max(2.0, x(task.mean + task.std) - x(task.mean - task.std))
    band = f'<rect x="{x(task.mean) - wide / 2:.1f}" y="0" width="{wide:.1f}" height="{bottom}" fill="{BLUE}" fill-opacity=".25"/>'
    marks = [band, _line(x(task.mean), 0, x(task.mean), bottom, BLUE, 2)]
    for tick in _ticks(low, high):
        marks += [_line(x(tick), 0, x(tick), bottom, PALE), _label(x(tick), bottom + 17, f"{tick:.2f}", "middle")]
    for i, (name, score) in enumerate(rows):
        y, spread = LINE * (i + 0.5), score.std or 0
        said = f"{name}: {score.mean:.3f}" + ("" if score.std is None else f" ± {score.std:.3f}")
        marks += [_label(0, y + 4, name), _line(x(score.mean - spread), y, x(score.mean + spread), y, GREY, 2)]
        marks += [_dot(x(score.mean), y, said, GREY, 4)]
    return _svg(WIDTH, bottom + 25, f"{task.task} against published scores", marks)


def scatter(points: Sequence[Point], classes: Sequence[str]) -> str:
    """Samples on their first two principal components, coloured by class; the legend beside."""
    marks = [f'<rect x="0.5" y="0.5" width="{SQUARE - 1}" height="{SQUARE - 1}" fill="none" stroke="{PALE}"/>']
    marks += [
        _dot(8 + p.x * (SQUARE - 16), SQUARE - 8 - p.y * (SQUARE - 16), classes[p.label], exhibits.colour(p.label), 3) for p in points
    ]
    for i, name in enumerate(classes[:NUMBERED]):
        marks += [_dot(SQUARE + 20, 14 + 20 * i, name, exhibits.colour(i)), _label(SQUARE + 32, 18 + 20 * i, name)]
    return _svg(SQUARE + 220, max(SQUARE, 20 * min(len(classes), NUMBERED) + 10), "Features on their two main directions", marks)


def curve(title: str, steps: Sequence[int], values: Sequence[float], spreads: Sequence[float] | None = None) -> str:
    """A value over the checkpoints of a run, with one standard deviation where it has one."""
    spreads = spreads or [0.0] * len(values)
    low = min(v - s for v, s in zip(values, spreads, strict=True))
    high = max(v + s for v, s in zip(values, spreads, strict=True))
    pad = (high - low) * 0.1 or abs(high) * 0.1 or 1.0

    def at(step: int, value: float) -> tuple[float, float]:
        across = (step - steps[0]) / max(1, steps[-1] - steps[0])
        return AXIS + across * (CURVE - AXIS - 20), TALL - 30 - (value - low + pad) / (high - low + 2 * pad) * (TALL - 50)

    marks = [_label(0, 12, title), _line(AXIS, TALL - 30, CURVE, TALL - 30, PALE)]
    for value in (low, high):
        marks += [
            _label(AXIS - 6, at(steps[0], value)[1] + 4, f"{value:.4g}", "end"),
            _line(AXIS, at(0, value)[1], CURVE, at(0, value)[1], PALE),
        ]
    path = " ".join("{:.1f},{:.1f}".format(*at(step, value)) for step, value in zip(steps, values, strict=True))
    marks.append(f'<polyline points="{path}" fill="none" stroke="{BLUE}" stroke-width="2"/>')
    for step, value, spread in zip(steps, values, spreads, strict=True):
        (x, top), (_, end) = at(step, value + spread), at(step, value - spread)
        marks += [_line(x, top, x, end, GREY, 2), _dot(x, at(step, value)[1], f"step {step:,}: {value:.4g} ± {spread:.2g}", BLUE, 4)]
    marks += [_label(at(step, low)[0], TALL - 12, f"{step:,}", anchor) for step, anchor in ((steps[0], "start"), (steps[-1], "end"))]
    return _svg(CURVE, TALL, title, marks)
