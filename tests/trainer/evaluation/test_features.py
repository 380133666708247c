"""Features that are kept in parts, and used where they lie."""

import io

import numpy as np
import pytest
import torch

from patho_trainer.data import storage
from patho_trainer.evaluation import features, segmentation


@pytest.fixture
def parts() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [{"features": random.random((n, 3, 2), np.float32), "units": np.arange(n)} for n in (4, 1, 3)]


@pytest.fixture
def where(tmp_path, parts) -> features.Place:
    found = features.Place(storage.Bucket(), str(tmp_path), (0, 1, 2, 3))
    for url, part in zip(found.parts, parts, strict=True):
        np.savez(data := io.BytesIO(), **part)
        found.bucket.write(url, data.getvalue())
    return found


def test_features_may_be_larger_than_memory(where, parts):
    loaded = features.load(where)
    for name, array in loaded.items():
        assert isinstance(array, np.memmap)
        np.testing.assert_array_equal(array, np.concatenate([part[name] for part in parts]))


def test_parts_of_a_set_are_not_copied_but_batch_by_batch():
    whole = segmentation.Masked(*(torch.arange(8.0).view(8, 1, 1, 1).expand(8, n, 2, 2) for n in (5, 3)), torch.zeros(8, 2, 2))
    part = whole.part(torch.tensor([6, 1, 3])).part(torch.tensor([0, 2]))
    assert part.tokens_NDGG.data_ptr() == whole.tokens_NDGG.data_ptr()
    assert len(part) == 2
    assert [batch.tokens_NDGG[:, 0, 0, 0].tolist() for batch in part.batches(1)] == [[6.0], [3.0]]
    assert part.take(torch.tensor([1])).images_N3SS[0, 0, 0, 0] == 3
