"""Progress as people read it: kubectl's columns cannot format numbers. Pure."""

from patho_api.report import ProgressReport
from patho_api.status import Progress
from patho_operator import times

COUNTING_STEPS = ("Loading", "Training", "Saving")  # stages whose count is training steps
LABELS = {"Indexing": "INDEX ", "Evaluating": "EVAL ", "Loading": "LOAD "}  # a bare count means training steps


def progress(found: ProgressReport) -> Progress:
    """Status' form of what rank 0 reported."""
    percent = min(100, 100 * found.step // found.total_steps) if found.total_steps else 0
    return Progress(
        stage=found.stage,
        step=found.step,
        total_steps=found.total_steps,
        percent=percent,
        eta_seconds=found.eta_seconds,
        images_per_second=_rounded(found.images_per_second),
        data_wait_percent=_rounded(found.data_wait_percent),
        loss=None if found.loss is None else round(found.loss, 4),
        display=_display(found, percent),
        eta="" if found.eta_seconds is None else times.short(found.eta_seconds),
        rate="" if found.images_per_second is None else f"{found.images_per_second:,.0f}",
        wait="" if found.data_wait_percent is None else f"{found.data_wait_percent:.0f}%",
        time=found.time,
    )


def at_rest(last: Progress | None, step: int | None) -> Progress | None:
    """Progress of a run that does not run: what was reached stays, rates and estimates do not."""
    if last is None:
        return None
    reached = max(last.step, step or 0) if last.stage in COUNTING_STEPS else last.step
    reached = min(reached, last.total_steps) if last.total_steps else reached
    percent = 100 * reached // last.total_steps if last.total_steps else 0
    still = {"eta_seconds": None, "eta": "", "rate": "", "wait": "", "images_per_second": None, "data_wait_percent": None}
    text = LABELS.get(last.stage, "") + _count(reached, last.total_steps, percent)
    return last.model_copy(update=still | {"step": reached, "percent": percent, "display": text})


def _display(found: ProgressReport, percent: int) -> str:
    return LABELS.get(found.stage, "") + _count(found.step, found.total_steps, percent)


def _count(step: int, total: int, percent: int) -> str:
    return f"{step:,}/{total:,} ({percent}%)" if total else f"{step:,}"


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, 1)
