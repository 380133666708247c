"""`patho`: what it accepts, and the sentences it says when something is wrong."""

import pathlib
import sys

import click.testing
import pytest
import yaml

from patho_api import names
from patho_trainer import cli, estimate
from tests.docs import terminal
from tests.trainer import slides


def make_manifest(tmp_path, **spec):
    body = {
        "apiVersion": names.API_VERSION,
        "kind": names.PRETRAIN,
        "metadata": {"name": "small"},
        "spec": {
            "model": {"architecture": "vit_tiny_patch16_224"},
            "slides": {"source": f"{tmp_path}/slides/", "index": f"{tmp_path}/index"},
            "patches": {"sizePx": 64, "magnifications": [{"mpp": 0.5}]},
            "training": {
                "steps": 2,
                "batchSize": 4,
                "precision": "Float32",
                "prototypes": 32,
                "headHiddenWidth": 32,
                "headBottleneckWidth": 16,
                "crops": {"globalSizePx": 32, "localSizePx": 16, "localCount": 2},
            },
            "checkpoints": {"url": f"{tmp_path}/run", "everySteps": 2},
        }
        | spec,
    }
    path = tmp_path / "pretrain.yaml"
    path.write_text(yaml.safe_dump(body))
    return str(path)


def call(*arguments):
    return click.testing.CliRunner().invoke(cli.main, [str(a) for a in arguments])


def test_a_right_manifest_is_valid_and_its_cost_estimated(tmp_path):
    result = call("validate", make_manifest(tmp_path), "--images-per-second", "4")
    assert result.exit_code == 0, result.output
    assert "ok PathoPretrain small" in result.output
    assert "8 patches in 2 steps of 4" in result.output


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"slide": {}}, ["spec.slide", "no such field"]),
        ({"training": {"batchsize": 8}}, ["spec.training.batchsize", "did you mean spec.training.batchSize?"]),
        ({"batchSize": 8}, ["did you mean spec.training.batchSize?"]),
        ({"model": {"architecture": "vit_smal_patch16_224"}}, ["timm has no model", "did you mean vit_small_patch16_224"]),
        ({"patches": {"sizePx": "large"}}, ["spec.patches.sizePx", "'large'"]),
        ({"checkpoints": {}}, ["spec.checkpoints.url", "required"]),
        ({"method": "MAE"}, ["spec.method", "'MAE'", "'DINO' or 'DINOv2'"]),
        ({"compute": {"nodes": 2, "processesPerNode": 8}}, ["batchSize", "at least one patch"]),
    ],
)
def test_a_wrong_manifest_gets_a_sentence_and_exit_code_40(tmp_path, spec, words):
    result = call("validate", make_manifest(tmp_path, **spec))
    assert result.exit_code == names.EXIT_INVALID_CONFIGURATION
    assert all(word in result.output for word in words), result.output
    assert "Traceback" not in result.output


def test_a_file_that_is_not_yaml_gets_a_sentence(tmp_path):
    path = tmp_path / "broken[b].yaml"  # brackets are no markup
    path.write_text("spec: [1, 2")
    result = call("validate", path)
    assert result.exit_code == names.EXIT_INVALID_CONFIGURATION
    assert "broken[b].yaml is not YAML" in result.output.replace("\n", "")


@pytest.mark.parametrize(("count", "text"), [(4.7e6, "4.7 MB"), (58e9, "58.0 GB"), (1.86e12, "1.9 TB")])
def test_an_amount_has_a_unit_that_shows_it(count, text):
    assert estimate.amount(count) == text


def test_grid_patches_touch_one_tile_and_free_ones_about_four():
    assert estimate.tiles_per_patch(256, "Grid") == (1.0, 1.0)
    tiles, rows = estimate.tiles_per_patch(256, "Free")
    assert tiles == pytest.approx(3.98, abs=0.01)
    assert rows == pytest.approx(2.0, abs=0.01)


@pytest.mark.slow
def test_a_run_on_80_columns_leaves_bars_of_its_stages_and_the_end(tmp_path, monkeypatch):
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "one.svs").symlink_to(slides.CMU)
    patho = str(pathlib.Path(sys.executable).with_name("patho"))
    code, output = terminal.run([patho, "run", make_manifest(tmp_path)], cwd=tmp_path)
    lines = terminal.screen(output)
    assert code == 0, output
    bars = [line for line in lines if "━" in line]
    assert max(map(len, bars)) <= 80
    stages = {line.split()[0] for line in bars}  # the report is read twice a second: of so small a run, any stage may fall between
    assert stages
    assert stages <= {"Loading", "Indexing", "Training", "Saving"}
    assert lines[0].startswith("PathoPretrain small: logs in runs/small/logs")
    assert any(line.startswith("Completed: ") for line in lines)
    assert [left.name for left in (tmp_path / "tmp").glob("patho-*")] == []
