"""The engine alone: the example of somebody else's training loop runs, and goes on where it stopped."""

import pathlib
import subprocess
import sys

import pytest
import yaml

from tests.trainer.data import sets

EXAMPLE = pathlib.Path(__file__).parents[3] / "examples" / "own_loop.py"


def run(folder, steps):
    command = [sys.executable, EXAMPLE, "run.yaml", str(steps)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return [line.split(maxsplit=2) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_the_example_of_an_own_loop_goes_on_with_the_next_step(tmp_path):
    manifest = sets.write_slides(tmp_path / "slides", 3)
    spec = {
        "slides": {"source": str(manifest), "index": str(tmp_path / "index")},
        "patches": {"sizePx": 96, "magnifications": [{"mpp": 0.5}]},
        "training": {"batchSize": 4, "crops": {"globalSizePx": 64, "localSizePx": 32}},
        "checkpoints": {"url": str(tmp_path / "run")},
    }
    body = {"apiVersion": "pathoscale.dev/v1alpha1", "kind": "PathoPretrain", "metadata": {"name": "own"}, "spec": spec}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(body))
    first, rest = run(tmp_path, 2), run(tmp_path, 3)
    (tmp_path / "own-loop.json").unlink()
    assert [int(step) for step, *_ in first + rest] == [0, 1, 2]
    assert [request for *_, request in run(tmp_path, 3)] == [request for *_, request in first + rest]
