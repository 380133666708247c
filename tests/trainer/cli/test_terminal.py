"""What a person reads while a run goes on."""

import io

import pytest
import rich.console

from patho_api import report
from patho_trainer import terminal
from tests.docs import terminal as pseudo_terminal

NOW = "2026-01-01T00:00:00Z"
STAGES = ["Loading", "Indexing", "Training", "Saving"]


def make_report(**fields):
    return report.ProgressReport(**({"run_id": "r", "stage": "Training", "step": 3, "total_steps": 9, "time": NOW} | fields))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (61, "1m01s"), (3600, "1h00m"), (7500, "2h05m"), (86400 * 3 + 4 * 3600, "3d04h")]
)
def test_a_duration_reads_as_people_say_it(seconds, text):
    assert terminal.duration(seconds) == text


def test_numbers_that_are_unknown_are_left_out():
    assert terminal.facts(make_report()) == ""
    assert terminal.facts(make_report(images_per_second=1234.5, loss=2.5, restarts=1)) == "1,234.5 img/s  loss 2.500  1 restart"


def test_on_a_terminal_something_moves_before_the_first_report():
    console = rich.console.Console(file=io.StringIO(), width=80, force_terminal=True)
    with terminal.ProgressView(console) as view:
        assert [task.description for task in view._bar.tasks] == ["Starting"]
        view.show(make_report())
        assert [task.description for task in view._bar.tasks] == ["Training"]


def test_on_a_terminal_each_stage_leaves_its_bar():
    out = io.StringIO()
    with terminal.ProgressView(rich.console.Console(file=out, width=80, force_terminal=True)) as view:
        for stage in STAGES:
            view.show(make_report(stage=stage))
    bars = [line for line in pseudo_terminal.screen(out.getvalue()) if "3/9" in line]
    assert [line.split()[0] for line in bars] == STAGES
    assert max(map(len, bars)) <= 80


def test_without_a_terminal_a_stage_is_one_plain_line():
    out = io.StringIO()
    with terminal.ProgressView(rich.console.Console(file=out, width=120)) as view:
        view.show(make_report(stage="Indexing", step=1))
        view.show(make_report(stage="Indexing", step=2))
        view.show(make_report(step=3, loss=1.0))
    assert out.getvalue().splitlines() == ["Indexing   1/9", "Training   3/9        loss 1.000"]
    assert "\x1b" not in out.getvalue()
