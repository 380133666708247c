"""The training loop, as one process inside the test."""

import math
import pathlib
import shutil

import numpy as np
import pytest
import timm
import torch

from patho_api import common, report
from patho_trainer import checkpoint, diverged, errors, export, monitors, pretrain, progress
from patho_trainer.data import index, reader, storage, stream
from tests.trainer import runs, servers


def trained(folder: pathlib.Path, **changes) -> list[dict]:
    with runs.process(runs.spec(folder, **changes), folder) as ctx:
        pretrain.train(ctx)
        return runs.steps(ctx.space.folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> pathlib.Path:
    """A run of six steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    trained(folder)
    return folder


def losses(entries: list[dict]) -> list[float]:
    return [entry["loss"] for entry in entries]


def test_a_run_trains_every_step_and_saves(whole):
    assert [entry["step"] for entry in runs.steps(whole / "space")] == [1, 2, 3, 4, 5, 6]
    assert all(map(math.isfinite, losses(runs.steps(whole / "space"))))
    assert [c.step for c in checkpoint.complete(f"{whole}/run", storage.Bucket())] == [2, 4, 6]


def test_the_checkpoint_says_what_the_weights_came_from(whole):
    facts = checkpoint.config(f"{whole}/run/step-00000006", storage.Bucket())
    assert (facts["architecture"], facts["embedDim"], facts["imageSizePx"]) == ("vit_tiny_patch16_224", 192, 64)
    assert facts["indexVersion"] == index.load(f"{whole}/index").version
    assert set(facts["versions"]) >= {"pathoscale", "torch", "timm"}


def test_the_teacher_loads_into_timm(whole):
    weights = checkpoint.home(f"{whole}/run/step-00000006", storage.Bucket()) + "/teacher.safetensors"
    loaded = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=64, checkpoint_path=weights)
    ours, _ = checkpoint.load_backbone(f"{whole}/run", storage.Bucket())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(images), ours.eval()(images))


def exported(whole, folder, verdict: bytes) -> tuple[pathlib.Path, str]:
    """The exported weights and model card of a run beside whose checkpoints `verdict` lies as best.json."""
    shutil.copytree(whole / "run", folder / "run")
    (folder / "run" / "best.json").write_bytes(verdict)
    weights, _, card = export.export(f"{folder}/run", folder / "out", common.Storage())
    return weights, card.read_text()


def test_the_exported_model_says_what_it_is_made_of_and_what_it_scored(whole, tmp_path):
    judged = report.BestCheckpoint(step=6, task="BACH", metric="balanced_accuracy", score=0.8125, time="2024-04-22T00:00:00Z")
    weights, card = exported(whole, tmp_path, judged.model_dump_json(by_alias=True).encode())
    for words in (
        "from random weights; global batch 4, 6 steps, learning rate 7.81e-06",
        "BACH: 0.812 balanced_accuracy",
        str(runs.slides.CMU),
    ):
        assert words in card
    loaded = timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, img_size=64, checkpoint_path=str(weights))
    ours, _ = checkpoint.load_backbone(f"{whole}/run", storage.Bucket())
    images = torch.rand(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded.eval()(images), ours.eval()(images), atol=1e-6, rtol=0)


def test_a_spoilt_verdict_costs_the_exported_model_its_score_only(whole, tmp_path):
    weights, card = exported(whole, tmp_path, b"{")
    assert weights.exists()
    assert f"unknown: {tmp_path}/run/best.json cannot be read" in card


def test_going_on_is_the_same_run_bit_by_bit(whole, tmp_path):
    shutil.copytree(whole / "index", tmp_path / "index")
    shutil.copytree(whole / "run", tmp_path / "run")
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run" / f"step-0000000{step}")
    assert trained(tmp_path) == runs.steps(whole / "space")[2:]


def test_micro_batches_change_nothing_but_rounding(whole, tmp_path):
    found = trained(tmp_path, training__microBatchSize=3, training__steps=6, checkpoints__everySteps=6)
    assert losses(found) == pytest.approx(losses(runs.steps(whole / "space")), rel=1e-4)


def test_a_run_through_an_object_store_is_the_same_run(whole, tmp_path, s3: servers.Store):
    wanted = runs.spec(s3.url.rstrip("/"), slides__source=s3.put(runs.slides.CMU), slides__storage=s3.storage.dump())
    with runs.process(wanted, tmp_path, s3.bucket()) as ctx:
        pretrain.train(ctx)
    assert losses(runs.steps(tmp_path / "space")) == losses(runs.steps(whole / "space"))
    assert checkpoint.latest(wanted.checkpoints.url, s3.bucket()).step == 6


def test_a_finished_run_has_nothing_to_do(whole):
    with runs.process(runs.spec(whole), whole) as ctx:
        before = runs.steps(ctx.space.folder)
        pretrain.train(ctx)
        assert runs.steps(ctx.space.folder) == before
        assert progress.read(ctx.space).checkpoint.step == 6


def test_dinov2_trains_saves_and_goes_on_bit_by_bit(tmp_path):
    changes = {"method": "DINOv2", "training__lossGroupSize": 2, "training__microBatchSize": 2, "training__steps": 4}
    entries = trained(tmp_path, **changes)
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert {"loss", "dino", "ibot", "koleo", "teacher_entropy"} <= set(entries[0])
    shutil.rmtree(f"{tmp_path}/run/step-00000004")
    assert trained(tmp_path, **changes)[4:] == entries[2:]


def test_only_the_newest_checkpoints_stay(tmp_path):
    trained(tmp_path, checkpoints__keep=1, checkpoints__everySteps=1, training__steps=3)
    assert [c.step for c in checkpoint.complete(f"{tmp_path}/run", storage.Bucket())] == [3]


def test_a_stop_saves_the_step_that_is_done(tmp_path):
    with runs.process(runs.spec(tmp_path, checkpoints__everySteps=1000), tmp_path) as ctx:
        ctx.reporter.tell = _stop_at_step(ctx, 3)
        with pytest.raises(errors.Stopped, match="after step 4"):
            pretrain.train(ctx)
    assert checkpoint.latest(f"{tmp_path}/run", storage.Bucket()).step == 4


def test_a_stop_before_training_ends_at_once(tmp_path):
    with runs.process(runs.spec(tmp_path), tmp_path) as ctx:
        ctx.stop.set()
        with pytest.raises(errors.Stopped, match="before training began"):
            pretrain.train(ctx)


def _stop_at_step(ctx, step):
    tell = ctx.reporter.tell

    def listen(**facts):
        tell(**facts)
        if facts.get("step") == step:
            ctx.stop.set()

    return listen


def test_a_loss_that_is_not_finite_stops_before_the_optimizer_moves(tmp_path):
    with runs.process(runs.spec(tmp_path, training__learningRate=1e30, training__warmupSteps=0), tmp_path) as ctx:
        with pytest.raises(errors.Diverged, match=r"training\.learningRate"):
            pretrain.train(ctx)
        done = len(runs.steps(ctx.space.folder))
        saved = checkpoint.latest(ctx.place.root, ctx.place.bucket)
    assert saved is None or saved.step <= done < 6


def test_the_patches_of_such_a_step_are_kept(tmp_path):
    with runs.process(runs.spec(tmp_path, training__learningRate=1e30, training__warmupSteps=0), tmp_path) as ctx:
        with pytest.raises(errors.Diverged):
            pretrain.train(ctx)
        url = diverged.url(ctx, len(runs.steps(ctx.space.folder)))
    with np.load(url) as evidence:
        assert evidence["images"].shape == (4, 64, 64, 3)
        assert '"xy_level0"' in str(evidence["requests"])


def test_a_folder_without_slides_is_said_so(tmp_path):
    (tmp_path / "empty").mkdir()
    wanted = runs.spec(tmp_path, slides__source=f"{tmp_path}/empty/")
    with runs.process(wanted, tmp_path) as ctx, pytest.raises(errors.DataNotFound, match="empty"):
        pretrain.train(ctx)


def test_an_unknown_architecture_is_said_before_anything_is_indexed(tmp_path):
    wanted, sentence = runs.spec(tmp_path, model__architecture="vit_smal_patch16_224"), "did you mean vit_small_patch16_224"
    with runs.process(wanted, tmp_path) as ctx, pytest.raises(errors.InvalidConfiguration, match=sentence):
        pretrain.train(ctx)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize("change", [{"training__prototypes": 128}, {"training__crops__globalSizePx": 48}])
def test_checkpoints_of_another_model_are_refused(whole, change):
    wanted, sentence = runs.spec(whole, **change), r"set spec\.checkpoints\.url to a new folder"
    with runs.process(wanted, whole) as ctx, pytest.raises(errors.InvalidConfiguration, match=sentence):
        pretrain.train(ctx)


def test_monitors_measure_the_same_patches_each_time(tmp_path, monkeypatch):
    seen = []
    read = stream.batches
    monkeypatch.setattr(stream, "batches", lambda *a, **k: (seen.append(k["seed"]), read(*a, **k))[1])
    monkeypatch.setattr("patho_trainer.monitors.PROBE_PATCHES", 8)
    with runs.process(runs.spec(tmp_path, training__monitorEverySteps=1, training__steps=2), tmp_path) as ctx:
        pretrain.train(ctx)
        assert ctx.metrics.rankme._value.get() > 1
    assert len(seen) == 2  # the run's, and once the probe's


def test_monitors_take_no_more_images_at_once_than_training_does(tmp_path, monkeypatch):
    seen = []
    features = monitors.features
    monkeypatch.setattr(monitors, "features", lambda f, batches, *a: (seen.extend(map(len, batches)), features(f, batches, *a))[1])
    monkeypatch.setattr(monitors, "PROBE_PATCHES", 8)
    changes = {"training__monitorEverySteps": 1, "training__steps": 1, "training__microBatchSize": 2}
    with runs.process(runs.spec(tmp_path, **changes), tmp_path) as ctx:
        pretrain.train(ctx)
    assert seen == [2, 2, 2, 2]


def test_slides_are_read_with_as_many_threads_as_the_pod_may_use_cores_for_the_probe_as_well(tmp_path, monkeypatch):
    seen = []
    made = reader.Reader
    monkeypatch.setattr(reader, "Reader", lambda *a, **k: (seen.append(k["threads"]), made(*a, **k))[1])
    monkeypatch.setattr(monitors, "PROBE_PATCHES", 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(64))
    changes = {"training__steps": 1, "training__monitorEverySteps": 1}
    compute = {"processesPerNode": 2, "resources": {"limits": {"cpu": "6"}}}
    with runs.process(runs.spec(tmp_path, compute=compute, **changes), tmp_path) as ctx:
        pretrain.train(ctx)
    assert seen == [3, 3]


@pytest.mark.parametrize(("peaks", "known"), [({}, False), ({"cpu": (1e12, 1e12)}, True)])
def test_mfu_is_told_only_where_the_peak_of_the_device_is_known(tmp_path, monkeypatch, capsys, peaks, known):
    monkeypatch.setattr("patho_trainer.mfu.PEAK_FLOPS", peaks)
    with runs.process(runs.spec(tmp_path, training__steps=1), tmp_path) as ctx:
        pretrain.train(ctx)
        assert ("mfu" in vars(ctx.metrics)) is known
        assert not known or 0 < ctx.metrics.mfu._value.get() < 1
    assert ("no patho_train_mfu_ratio: the peak of 'cpu' is not in the table" in capsys.readouterr().out) is not known
