"""Looking before running: the index of a source, the pictures a run would see, the speed of its loader."""

import csv
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pydantic
import rich.console
import torch
from numpy import typing as npt

from patho_api import common, pretrain, resource
from patho_trainer import config, errors, terminal
from patho_trainer.data import augment, catalog, chart, copies, coverage, index, preview, sampler, slide, storage, stream
from patho_trainer.data import bench as loader_bench
from patho_trainer.models import vit

SHOWN_PATCHES = 6
SHOWN_LOCALS = 4
SHOWN_SLIDES = 4
SHOWN_POSITIONS = 4096  # patches of the steps that the chart shows; at least a window of them
SHOWN_BOXES = 24  # of a slide, the first ones
AUDIT = ("step", "slot", "slide", "mpp", "level", "x", "y", "source_px", "size_px", "x_level0", "y_level0", "url")


def build_index(
    source: str, out: str, foreground: Mapping[str, str], storage_spec: common.Storage, console: rich.console.Console
) -> catalog.Catalog:
    """Index the slides of `source` with the default magnifications; shows progress, the mix that results, and what was rejected."""
    patches = pretrain.Patches()
    try:
        wanted = pretrain.Foreground.model_validate(foreground)
    except pydantic.ValidationError as error:
        raise errors.InvalidConfiguration("; ".join(resource.sentences(error))) from error
    return _shown(console, patches, [source], out, foreground=wanted, bucket=storage.Bucket(storage_spec))


def _shown(console: rich.console.Console, patches: pretrain.Patches, sources: list[str], out: str, **options: Any) -> catalog.Catalog:
    """Build an index with a progress bar; then the mix that results, and what was rejected."""
    with terminal.Counter(console, "Indexing") as counter:
        found = index.build(sources, out, patches=patches, progress=counter.show, **options)
    console.print(f"{_slides(found)} in {out} (version {found.version})", highlight=False, soft_wrap=True)
    for line in [*mix(found, patches), *rejections(found)]:
        console.print(f"   {line}", highlight=False, soft_wrap=True)
    return found


def mix(found: catalog.Catalog, patches: pretrain.Patches) -> list[str]:
    """Share of each wanted magnification over all slides, each of which offers those it has."""
    shares = catalog.mix(found.slides, patches)
    return [f"{mpp:.2f} um/px: {shares[mpp]:.0%} of the patches" for mpp in sorted(shares)]


def rejections(found: catalog.Catalog) -> list[str]:
    """One line for each reason, with an example."""
    reasons: dict[str, list[catalog.Slide]] = {}
    for each in found.rejected:
        reasons.setdefault(each.rejected, []).append(each)
    return [f"rejected {len(slides)} ({reason}): {slides[0].url}: {slides[0].message}" for reason, slides in sorted(reasons.items())]


def build_index_of(res: resource.Resource, console: rich.console.Console) -> catalog.Catalog:
    """The index of a run, as its own pods would build it."""
    spec = pretrain_spec(res)
    bucket = storage.Bucket(spec.slides.storage)
    return _shown(console, spec.patches, [spec.slides.source], spec.slides.index, foreground=spec.slides.foreground, bucket=bucket)


def explain(res: resource.Resource, step: int, version: str) -> Iterator[str]:
    """The audit log of a step as lines of CSV: every slot's slide, resolution and corner, before anything is replaced.

    `version` names the index that the run has pinned (its log and its checkpoints say it); empty: the latest. Nothing is built.
    """
    spec = pretrain_spec(res)
    found = index.load(spec.slides.index, storage.Bucket(spec.slides.storage), version)
    yield f"# {res.name}, step {step}, seed {spec.training.seed}, index {spec.slides.index} version {found.version}"
    yield ",".join(AUDIT)
    for r in sampler.requests(found, spec, spec.training.seed, step):
        where = found.slides[r.slide]
        row = (r.step, r.slot, where.id, f"{r.mpp:.6g}", r.level, r.x, r.y, r.source_px, r.size_px, *r.xy_level0, where.url)
        yield _csv_line(row)


def _csv_line(row: Sequence[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(row)
    return line.getvalue()


def preview_run(res: resource.Resource, step: int, out: pathlib.Path) -> list[pathlib.Path]:
    """Write the contact sheet of a step to `out`, and beside it some of its slides with their tissue and the patches of the steps that
    follow, and how much of their tissue is seen in time; returns the paths. Builds the index where there is none.
    """
    spec = pretrain_spec(res)
    bucket = storage.Bucket(spec.slides.storage)
    found = _index(spec, bucket)
    with stream.batches(found, spec, seed=spec.training.seed, start_step=step, stop_step=step + 1, bucket=bucket) as batches:
        batch = next(batches)
    lines = preview.rows(found, batch, _crops(spec, batch), SHOWN_PATCHES)
    subtitle = f"{_slides(found)}, {spec.patches.size_px} px patches; two global and {SHOWN_LOCALS} local crops of each"
    out.write_bytes(preview.contact_sheet(lines, f"{res.name}, step {step}", subtitle))
    return [out, *_positions(found, spec, bucket, step, out)]


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


def _positions(
    found: catalog.Catalog, spec: pretrain.PretrainSpec, bucket: storage.Bucket, step: int, out: pathlib.Path
) -> list[pathlib.Path]:
    """Thumbnails of the first slides of a step with the patches that follow, and the chart of what is seen of them."""
    last = max(step + 1, min(spec.training.steps, step + max(spec.patches.window_steps, SHOWN_POSITIONS // spec.training.batch_size)))
    steps = [sampler.requests(found, spec, spec.training.seed, each) for each in range(step, last)]
    shown = list(dict.fromkeys(request.slide for request in steps[0]))[:SHOWN_SLIDES]
    masks = {i: found.record(i).mask for i in shown}
    wanted = [m.mpp for m in spec.patches.magnifications]
    legend = [chart.Entry(f"{mpp:.2f} um/px", colour) for mpp, colour in zip(wanted, chart.COLOURS, strict=False)]
    colours = {mpp: entry.colour for mpp, entry in zip(wanted, legend, strict=True)}
    paths = [out.with_name(f"{out.stem}-slide-{n}.png") for n in range(len(shown))]
    for path, i in zip(paths, shown, strict=True):
        boxes = [_box(found, r, colours[coverage.wanted_mpp(r, wanted)]) for requests in steps for r in requests if r.slide == i]
        opened = slide.Opened(found.slides[i], found.record(i), bucket, copies.Copies(bucket))
        path.write_bytes(preview.thumbnail(opened, masks[i], boxes[:SHOWN_BOXES], legend))
    shares = coverage.over_steps(found, steps, masks, wanted)
    named = {f"{mpp:.2f} um/px": values for mpp, values in shares.items()}
    seen = len({request.slide for requests in steps for request in requests})
    subtitle = (
        f"steps {step} to {last - 1}, {seen:,} of {_slides(found)} seen: of the tissue of the {len(shown)} shown that have a magnification"
    )
    charted = out.with_name(f"{out.stem}-coverage.png")
    charted.write_bytes(chart.lines("Tissue seen at least once", subtitle, "step", list(range(step, last)), named))
    return [*paths, charted]


def _box(found: catalog.Catalog, request: sampler.Request, colour: chart.Colour) -> preview.Box:
    downsample = found.slides[request.slide].levels[request.level].downsample
    return preview.Box(request.xy_level0, round(request.source_px * downsample), colour)
