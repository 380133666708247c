"""Every manifest in examples/ is one that this release runs."""

import json
import pathlib

import pytest

from patho_api import launch, names, resource, support

EXAMPLES = sorted((pathlib.Path(__file__).parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_supported_in_full(path):
    for found in resource.load(str(path)):
        assert support.refusals(found.spec) == []
        assert support.notes(found.spec) == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_becomes_processes_that_know_their_specification(path):
    for found in resource.load(str(path)):
        role = launch.appdef(found, image="trainer:1").roles[0]
        assert role.num_replicas == found.spec.compute.nodes
        assert json.loads(role.env[names.ENV_SPEC]) == found.spec.dump()


def test_the_evaluation_names_the_run_of_the_main_example():
    run, evaluation = (resource.load(str(EXAMPLES[0].parent / name))[0] for name in ("pretrain.yaml", "eval.yaml"))
    assert evaluation.spec.model.pretrain.name == run.name


def test_the_examples_have_names_of_their_own():
    found = [(r.kind, r.name) for path in EXAMPLES for r in resource.load(str(path))]
    assert len(set(found)) == len(found)


def test_midnights_stages_differ_in_resolution_rate_and_start_only():
    first, second = (resource.load(str(EXAMPLES[0].parent / name))[0].spec for name in ("midnight-vitg14.yaml", "midnight-vitg14-392.yaml"))
    assert (first.training.crops.global_size_px, second.training.crops.global_size_px) == (224, 392)
    same = ("loss_group_size", "centering", "prototypes", "kde_weight", "augmentation", "normalization", "drop_path", "layer_decay")
    assert [getattr(first.training, name) for name in same] == [getattr(second.training, name) for name in same]
    assert first.training.augmentation.hed
