"""Plots of the report as inline SVG. Values in, markup out."""

import html
import math
from collections.abc import Iterable

from patho_trainer.evaluation.results import TaskOutcome

LEFT, WIDTH, ROW = 170, 640, 34  # of the plot of scores, px
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


def _dot(x: float, y: float, title: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{BLUE}" fill-opacity=".6"><title>{html.escape(title)}</title></circle>'


def _cell(x: float, y: float, size: float, share: float, title: str) -> str:
    fill = f'fill="{BLUE}" fill-opacity="{share:.3f}" stroke="{PALE}"'
    return f'<rect x="{x}" y="{y}" width="{size}" height="{size}" {fill}><title>{html.escape(title)}</title></rect>'


def _label(x: float, y: float, text: str, anchor: str = "start", colour: str = "#1b1f24", turned: bool = False) -> str:
    turn = f' transform="rotate(60 {x:.1f} {y:.1f})"' if turned else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}"{turn}>{html.escape(text)}</text>'
