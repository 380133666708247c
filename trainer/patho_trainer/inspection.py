"""Looking before running: the index of a source, the pictures a run would see, the speed of its loader."""

import pathlib
from collections.abc import Mapping

import numpy as np
import pydantic
import rich.console
import torch
from numpy import typing as npt

from patho_api import common, pretrain, resource
from patho_trainer import config, errors, terminal
from patho_trainer.data import augment, catalog, index, preview, slide, storage, stream
from patho_trainer.data import bench as loader_bench
from patho_trainer.models import vit

SHOWN_PATCHES = 6
SHOWN_LOCALS = 4
SHOWN_SLIDES = 4


def build_index(
    source: str, out: str, foreground: Mapping[str, str], storage_spec: common.Storage, console: rich.console.Console
) -> catalog.Catalog:
    """Index the slides of `source` with the default magnifications; shows progress, the mix that results, and what was rejected."""
    patches = pretrain.Patches()
    try:
        wanted = pretrain.Foreground.model_validate(foreground)
    except pydantic.ValidationError as error:
        raise errors.InvalidConfiguration("; ".join(resource.sentences(error))) from error
    with terminal.Counter(console, "Indexing") as counter:
        found = index.build(
            [source],
            out,
            foreground=wanted,
            patches=patches,
            bucket=storage.Bucket(storage_spec),
            progress=counter.show,
        )
    console.print(f"{_slides(found)} in {out} (version {found.version})", highlight=False)
    for line in [*mix(found, patches), *rejections(found)]:
        console.print(f"   {line}", highlight=False, soft_wrap=True)
    return found


def mix(found: catalog.Catalog, patches: pretrain.Patches) -> list[str]:
    """Share of each wanted magnification over all slides, each of which offers those it has."""
    shares: dict[float, float] = dict.fromkeys((m.mpp for m in patches.magnifications), 0.0)
    for each in found.slides:
        for offer in catalog.offers(each, patches):
            shares[offer.wanted_mpp] += offer.weight / len(found.slides)
    return [f"{mpp:.2f} um/px: {shares[mpp]:.0%} of the patches" for mpp in sorted(shares)]


def rejections(found: catalog.Catalog) -> list[str]:
    """One line for each reason, with an example."""
    reasons: dict[str, list[catalog.Slide]] = {}
    for each in found.rejected:
        reasons.setdefault(each.rejected, []).append(each)
    return [f"rejected {len(slides)} ({reason}): {slides[0].url}: {slides[0].message}" for reason, slides in sorted(reasons.items())]


def preview_run(res: resource.Resource, step: int, out: pathlib.Path) -> list[pathlib.Path]:
    """Write the contact sheet of a step to `out`, and thumbnails of the first slides with their tissue beside it; returns the paths.

    Builds the index where there is none.
    """
    spec = pretrain_spec(res)
    bucket = storage.Bucket(spec.slides.storage)
    found = _index(spec, bucket)
    with stream.batches(found, spec, seed=spec.training.seed, start_step=step, stop_step=step + 1, bucket=bucket) as batches:
        batch = next(batches)
    lines = preview.rows(found, batch, _crops(spec, batch), SHOWN_PATCHES)
    subtitle = f"{_slides(found)}, {spec.patches.size_px} px patches; two global and {SHOWN_LOCALS} local crops of each"
    out.write_bytes(preview.contact_sheet(lines, f"{res.name}, step {step}", subtitle))
    return [out, *_thumbnails(found, bucket, out)]


def bench(res: resource.Resource, steps: int) -> list[str]:
    """Sentences about the speed of the loader alone on the slides of a run."""
    spec = pretrain_spec(res)
    bucket = storage.Bucket(spec.slides.storage)
    return loader_bench.measure(_index(spec, bucket), spec, steps=steps, bucket=bucket).lines()


def _slides(found: catalog.Catalog) -> str:
    return f"{len(found.slides):,} slide{'' if len(found.slides) == 1 else 's'}"


def pretrain_spec(res: resource.Resource) -> pretrain.PretrainSpec:
    """The spec of a PathoPretrain."""
    assert isinstance(res.spec, pretrain.PretrainSpec), "the command line lets only PathoPretrain through"
    return res.spec


def _index(spec: pretrain.PretrainSpec, bucket: storage.Bucket) -> catalog.Catalog:
    return index.build([spec.slides.source], spec.slides.index, foreground=spec.slides.foreground, patches=spec.patches, bucket=bucket)


def _crops(spec: pretrain.PretrainSpec, batch: stream.Batch) -> list[list[npt.NDArray[np.uint8]]]:
    """The crops of each patch as pictures: normalisation undone."""
    vit.check_crops(spec.model.architecture, spec.training.crops)
    views = augment.multi_crop(batch.images, config.resolved(spec), spec.training.seed, batch.step, batch.slots)
    shown = views[: 2 + min(SHOWN_LOCALS, spec.training.crops.local_count)]
    return [[_picture(view[i], spec.training.normalization) for view in shown] for i in range(len(batch.slots))]


def _picture(crop_CHW: torch.Tensor, normalization: common.Normalization) -> npt.NDArray[np.uint8]:
    mean, std = (torch.tensor(values)[:, None, None] for values in (normalization.mean, normalization.std))
    levels = (crop_CHW * std + mean).clamp(0, 1) * 255
    return levels.round().to(torch.uint8).permute(1, 2, 0).numpy()


def _thumbnails(found: catalog.Catalog, bucket: storage.Bucket, out: pathlib.Path) -> list[pathlib.Path]:
    paths = []
    for i, each in enumerate(found.slides[:SHOWN_SLIDES]):
        path = out.with_name(f"{out.stem}-slide-{i}.png")
        path.write_bytes(preview.thumbnail(slide.open(each.url, bucket=bucket, mpp=each.mpp), found.record(i).mask))
        paths.append(path)
    return paths
