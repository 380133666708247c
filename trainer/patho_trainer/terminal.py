"""What a person sees: a live bar on a terminal, plain lines elsewhere, and summaries."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Self

import rich.console
import rich.live
import rich.progress
import rich.table

from patho_api import report

if TYPE_CHECKING:  # it imports the client of buckets, which other commands need not wait for
    from patho_trainer.evaluation import compare

PLAIN_SECONDS = 10.0
COLUMNS = (
    rich.progress.TextColumn("[bold]{task.description:<10}"),
    rich.progress.BarColumn(bar_width=None),
    rich.progress.MofNCompleteColumn(),
    rich.progress.TextColumn("{task.fields[facts]}"),
)


class ProgressView:
    """Shows the reports of a run: a bar for each stage on a terminal, else a line whenever the stage changes and every 10 s."""

    def __init__(self, console: rich.console.Console) -> None:
        self._console = console
        self._bar = rich.progress.Progress(*COLUMNS, console=console, disable=not console.is_terminal)
        self._tasks: dict[str, rich.progress.TaskID] = {}
        self._last: tuple[str, float] = ("", 0.0)
        self.latest: report.ProgressReport | None = None

    def __enter__(self) -> Self:
        self._bar.start()
        self._starting: rich.progress.TaskID | None = self._bar.add_task("Starting", total=None, facts="")  # torch is slow to import
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, now: report.ProgressReport) -> None:
        self.latest = now
        if self._starting is not None:
            self._bar.remove_task(self._starting)
            self._starting = None
        if self._console.is_terminal:
            self._show_bar(now)
        else:
            self._show_line(now)

    def _show_bar(self, now: report.ProgressReport) -> None:
        if now.stage not in self._tasks:
            self._tasks[now.stage] = self._bar.add_task(now.stage, total=now.total_steps or None, facts="")
        self._bar.update(self._tasks[now.stage], completed=now.step, total=now.total_steps or None, facts=facts(now))

    def _show_line(self, now: report.ProgressReport) -> None:
        stage, when = self._last
        if now.stage == stage and time.monotonic() - when < PLAIN_SECONDS:
            return
        self._last = (now.stage, time.monotonic())
        count = f"{now.step:,}/{now.total_steps:,}" if now.total_steps else ""
        self._console.print(f"{now.stage:<10} {count:<9}  {facts(now)}".rstrip(), highlight=False)


class Counter:
    """Counts one long piece of work: a bar on a terminal, else a line every 10 s."""

    def __init__(self, console: rich.console.Console, title: str) -> None:
        self._console, self._title, self._began = console, title, time.monotonic()
        self._last = self._began
        self._bar = rich.progress.Progress(*COLUMNS, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(title, total=None, facts="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._bar.update(self._task, completed=done, total=total, facts=left(done, total, now - self._began))
        if not self._console.is_terminal and now - self._last > PLAIN_SECONDS:
            self._last = now
            self._console.print(f"{self._title} {done:,}/{total:,}  {left(done, total, now - self._began)}", highlight=False)


def left(done: int, total: int, seconds: float) -> str:
    """How long the rest takes at the speed so far."""
    return f"ETA {duration(seconds / done * (total - done))}" if done else ""


def facts(now: report.ProgressReport) -> str:
    """The numbers of a report in one line; those that are unknown are left out."""
    parts = [
        None if now.images_per_second is None else f"{now.images_per_second:,.1f} img/s",
        None if now.data_wait_percent is None else f"wait {now.data_wait_percent:.0f}%",
        None if now.loss is None else f"loss {now.loss:.3f}",
        None if now.eta_seconds is None else f"ETA {duration(now.eta_seconds)}",
        f"{now.restarts} restart{'s' * (now.restarts > 1)}" if now.restarts else None,
    ]
    return "  ".join(p for p in parts if p)


def duration(seconds: float) -> str:
    """Seconds as people say them: 45s, 3m20s, 2h05m, 3d04h."""
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h:02}h"
    if hours:
        return f"{h}h{m:02}m"
    return f"{m}m{s:02}s" if m else f"{s}s"


def comparison(found: "Sequence[compare.Difference]") -> rich.table.Table:
    """Two evaluations side by side; the error is the standard error of the difference."""
    table = rich.table.Table("task", "metric", "a", "b", "b - a", "error", "")
    for d in found:
        error = "" if d.error is None else f"{d.error:.3f}"
        means = (f"{t.mean:.3f} ± {t.std:.3f} ({len(t.runs)})" for t in (d.a, d.b))
        table.add_row(d.task, d.a.metric, *means, f"{d.change:+.3f}", error, d.verdict)
    return table


def scores(words: report.LastWords) -> rich.table.Table:
    """Scores of an evaluation as a table."""
    table = rich.table.Table("task", "metric", "mean", "std", "runs", "samples")
    for r in words.results:
        table.add_row(r.task, r.metric, f"{r.mean:.3f}", f"{r.std:.3f}", str(r.runs), str(r.samples))
    return table
