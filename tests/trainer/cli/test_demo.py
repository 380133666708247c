"""The demo as a newcomer runs it: killed in the middle, called again, and all that it promises is there."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
STEPS = 40  # a checkpoint after every sixth


def start(folder: pathlib.Path) -> subprocess.Popen[str]:
    patho = pathlib.Path(sys.executable).with_name("patho")
    return subprocess.Popen(
        [patho, "demo", "--out", folder, "--steps", str(STEPS)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def descendants(pid: int) -> list[int]:
    """Processes below one, their own children last; none of one that has just ended."""
    try:
        children = [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [below for child in children for below in descendants(child)]


def wait_for_checkpoint(folder: pathlib.Path, process: subprocess.Popen[str], seconds: float = 400) -> None:
    end = time.monotonic() + seconds
    while not list(folder.glob("bucket/runs/demo/step-*/COMPLETE.json")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < end, f"no checkpoint in {seconds} s"
        time.sleep(0.2)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """(folder, output of the killed demo, output of the one after it)."""
    folder = tmp_path_factory.mktemp("demo") / "run"
    with start(folder) as killed:
        wait_for_checkpoint(folder, killed)
        for pid in descendants(killed.pid):
            with contextlib.suppress(ProcessLookupError):  # it went with its parent
                os.kill(pid, signal.SIGKILL)
        first = killed.communicate()[0]
    assert killed.returncode != 0
    with start(folder) as again:
        second = again.communicate()[0]
    assert again.returncode == 0, second
    return folder, first, second


def test_killed_training_says_how_to_go_on(outputs):
    assert "the same command goes on from the last checkpoint" in " ".join(outputs[1].split())
    assert "Traceback" not in outputs[1]


def test_the_same_command_goes_on_from_the_checkpoint(outputs):
    assert "going on from step " in " ".join(outputs[2].split())
    assert f"Trained to step {STEPS}" in outputs[2]


def test_every_artefact_of_the_summary_is_there(outputs):
    folder = outputs[0]
    assert (folder / "contact.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "bucket" / "evals" / "demo" / "results.json").exists()
    assert (folder / "bucket" / "evals" / "demo" / "report.html").exists()
    assert "patho_train_step" in (folder / "metrics.txt").read_text()
    assert "patho_stream_bytes_total" in (folder / "metrics.txt").read_text()
    assert len(list((folder / "bucket" / "runs" / "demo").glob("step-*/COMPLETE.json"))) == 2


def test_the_summary_names_the_score(outputs):
    assert "balanced accuracy" in outputs[2]
