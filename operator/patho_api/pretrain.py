"""PathoPretrain: what to train, on which slides, where."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from patho_api import common, evaluate
from patho_api.common import PositiveFloat, Rule, Spec, Storage, UnitInterval, Url
from patho_api.training import Training


class Init(Spec):
    """Weights before the first step."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.source == 'Timm') == (self.tag != '')",
            "model.init.tag belongs to source Timm, and Timm needs it (its default may be supervised weights): set tag, such as dino",
            lambda i: (i.source == "Timm") == (i.tag != ""),
        ),
        Rule(
            "(self.source == 'URL') == (self.url != '')",
            "model.init.url belongs to source URL, and URL needs it: set url to a .safetensors or .pth file",
            lambda i: (i.source == "URL") == (i.url != ""),
        ),
    )

    source: Literal["Random", "Timm", "URL"] = "Random"
    """Random (default: nothing to download), Timm (timm's pretrained weights by tag; the pod must reach timm's hub) or URL (a file in a
    bucket)."""
    tag: Annotated[str, Field(max_length=128)] = ""
    """timm's tag, for source Timm: `dino`, `lvd142m`, ..."""
    url: common.UrlOrEmpty = ""
    """A .safetensors or .pth file in timm's, DINO's or DINOv2's layout, for source URL."""


class Model(Spec):
    """The vision transformer to train."""

    architecture: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-z0-9_]+$")] = "vit_small_patch16_224"
    """Name of any timm ViT. Default: ViT-S/16, the smallest model of arXiv 2404.15217."""
    init: Init = Init()
    """Weights before the first step."""


class Foreground(Spec):
    """Which parts of a slide are tissue."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(self.method == 'Masks') == (self.masksUrl != '')",
            "slides.foreground.masksUrl belongs to method Masks, and Masks needs it: a url pattern with {id} or {name}",
            lambda f: (f.method == "Masks") == (f.masks_url != ""),
        ),
        Rule(
            "self.masksUrl == '' || self.masksUrl.contains('{id}') || self.masksUrl.contains('{name}')",
            "slides.foreground.masksUrl would name one mask for all slides: write {id} or {name} into it, such as gs://me/masks/{name}.png",
            lambda f: not f.masks_url or "{id}" in f.masks_url or "{name}" in f.masks_url,
        ),
    )

    method: Literal["Otsu", "Saturation", "Masks", "None"] = "Otsu"
    """Otsu (threshold on saturation, for each slide), Saturation (eva's fixed threshold), Masks (your own images) or None (everywhere)."""
    min_coverage: UnitInterval = 0.4
    """Share of a patch that must lie on tissue. Default: 0.4, as in arXiv 2404.15217."""
    masks_url: common.UrlOrEmpty = ""
    """URL pattern of mask images (PNG or TIFF, non-zero is tissue, whole slide at any resolution), for method Masks: `{id}` is the
    manifest's id, `{name}` the slide's file name without its ending. Reached through `slides.storage`."""


class Slides(Spec):
    """The whole-slide images and their index."""

    source: Url
    """A manifest (.csv or .parquet with a column `url`, optional `id`, `mpp`, `patient`, `label`, `weight`), a glob, or a prefix that
    ends in `/`."""
    index: Url
    """Folder of the slide index. Built on first use by the run's own pods, reused by every later run with the same slides."""
    fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of the slides to use, 0 to 1. Nested: the 1 % is inside the 10 %. Default: 1, all of them."""
    exclude_column: Annotated[str, Field(max_length=128)] = ""
    """Manifest column; slides where it is true (1, true, yes) are left out, such as patients of an evaluation set. Empty: none."""
    max_bad_share: UnitInterval = 0.05
    """Share of slides (0 to 1) that may be unreadable before the run ends with exit code 41; one always may, unless this
    is 0. Default: 0.05: a few bad files are common in archives, many mean a wrong bucket."""
    foreground: Foreground = Foreground()
    """Which parts of a slide are tissue."""
    storage: Storage = Storage()
    """How to reach the slides and the index."""


class Magnification(Spec):
    """One resolution that patches are read at."""

    mpp: PositiveFloat
    """Micrometres a pixel: 0.25 is 40x, 0.5 is 20x, 1.0 is 10x, 2.0 is 5x."""
    weight: PositiveFloat = 1.0
    """Relative frequency, renormalised over the magnifications that a slide really has. Default: 1, all equally often."""


class Patches(Spec):
    """What is cut out of the slides."""

    size_px: Annotated[int, Field(ge=32, le=2048)] = 256
    """Edge of a square patch in pixels. Default: 256, as in arXiv 2404.15217."""
    magnifications: Annotated[list[Magnification], Field(min_length=1, max_length=8)] = [
        Magnification(mpp=0.25),
        Magnification(mpp=0.5),
        Magnification(mpp=1.0),
        Magnification(mpp=2.0),
    ]
    """Resolutions and their weights. Default: the four of arXiv 2404.15217, equally often. A slide is never upsampled."""
    mpp_tolerance: Annotated[float, Field(ge=0, le=0.25)] = 0.05
    """Relative; a level this close to the wanted resolution is read as it is. Default: 0.05, scanners scatter by 0.02."""
    coordinates: Literal["Free", "Grid"] = "Free"
    """Free: uniform over the tissue, as in arXiv 2404.15217. Grid: whole stored tiles, cheaper to read. Default: Free."""
    per_slide: Annotated[int, Field(ge=1)] | None = None
    """At most this many distinct patches a slide, for ablations. Null: no limit."""
    window_steps: Annotated[int, Field(ge=1, le=1024)] = 16
    """A slot of the batch keeps its slide for this many steps, one new patch each: fewer, larger requests. 1 draws a new slide every
    step."""


class Checkpoints(Spec):
    """Where the run leaves its weights, and how often."""

    url: Url
    """Folder in a bucket (or a shared disk). Give each run its own."""
    every_steps: Annotated[int, Field(ge=1)] = 2500
    """Steps between checkpoints: what a crash can cost. Default: 2,500, two of DINOv2's epochs."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """How many of the latest to keep; the best by evaluation is always kept."""
    storage: Storage | None = None
    """How to reach the folder. Null: as for the slides."""


class Evaluation(Spec):
    """A PathoEval for checkpoints of this run."""

    name: Annotated[str, Field(min_length=1, max_length=16, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
    """Short name, unique in the list."""
    every_steps: Annotated[int, Field(ge=1)]
    """A checkpoint at a multiple of this step is evaluated, or skipped (with an event) while three earlier ones have not ended."""
    template: evaluate.EvalTemplate
    """What to evaluate."""


class PretrainSpec(Spec):
    """Pretrain a vision transformer on patches read online out of whole-slide images."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.training.batchSize >= self.compute.nodes * self.compute.processesPerNode",
            "training.batchSize must give every process at least one patch: raise it, or lower compute.nodes or processesPerNode",
            lambda s: s.training.batch_size >= s.compute.nodes * s.compute.processes_per_node,
        ),
        Rule(
            "self.training.crops.globalSizePx <= self.patches.sizePx && self.training.crops.localSizePx <= self.patches.sizePx",
            "training.crops must not be larger than patches.sizePx: lower globalSizePx or localSizePx",
            lambda s: max(s.training.crops.global_size_px, s.training.crops.local_size_px) <= s.patches.size_px,
        ),
        Rule(
            "self.evaluations.all(e, e.everySteps % self.checkpoints.everySteps == 0)",
            "evaluations[].everySteps must be a multiple of checkpoints.everySteps: only checkpoints can be evaluated",
            lambda s: all(e.every_steps % s.checkpoints.every_steps == 0 for e in s.evaluations),
        ),
        Rule(
            "self.evaluations.all(e, self.evaluations.exists_one(f, f.name == e.name))",
            "evaluations[].name must be unique: child resources are named after it",
            lambda s: len({e.name for e in s.evaluations}) == len(s.evaluations),
        ),
        Rule(
            "self.checkpoints.url == oldSelf.checkpoints.url",
            "checkpoints.url is immutable: the run would lose its checkpoints; make a new run",
            lambda new, old: new.checkpoints.url == old.checkpoints.url,
            transition=True,
        ),
        Rule(
            "self.method == oldSelf.method && self.model.architecture == oldSelf.model.architecture",
            "method and model.architecture are immutable: checkpoints would not fit; make a new run",
            lambda new, old: (new.method, new.model.architecture) == (old.method, old.model.architecture),
            transition=True,
        ),
    )

    method: Literal["DINO", "DINOv2"] = "DINO"
    """Self-supervised method: DINO (arXiv 2104.14294) or DINOv2 (arXiv 2304.07193)."""
    model: Model = Model()
    """The vision transformer to train."""
    slides: Slides
    """The whole-slide images and their index."""
    patches: Patches = Patches()
    """What is cut out of the slides."""
    training: Training = Training()
    """Hyper-parameters."""
    checkpoints: Checkpoints
    """Where the run leaves its weights, and how often."""
    compute: common.Compute = common.Compute()
    """Where the run's pods go and what they get."""
    run_policy: common.RunPolicy = common.RunPolicy()
    """What the operator does when something goes wrong, or when it is over."""
    evaluations: Annotated[
        list[Evaluation],
        Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}),
    ] = []
    """A PathoEval for every checkpoint that hits everySteps; the three newest finished ones stay. The first task of the first entry
    decides which checkpoint is the best; it is kept. An evaluation that fails never stops the training."""


def loss_group_size(spec: PretrainSpec) -> int:
    """Patches of a loss group. Null is 1 for DINO; for DINOv2 64, its batch on one GPU, or the largest divisor that the batch shares."""
    return spec.training.loss_group_size or {"DINO": 1, "DINOv2": math.gcd(64, spec.training.batch_size)}[spec.method]
