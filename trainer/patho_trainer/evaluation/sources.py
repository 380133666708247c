"""What features are computed of: images with a label, patches of images with masks, patches of slides. All read what they need, as they
go; none keeps pixels that a later part needs again."""

# B images at once, S edge of the model's images, F width of the features, D width of a token, G edge of the grid of tokens

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from patho_api import common, pretrain
from patho_trainer import cores, errors
from patho_trainer.data import storage, stream
from patho_trainer.evaluation import encoder as encoders
from patho_trainer.evaluation import features, hdf5, images
from patho_trainer.evaluation.datasets.dataset import Dataset, LabelledSlides, MaskedImage, MaskedImages, Sample

READERS = 8  # threads that fetch and decode: both release Python's lock
RESIZED = "shorter edge resized (bilinear, antialiased), centre cropped"
TILED = "patches by a grid, {} px each, then resized as eva does (images bilinear, masks nearest)"
SLIDE_MPP = 0.5
STREAM_BATCH = 64  # patches a step; the stream depends on it, so it is no setting
PATCHES_A_SLIDE = 64  # about: enough that a slide's mean is no accident, few enough that 10,000 slides take hours and not days
Pixels = NDArray[np.uint8]


@dataclasses.dataclass(frozen=True)
class Images:
    """One feature vector for each image."""

    data: Dataset
    size_px: int
    batch_size: int
    bucket: storage.Bucket
    images_a_unit: int = 1

    @property
    def task(self) -> str:
        return self.data.task

    @property
    def units(self) -> int:
        return len(self.data.samples)

    @property
    def preprocessing(self) -> str:
        return f"{RESIZED} to {self.size_px} px"

    @property
    def version(self) -> str:
        """Digest of the addresses and entity tags of all images, in their order."""
        return digest([(s.url, s.etag) for s in self.data.samples])

    def facts(self) -> Any:
        return [RESIZED, self.size_px, self.version]

    def embed(self, first: int, stop: int, encoder: encoders.Encoder, device: torch.device) -> features.Arrays:
        """`features` float32 (N, F)."""
        batches = _ahead(batched(self.data.samples[first:stop], self.batch_size), self._read)
        return {features.FEATURES: np.concatenate([encoder(torch.stack(batch).to(device)).cpu().numpy() for batch in batches])}

    def _read(self, samples: Sequence[Sample], pool: futures.Executor) -> list[futures.Future[torch.Tensor]]:
        if samples[0].row >= 0:
            return [pool.submit(self._row, sample, rows) for sample, rows in self._rows(samples, pool)]
        return [pool.submit(lambda s: self._fit(images.decode(self.bucket.read(s.url), s.url)), sample) for sample in samples]

    def _rows(self, samples: Sequence[Sample], pool: futures.Executor) -> Iterator[tuple[int, "futures.Future[Pixels]"]]:
        """Each image of an HDF5 file, and the read that it is part of: one for each file and batch."""
        for url in dict.fromkeys(s.url for s in samples):
            wanted = [s.row for s in samples if s.url == url]
            read = pool.submit(self._slab, url, wanted[0], wanted[-1] + 1)
            yield from ((row - wanted[0], read) for row in wanted)

    def _slab(self, url: str, first: int, stop: int) -> Pixels:
        return hdf5.rows(self.bucket.head(url), "x", first, stop, self.bucket)

    def _row(self, row: int, slab: "futures.Future[Pixels]") -> torch.Tensor:
        return self._fit(torch.from_numpy(slab.result()[row]).permute(2, 0, 1))

    def _fit(self, image_CHW: torch.Tensor) -> torch.Tensor:
        return images.resize_and_crop(image_CHW, self.size_px)


@dataclasses.dataclass(frozen=True)
class Tiles:
    """Maps of patch tokens, with the pixels and the classes of the patch."""

    data: MaskedImages
    size_px: int
    batch_size: int
    bucket: storage.Bucket
    images_a_unit: int = 1

    @property
    def task(self) -> str:
        return self.data.task

    @property
    def units(self) -> int:
        return len(self.data.samples)

    @property
    def patch_px(self) -> int:
        return self.data.patch_px or self.size_px

    @property
    def preprocessing(self) -> str:
        return f"{TILED.format(self.patch_px)} to {self.size_px} px"

    @property
    def version(self) -> str:
        """Digest of the addresses and entity tags of all images and masks, in their order."""
        return digest([(s.image.url, s.image.etag, s.mask.url, s.mask.etag) for s in self.data.samples])

    def facts(self) -> Any:
        return [TILED, self.patch_px, self.size_px, self.version]

    def embed(self, first: int, stop: int, encoder: encoders.Encoder, device: torch.device) -> features.Arrays:
        """`features` float32 (N, D, G, G), `images` uint8 (N, 3, S, S), `masks` uint8 (N, S, S), `units` (N,): patches of all images."""
        parts = []
        for (read,) in _ahead([[number] for number in range(first, stop)], self._read):
            images_N3SS, masks_NSS, number = read
            maps = [encoder.token_map(batch.to(device)).cpu().numpy() for batch in torch.split(images_N3SS, self.batch_size)]
            units = np.full(len(masks_NSS), number)
            parts.append({features.FEATURES: np.concatenate(maps), "images": images_N3SS.numpy(), "masks": masks_NSS, "units": units})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _read(self, numbers: Sequence[int], pool: futures.Executor) -> list["futures.Future[tuple[torch.Tensor, Pixels, int]]"]:
        return [pool.submit(self._tiles, number) for number in numbers]

    def _tiles(self, number: int) -> tuple[torch.Tensor, Pixels, int]:
        sample: MaskedImage = self.data.samples[number]
        image_CHW = images.decode(self.bucket.read(sample.image.url), sample.image.url)
        mask_HW = self.data.decode_mask(self.bucket.read(sample.mask.url), sample.mask.url)
        _check_shapes(sample, tuple(image_CHW.shape[1:]), mask_HW.shape, self.patch_px)
        corners = grid(image_CHW.shape[2], image_CHW.shape[1], self.patch_px)
        crops = [(slice(y, y + self.patch_px), slice(x, x + self.patch_px)) for x, y in corners]
        return (
            torch.stack([images.resize_and_crop(image_CHW[:, rows, columns], self.size_px) for rows, columns in crops]),
            np.stack([images.resize_mask(mask_HW[crop], self.size_px) for crop in crops]),
            number,
        )


@dataclasses.dataclass(frozen=True)
class Patches:
    """One feature vector for each patch of a stream over slides. A unit is a step of the stream."""

    data: LabelledSlides
    patches: pretrain.Patches
    bucket: storage.Bucket
    compute: common.Compute
    images_a_unit: int = STREAM_BATCH

    @property
    def task(self) -> str:
        return self.data.task

    @property
    def units(self) -> int:
        return -(-len(self.data.samples) * PATCHES_A_SLIDE // STREAM_BATCH)

    @property
    def preprocessing(self) -> str:
        return f"patches of {self.patches.size_px} px at {SLIDE_MPP} um/px, about {PATCHES_A_SLIDE} a slide, not resized"

    @property
    def version(self) -> str:
        """Version of the slide index, and the slides that have a label: what the stream depends on."""
        return digest([self.data.catalog.version, [slide.id for slide in self.data.catalog.slides]])

    def facts(self) -> Any:
        return ["stream", self.patches.dump(), STREAM_BATCH, PATCHES_A_SLIDE, self.version]

    def embed(self, first: int, stop: int, encoder: encoders.Encoder, device: torch.device) -> features.Arrays:
        """`features` float32 (N, F) and `slides` (N,), indices into the catalog."""
        found, slides = [], []
        spec = self._spec()
        with stream.batches(
            self.data.catalog, spec, seed=0, start_step=first, stop_step=stop, bucket=self.bucket, threads=cores.here(self.compute)
        ) as batches:
            for batch in batches:
                found.append(encoder(batch.images.to(device).permute(0, 3, 1, 2)).cpu().numpy())
                slides += [request.slide for request in batch.requests]
        return {features.FEATURES: np.concatenate(found), "slides": np.array(slides)}

    def _spec(self) -> pretrain.PretrainSpec:
        """The stream's specification; what it does not read is a formality."""
        folder, crops = self.data.catalog.url, {"globalSizePx": self.patches.size_px, "localSizePx": self.patches.size_px}
        return pretrain.PretrainSpec.model_validate(
            {
                "model": {"architecture": "vit_small_patch16_224"},
                "slides": {"source": folder, "index": folder},
                "patches": self.patches.dump(),
                "training": {"batchSize": STREAM_BATCH, "steps": self.units, "crops": crops},
                "checkpoints": {"url": folder},
            }
        )


def slide_patches(size_px: int) -> pretrain.Patches:
    """What is cut out of the slides of a task: the field's usual resolution for a linear probe."""
    return pretrain.Patches(size_px=size_px, magnifications=[pretrain.Magnification(mpp=SLIDE_MPP)], window_steps=8)


def grid(width_px: int, height_px: int, patch_px: int) -> list[tuple[int, int]]:
    """Corners (x, y) of the whole patches that tile an image, column by column, as kaiko-eva's GridSampler has them."""
    return [(x, y) for x in range(0, width_px - patch_px + 1, patch_px) for y in range(0, height_px - patch_px + 1, patch_px)]


def digest(value: Any) -> str:
    """A short name for a JSON value."""
    return hashlib.blake2b(json.dumps(value).encode(), digest_size=16).hexdigest()


def batched(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    """The items in groups of `size`; the last may be smaller."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def _check_shapes(sample: MaskedImage, image: tuple[int, ...], mask: tuple[int, ...], patch_px: int) -> None:
    if image != mask:
        raise errors.InvalidConfiguration(f"{sample.mask.url} has the shape {mask} and its image {image}: they must be the same")
    if min(image) < patch_px:
        raise errors.InvalidConfiguration(f"{sample.image.url} is {image[1]} x {image[0]} px, smaller than a patch of {patch_px} px")


def _ahead(groups: Sequence[Any], read: Any) -> Iterator[list[Any]]:
    """What `read(group, pool)` reads, group after group; the next one is read while the caller works on this one."""
    with futures.ThreadPoolExecutor(READERS) as pool:
        ahead: list[futures.Future[Any]] = []
        for group in groups:
            current, ahead = ahead, read(group, pool)
            if current:
                yield [f.result() for f in current]
        yield [f.result() for f in ahead]
