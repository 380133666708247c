"""Checkpoints: complete or absent, fenced, kept few."""

import json
import pathlib

import pytest
import torch
from torch import distributed as dist

from patho_api import report
from patho_trainer import best, checkpoint, distributed, errors, fencing, saving
from patho_trainer.data import storage

ALONE = distributed.World(rank=0, size=1, local_rank=0, node_rank=0, device=torch.device("cpu"))
FACTS = {"architecture": "vit_tiny_patch16_224"}


@pytest.fixture(scope="module", autouse=True)
def group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def bucket(store):
    return store.bucket()


@pytest.fixture
def root(store):
    return f"{store.url}run"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def place(root: str, bucket: storage.Bucket, attempt: int = 1) -> checkpoint.Place:
    return checkpoint.Place(root, bucket, fencing.claim(root, attempt, bucket), pathlib.Path("scratch"))


def save(where: checkpoint.Place, step: int, value: float = 0.0):
    return saving.write(where, ALONE, step, {"method": {"w": torch.full((3,), value)}}, FACTS, keep=10)


def test_a_saved_state_comes_back_bit_by_bit(root, bucket):
    where = place(root, bucket)
    weights = torch.randn(5, 7, dtype=torch.float64)
    found = saving.write(where, ALONE, 20, {"method": {"w": weights}, "optimizer": {"w": {"step": torch.tensor(20.0)}}}, FACTS, keep=10)
    state = {"method": {"w": torch.zeros(5, 7, dtype=torch.float64)}, "optimizer": {"w": {"step": torch.zeros(())}}}
    checkpoint.load(where, ALONE, found.url, state)
    assert torch.equal(state["method"]["w"], weights)
    assert float(state["optimizer"]["w"]["step"]) == 20


def test_the_newest_complete_checkpoint_is_found(root, bucket):
    where = place(root, bucket)
    save(where, 10)
    save(where, 20)
    found = checkpoint.latest(root, bucket)
    assert (found.step, found.url) == (20, f"{root}/step-00000020")
    assert found.time.endswith("Z")


def test_a_checkpoint_without_its_marker_does_not_exist(root, bucket):
    where = place(root, bucket)
    save(where, 10)
    save(where, 20)
    bucket.delete([f"{root}/step-00000020/COMPLETE.json"])
    assert checkpoint.latest(root, bucket).step == 10


def test_an_empty_folder_has_no_checkpoint(root, bucket):
    assert checkpoint.latest(root, bucket) is None


def test_what_is_complete_is_not_written_again(root, bucket):
    where = place(root, bucket)
    save(where, 10, value=1.0)
    marker = bucket.read(f"{root}/step-00000010/COMPLETE.json")
    save(where, 10, value=2.0)
    assert bucket.read(f"{root}/step-00000010/COMPLETE.json") == marker


def test_the_newest_checkpoints_are_kept(root, bucket):
    where = place(root, bucket)
    for step in (10, 20, 30):
        save(where, step)
    checkpoint.prune(where, 2)
    assert [c.step for c in checkpoint.complete(root, bucket)] == [20, 30]
    assert not [o.url for o in bucket.list(root + "/") if "step-00000010" in o.url]


def judged(step: int, score: float, task: str = "BACH") -> report.BestCheckpoint:
    return report.BestCheckpoint(step=step, task=task, metric="balanced_accuracy", score=score, time="2024-04-22T00:00:00Z")


def test_the_best_checkpoint_is_kept_too(root, bucket):
    where = place(root, bucket)
    for step in (10, 20, 30, 40):
        save(where, step)
    assert best.offer(root, judged(20, 0.8), bucket)
    checkpoint.prune(where, 1)
    assert [c.step for c in checkpoint.complete(root, bucket)] == [20, 40]


def test_only_a_higher_score_takes_over(root, bucket):
    offers = [judged(10, 0.7), judged(20, 0.8), judged(30, 0.8), judged(40, 0.6)]
    assert [best.offer(root, each, bucket) for each in offers] == [True, True, False, False]
    assert best.found(root, bucket).step == 20


def test_where_the_best_cannot_be_known_nothing_is_deleted(root, bucket, capsys):
    where = place(root, bucket)
    for step in (10, 20):
        save(where, step)
    bucket.write(f"{root}/best.json", b"{")
    assert checkpoint.prune(where, 1) == []
    assert "delete that file" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("objects", "keep", "doomed"),
    [
        (["r/step-00000010/COMPLETE.json"], 1, []),
        (["r/step-00000010/x"], 1, []),  # a first save in progress
        (["r/step-00000010/COMPLETE.json", "r/step-00000020/x"], 1, []),  # the next save in progress
        (["r/step-00000010/x", "r/step-00000020/COMPLETE.json"], 1, ["r/step-00000010/x"]),  # a save that was cut off
        (["r/step-00000010/COMPLETE.json", "r/step-00000020/COMPLETE.json"], 1, ["r/step-00000010/COMPLETE.json"]),
        (["r/step-00000010/COMPLETE.json", "r/step-00000020/COMPLETE.json"], 2, []),
        (["r/step-00000100/COMPLETE.json", "r/other/step-00005000/COMPLETE.json"], 1, []),  # another run in a folder below
        (["r/writers/000001-000001.json", "r/verdict-1.json", "r/step-00000020/COMPLETE.json"], 1, []),
    ],
)
def test_pruning_spares_the_newest_and_whatever_is_later(objects, keep, doomed):
    found = checkpoint.superfluous("s3://b/r", [f"s3://b/{name}" for name in objects], keep)
    assert found == [f"s3://b/{name}" for name in doomed]


def test_a_newer_attempt_ends_the_older_ones_writing(root, bucket):
    old = place(root, bucket, attempt=1)
    save(old, 10)
    place(root, bucket, attempt=2)
    with pytest.raises(fencing.Superseded, match="attempt 2"):
        save(old, 20)
    assert checkpoint.latest(root, bucket).step == 10


def test_an_older_attempt_cannot_claim_after_a_newer_one(root, bucket):
    fencing.claim(root, 2, bucket)
    with pytest.raises(fencing.Superseded):
        fencing.claim(root, 1, bucket)


def test_workers_that_start_again_take_over_from_themselves(root, bucket):
    first = fencing.claim(root, 1, bucket)
    again = fencing.claim(root, 1, bucket)
    assert again > first
    with pytest.raises(fencing.Superseded):
        fencing.check(root, first, bucket)


def test_a_writer_that_lost_the_race_for_the_marker_ends(root, bucket, monkeypatch):
    old = place(root, bucket)
    new = place(root, bucket)
    save(new, 10)
    monkeypatch.setattr(saving, "_may_write", lambda *_: True)  # it looked before the newer one came
    monkeypatch.setattr(fencing, "check", lambda *_: None)
    with pytest.raises(fencing.Superseded):
        save(old, 10)
    assert json.loads(bucket.read(f"{root}/step-00000010/COMPLETE.json"))["state"] == f"state-{new.claim.name}"


class Overtaken(storage.Bucket):
    """While it uploads weights, a newer attempt claims the folder."""

    def upload(self, path, url):
        super().upload(path, url)
        if url.endswith(checkpoint.TEACHER):
            fencing.claim(url.partition("/step-")[0], 9, storage.Bucket())


def test_a_writer_that_is_overtaken_in_a_save_completes_nothing(tmp_path):
    where = place(f"{tmp_path}/run", Overtaken())
    with pytest.raises(fencing.Superseded, match="attempt 9"):
        save(where, 10)
    assert checkpoint.latest(where.root, where.bucket) is None


def test_an_older_writer_cannot_change_what_a_newer_one_completed(root, bucket):
    old, new = place(root, bucket), place(root, bucket)
    found = save(new, 10, value=1.0)
    for name in (checkpoint.TEACHER, checkpoint.CONFIG):
        bucket.write(f"{found.url}/{checkpoint.state_name(old)}/{name}", b"late")
    assert checkpoint.config(found.url, bucket) == FACTS


def test_a_save_goes_on_beside_training(root, bucket):
    where = place(root, bucket)
    saver = saving.Saver(where, ALONE, keep=3)
    state = {"method": {"w": torch.ones(3)}}
    saver.begin(10, state, FACTS)
    state["method"]["w"].zero_()  # the next step
    found = saver.collect()
    checkpoint.load(where, ALONE, found.url, state)
    assert state["method"]["w"].tolist() == [1, 1, 1]
    saver.close()


def test_what_goes_wrong_beside_training_is_raised_when_it_is_collected(root, bucket):
    saver = saving.Saver(place(root, bucket), ALONE, keep=3)
    place(root, bucket, attempt=2)
    saver.begin(10, {"method": {"w": torch.ones(3)}}, FACTS)
    with pytest.raises(fencing.Superseded, match="attempt 2"):
        saver.collect()
    saver.close()


def test_a_disk_that_is_full_is_a_failed_save(tmp_path, bucket, root):
    (tmp_path / "file").write_text("no folder can be made below it")
    where = checkpoint.Place(root, bucket, fencing.claim(root, 1, bucket), tmp_path / "file")
    with pytest.raises(saving.SaveFailed, match="could not be written"):
        save(where, 10)


def test_a_truncated_file_is_noticed(root, bucket):
    where = place(root, bucket)
    found = save(where, 10)
    shard = next(o.url for o in bucket.list(root + "/") if o.url.endswith(".distcp"))
    bucket.write(shard, b"short")
    with pytest.raises(errors.DataNotFound, match="was changed"):
        checkpoint.load(where, ALONE, found.url, {"method": {"w": torch.zeros(3)}})


def test_a_checkpoint_that_does_not_fit_is_told_in_a_sentence(root, bucket):
    where = place(root, bucket)
    found = save(where, 10)
    with pytest.raises(errors.PathoError, match=r"step-00000010 could not be loaded: rank 0: .*[Ss]ize mismatch"):
        checkpoint.load(where, ALONE, found.url, {"method": {"w": torch.zeros(4)}})


def test_parameters_without_a_gradient_so_far_have_zero_moments():
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    model.bias.grad = None
    optimizer.step()
    state = checkpoint.optimizer_state(model, optimizer)
    assert float(state["weight"]["step"]) == 1
    assert float(state["bias"]["step"]) == 0


def test_a_file_of_weights_needs_its_architecture(root, bucket):
    with pytest.raises(errors.InvalidConfiguration, match=r"set model\.architecture"):
        checkpoint.load_backbone("gs://b/weights.safetensors", bucket)


def test_a_run_without_a_checkpoint_has_no_backbone(root, bucket):
    with pytest.raises(errors.DataNotFound, match=r"no COMPLETE\.json"):
        checkpoint.load_backbone(root, bucket)
