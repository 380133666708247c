"""An elastic gang as real processes: three pods under torchrun, two are enough."""

import math
import pathlib

import pytest

from patho_api.report import ProgressReport
from tests.trainer import runs, servers

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
ELASTIC = {"compute__nodes": 3, "compute__minNodes": 2, "training__steps": 100_000, "training__batchSize": 6, "checkpoints__everySteps": 4}


def test_a_gang_goes_on_with_fewer_pods_and_takes_the_lost_one_back(tmp_path: pathlib.Path):
    """The global batch stays the same, so that losses depend on who was there in their rounding only."""
    wanted, rank0 = runs.spec(tmp_path, **ELASTIC), f"localhost:{servers.free_port()}"
    with runs.pod(wanted, tmp_path / "0", rank0=rank0) as first, runs.pod(wanted, tmp_path / "1", node=1, rank0=rank0) as second:
        with runs.pod(wanted, tmp_path / "2", node=2, rank0=rank0) as lost:
            first.wait_for(trained_by(first, 3))
            lost.kill()
        first.wait_for(trained_by(first, 2))
        with runs.pod(wanted, tmp_path / "2", node=2, rank0=rank0) as again:
            first.wait_for(trained_by(first, 3))
            for pod in (first, second, again):
                pod.popen.terminate()
            assert [pod.end()[0] for pod in (first, second, again)] == [143, 143, 143]
    steps = runs.steps(first.space)
    expected = undisturbed(tmp_path / "alone", steps[-1]["step"])
    assert {entry["worldSize"] for entry in steps} == {2, 3}
    assert all(math.isclose(entry["loss"], expected[entry["step"]], rel_tol=1e-4) for entry in steps)


def trained_by(pod: runs.Pod, processes: int):
    """Whether the newest step was made by so many processes."""

    def look(now: ProgressReport) -> bool:
        return now.stage == "Training" and runs.steps(pod.space)[-1:] != [] and runs.steps(pod.space)[-1]["worldSize"] == processes

    return look


def undisturbed(folder: pathlib.Path, steps: int) -> dict[int, float]:
    """Losses by step of the same run on a single pod."""
    alone = {key: value for key, value in ELASTIC.items() if not key.startswith("compute")}
    with runs.pod(runs.spec(folder, **alone), folder) as pod:
        pod.wait_for(lambda now: now.step >= steps)
        pod.popen.terminate()
        assert pod.end()[0] == 143
        return {entry["step"]: entry["loss"] for entry in runs.steps(pod.space)}
