"""Curves of several runs as one SVG: a panel for each quantity, the mean as a line and one standard deviation as a band."""

import statistics
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT, LEFT, TOP, GAP = 250, 170, 44, 28, 60  # of a panel, px
GREY, PALE, BLUE = "#57606a", "#d8dee4", "#0969da"
Runs = Sequence[Sequence[float]]


def svg(panels: Mapping[str, tuple[Sequence[float], Runs]]) -> str:
    """`panels`: for each title the x values, and the y values of each run at them."""
    width, height = len(panels) * (WIDTH + GAP) + LEFT, TOP + HEIGHT + 40
    drawn = [_panel(LEFT + i * (WIDTH + GAP), title, *values) for i, (title, values) in enumerate(panels.items())]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11" fill="{GREY}">'
    return "\n".join([head, f'<rect width="{width}" height="{height}" fill="#fff"/>', *drawn, "</svg>"]) + "\n"


def _panel(left: float, title: str, xs: Sequence[float], runs: Runs) -> str:
    means = [statistics.fmean(ys) for ys in zip(*runs, strict=True)]
    spreads = [statistics.stdev(ys) if len(runs) > 1 else 0.0 for ys in zip(*runs, strict=True)]
    low, high = min(m - s for m, s in zip(means, spreads, strict=True)), max(m + s for m, s in zip(means, spreads, strict=True))
    low, high = low - 0.08 * (high - low or 1), high + 0.08 * (high - low or 1)

    def at(x: float, y: float) -> str:
        return f"{left + WIDTH * x / xs[-1]:.1f},{TOP + HEIGHT * (high - y) / (high - low):.1f}"

    upper = [at(x, m + s) for x, m, s in zip(xs, means, spreads, strict=True)]
    lower = [at(x, m - s) for x, m, s in zip(xs, means, spreads, strict=True)]
    line = " ".join(at(x, m) for x, m in zip(xs, means, strict=True))
    return "\n".join(
        [
            f'<text x="{left}" y="{TOP - 10}" font-weight="bold">{title}</text>',
            *(_level(left, TOP + HEIGHT * i / 4, high - (high - low) * i / 4) for i in range(5)),
            *(f'<text x="{at(x, low).split(",")[0]}" y="{TOP + HEIGHT + 16}" text-anchor="middle">{x:g}</text>' for x in xs),
            f'<polygon points="{" ".join(upper + lower[::-1])}" fill="{BLUE}" opacity="0.2"/>',
            f'<polyline points="{line}" fill="none" stroke="{BLUE}" stroke-width="2"/>',
            f'<text x="{left + WIDTH / 2}" y="{TOP + HEIGHT + 32}" text-anchor="middle">steps</text>',
        ]
    )


def _level(left: float, y: float, value: float) -> str:
    """A line across a panel, with its value."""
    return (
        f'<line x1="{left}" x2="{left + WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="{PALE}"/>'
        f'<text x="{left - 5}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
    )
