"""A planted credential is in nothing that a run says, serves or writes."""

import pathlib

import pytest

from patho_api import launch, names, resource
from tests.trainer import runs, servers
from tests.trainer.evaluation import miniatures

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
CANARY = "canary-7f3a91d2c4"


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An S3 bucket that is opened with the canary as its secret key."""
    monkeypatch.setitem(servers.KEYS, "secret_access_key", CANARY)
    with servers.s3_server() as endpoint:
        yield servers.s3_bucket(endpoint, tmp_path / "secret")


def spec_on(store: servers.Store, source: str):
    changes = {"slides__source": source, "slides__storage": store.storage.dump(), "checkpoints__storage": store.storage.dump()}
    return runs.spec(store.url.rstrip("/"), training__steps=2, **changes)


def found_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Files below a folder that contain the canary."""
    return [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


@pytest.mark.parametrize("source", ["CMU-1-Small-Region.svs", "missing.svs"], ids=["a run that ends well", "a run that fails"])
def test_a_credential_stays_in_its_secret(store, tmp_path, monkeypatch, source):
    monkeypatch.setenv(names.ENV_SECRET_DIR, store.secret_dir)
    monkeypatch.setenv(names.ENV_CHECKPOINT_SECRET_DIR, store.secret_dir)
    store.put(runs.slides.CMU)
    wanted = spec_on(store, store.url + source)
    assert_secret(store, wanted, tmp_path, code=names.EXIT_DONE if source in runs.slides.CMU.name else names.EXIT_NO_DATA)


@pytest.mark.parametrize("data", ["labelled", "missing"], ids=["an evaluation that ends well", "an evaluation that fails"])
def test_a_credential_of_an_evaluation_stays_in_its_secret(store, tmp_path, monkeypatch, data):
    monkeypatch.setenv(names.ENV_SECRET_DIR, store.secret_dir)
    miniatures.write_weights(store.bucket(), f"{store.url}vit.safetensors")
    miniatures.write_labelled(store.bucket(), f"{store.url}labelled")
    wanted = miniatures.spec(store.url.rstrip("/"), [miniatures.task(f"{store.url}{data}")], storage=store.storage.dump())
    assert_secret(store, wanted, tmp_path, code=names.EXIT_DONE if data == "labelled" else names.EXIT_NO_DATA)


def assert_secret(store: servers.Store, wanted, folder: pathlib.Path, code: int) -> None:
    """A pod ends with this code, and neither its answers nor its files nor the bucket hold the canary."""
    with runs.pod(wanted, folder / "pod") as pod:
        served = pod.get("/metrics") + pod.get("/healthz")
        ended, _ = pod.end()
    assert ended == code
    assert CANARY.encode() not in served
    assert found_in(folder / "secret")  # it would be found
    assert found_in(folder / "pod") == []
    bucket = store.bucket()
    assert [o.url for o in bucket.list(store.url) if CANARY.encode() in bucket.read(o.url)] == []


def test_a_description_of_a_run_names_its_secret_and_no_more(store):
    found = resource.Resource(names.PRETRAIN, "canary", spec_on(store, store.url))
    assert CANARY not in str(launch.appdef(found))
    assert "s3-key" in str(launch.appdef(found))
