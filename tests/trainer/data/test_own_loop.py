"""The engine alone: the example of somebody else's training loop runs, and goes on where it stopped."""

import pathlib
import subprocess
import sys

import pytest
import yaml

from tests.aside import place
from tests.trainer.data import sets

EXAMPLE = pathlib.Path(__file__).parents[3] / "examples" / "own_loop.py"


def run(folder, steps):
    command = [sys.executable, EXAMPLE, "run.yaml", str(steps)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return [line.split(maxsplit=2) for line in done.stdout.splitlines()]


def write_run(folder):
    """Three slides and the specification of a run on them."""
    manifest = sets.write_slides(folder / "slides", 3)
    spec = {
        "slides": {"source": str(manifest), "index": str(folder / "index")},
        "patches": {"sizePx": 96, "magnifications": [{"mpp": 0.5}]},
        "training": {"batchSize": 4, "crops": {"globalSizePx": 64, "localSizePx": 32}},
        "checkpoints": {"url": str(folder / "run")},
    }
    body = {"apiVersion": "pathoscale.dev/v1alpha1", "kind": "PathoPretrain", "metadata": {"name": "own"}, "spec": spec}
    (folder / "run.yaml").write_text(yaml.safe_dump(body))


@pytest.mark.slow
def test_the_example_of_an_own_loop_goes_on_with_the_next_step(tmp_path):
    write_run(tmp_path)
    first, rest = run(tmp_path, 2), run(tmp_path, 3)
    (tmp_path / "own-loop.json").unlink()
    assert [int(step) for step, *_ in first + rest] == [0, 1, 2]
    assert [request for *_, request in run(tmp_path, 3)] == [request for *_, request in first + rest]


LOOP = """
import hashlib, json, sys, yaml
from torchdata.stateful_dataloader import StatefulDataLoader
from patho_api import resource
from patho_trainer.data import index, loader

def begun(state=None):
    spec = resource.load("run.yaml")[0].spec
    batches = StatefulDataLoader(loader.Patches(index.load(spec.slides.index), spec, seed=0), batch_size=None)
    if state:
        batches.load_state_dict(state)
    return batches

def told(batch):
    return batch.step, hashlib.sha256(batch.images.numpy()).hexdigest()

first = begun()
found = iter(first)
print(*told(next(found)), *told(next(found)))
kept = json.dumps(first.state_dict())
print(*told(next(found)))
print(*told(next(iter(begun(json.loads(kept))))))
"""


@pytest.mark.slow
def test_torchdatas_stateful_loader_goes_on_with_the_very_next_batch(tmp_path):
    if not place.folder(place.OTHERS).exists():
        pytest.skip(f"torchdata is not installed: {place.HINT}")
    write_run(tmp_path)
    run(tmp_path, 1)  # builds the index
    paths = filter(None, sys.path)
    done = subprocess.run(
        [sys.executable, "-c", LOOP],
        cwd=tmp_path,
        env=place.environment(place.OTHERS, *paths),
        capture_output=True,
        text=True,
        timeout=200,  # its iterators are still open when it ends
    )
    assert done.returncode == 0, done.stderr
    _, third, again = done.stdout.splitlines()
    assert third.startswith("2 ")
    assert again == third
