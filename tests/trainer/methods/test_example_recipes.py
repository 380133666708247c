"""The large examples fit their architectures, loss groups and numbers of processes; nothing is allocated."""

import pathlib

import pytest

from patho_api import pretrain, resource
from patho_trainer import config, preflight
from patho_trainer.methods import rounds
from patho_trainer.models import vit

FOLDER = pathlib.Path(__file__).parents[3] / "examples"
LOADED = [found for path in sorted(FOLDER.glob("*.yaml")) for found in resource.load(str(path))]
RUNS = [found for found in LOADED if isinstance(found.spec, pretrain.PretrainSpec)]


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_an_example_fits_its_architecture_and_its_processes(run):
    spec, h = run.spec, config.resolved(run.spec)
    preflight.refuse(spec)
    rounds.check(h, spec.compute.nodes * spec.compute.processes_per_node)
    vit.check_crops(spec.model.architecture, h.crops)
    assert h.warmup_steps < h.steps
    assert h.drop_path < 1
