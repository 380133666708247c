import pathlib

import pytest

from patho_trainer.data import storage
from tests.trainer.evaluation import miniatures


@pytest.fixture
def bucket() -> storage.Bucket:
    return storage.Bucket()


@pytest.fixture
def root(bucket: storage.Bucket, tmp_path: pathlib.Path) -> str:
    """A folder with the weights of the tiny ViT."""
    miniatures.write_weights(bucket, f"{tmp_path}/vit.safetensors")
    return str(tmp_path)
