"""Frozen features of a data set: read, decoded and embedded in batches once, then kept in the bucket.

The key of the cache is made of the weights, the preprocessing and the version of every image, so that a change of any of them, and
nothing else, makes new features.
"""

# N samples, B images at once, F width of the features

import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures

import numpy as np
import torch

from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation import encoder as encoders
from patho_trainer.evaluation import images
from patho_trainer.evaluation.datasets.dataset import Dataset, Sample

READERS = 8  # threads that fetch and decode: both release Python's lock
PREPROCESSING = "shorter edge resized (bilinear, antialiased), centre cropped"


def compute(
    dataset: Dataset,
    encoder: encoders.Encoder,
    *,
    image_size_px: int,
    batch_size: int,
    bucket: storage.Bucket,
    cache_url: str,
    device: torch.device,
    progress: Callable[[int], None],
) -> torch.Tensor:
    """float32 features (N, F) of all samples, on `device`, out of `<cache_url>/<key>.npz` or newly computed and kept there.

    `progress` gets the number of images done. Raises DataNotFound for an unreadable image, Diverged for features that are not finite.
    """
    url = f"{cache_url.rstrip('/')}/{key(dataset, encoder, image_size_px)}.npz"
    try:
        features_NF = torch.from_numpy(np.load(io.BytesIO(bucket.read(url)))["features"]).to(device)
        progress(len(features_NF))
    except storage.NotFound:
        features_NF = _embed(dataset.samples, encoder, image_size_px, batch_size, bucket, device, progress)
        _check_finite(features_NF, encoder, dataset)
        bucket.write(url, _npz(features_NF, dataset))
    return features_NF


def key(dataset: Dataset, encoder: encoders.Encoder, image_size_px: int) -> str:
    """Name of the cached features; labels and splits are no part of it."""
    preprocessing = [PREPROCESSING, image_size_px, encoder.normalization.dump(), encoder.pooling]
    parts = [encoder.architecture, encoder.digest, preprocessing, version(dataset)]
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()


def version(dataset: Dataset) -> str:
    """Digest of the addresses and entity tags of all images, in their order."""
    return hashlib.blake2b(json.dumps([(s.url, s.etag) for s in dataset.samples]).encode(), digest_size=16).hexdigest()


def _embed(
    samples: Sequence[Sample],
    encoder: encoders.Encoder,
    image_size_px: int,
    batch_size: int,
    bucket: storage.Bucket,
    device: torch.device,
    progress: Callable[[int], None],
) -> torch.Tensor:
    parts: list[torch.Tensor] = []
    for images_B3SS in _batches(samples, image_size_px, batch_size, bucket):
        parts.append(encoder(images_B3SS.to(device)))
        progress(sum(map(len, parts)))
    return torch.cat(parts)


def _batches(samples: Sequence[Sample], image_size_px: int, batch_size: int, bucket: storage.Bucket) -> Iterator[torch.Tensor]:
    """uint8 batches (B, 3, S, S); the next one is read while the caller embeds this one."""

    def image(sample: Sample) -> torch.Tensor:
        return images.resize_and_crop(images.decode(bucket.read(sample.url), sample.url), image_size_px)

    with futures.ThreadPoolExecutor(READERS) as pool:
        ahead: list[futures.Future[torch.Tensor]] = []
        for start in range(0, len(samples), batch_size):
            current, ahead = ahead, [pool.submit(image, s) for s in samples[start : start + batch_size]]
            if current:
                yield torch.stack([f.result() for f in current])
        yield torch.stack([f.result() for f in ahead])


def _check_finite(features_NF: torch.Tensor, encoder: encoders.Encoder, dataset: Dataset) -> None:
    if not features_NF.isfinite().all():
        raise errors.Diverged(f"task {dataset.task}: features of {encoder.source} are not finite: evaluate an earlier checkpoint")


def _npz(features_NF: torch.Tensor, dataset: Dataset) -> bytes:
    data = io.BytesIO()
    np.savez(data, features=features_NF.cpu().numpy(), urls=np.array([s.url for s in dataset.samples]))
    return data.getvalue()
