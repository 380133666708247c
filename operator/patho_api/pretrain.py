"""PathoPretrain: what to train, on which slides, where."""

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from patho_api import common, evaluate
from patho_api.common import Normalization, PositiveFloat, Rule, Spec, Storage, UnitInterval, Url


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
    url: Annotated[str, Field(max_length=1024)] = ""
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
    masks_url: Annotated[str, Field(max_length=1024)] = ""
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


class Crops(Spec):
    """Multi-crop of one patch. Defaults: facebookresearch/dino and dinov2."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "(!has(self.globalScale) || self.globalScale[0] < self.globalScale[1]) && "
            "(!has(self.localScale) || self.localScale[0] < self.localScale[1])",
            "crops: a scale is [smallest, largest] share of the patch's area: write the smaller first",
            lambda c: all(scale is None or scale[0] < scale[1] for scale in (c.global_scale, c.local_scale)),
        ),
    )

    global_size_px: Annotated[int, Field(ge=16, le=1024)] = 224
    """Edge of the two global crops in pixels; a multiple of the model's patch size. Default: 224, the input of timm's ViTs."""
    global_scale: Annotated[list[UnitInterval], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest share of the patch's area. Null: [0.4, 1] for DINO, [0.32, 1] for DINOv2."""
    local_count: Annotated[int, Field(ge=0, le=32)] = 8
    """Number of local crops of a patch. Default: 8, DINO's and DINOv2's."""
    local_size_px: Annotated[int, Field(ge=16, le=1024)] = 96
    """Edge of a local crop in pixels; a multiple of the model's patch size (98 for /14). Default: 96, DINO's."""
    local_scale: Annotated[list[UnitInterval], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest share of the patch's area. Null: [0.05, 0.4] for DINO, [0.05, 0.32] for DINOv2."""


class Augmentation(Spec):
    """Extras beyond the reference's flips, colour jitter, greyscale, blur and solarisation: off by default."""

    hed: bool = False
    """Shift the amounts of haematoxylin, eosin and DAB in half of the crops, each by up to 0.05 of skimage's units, as OpenMidnight does
    (Midnight publishes no strength)."""
    rotate90: bool = False
    """Rotate each crop by 0, 90, 180 or 270 degrees, equally often (Midnight)."""
    blur_probabilities: Annotated[list[UnitInterval], Field(min_length=3, max_length=3)] = [1.0, 0.1, 0.5]
    """Share of first global, second global and local crops that are blurred. Default: [1, 0.1, 0.5], as in the papers of DINO and DINOv2
    and DINO's code; DINOv2's code inverts them by mistake and really blurs [0, 0.9, 0.5]."""
    hsv_filter: bool = False
    """Draw another place on the slide, up to 8 times, where fewer than 60 % of the pixels have stained colour (Virchow, Midnight: hue
    180 to 360 degrees, saturation above 3 %, value above 40 %). Each draw is a read of its own."""


Steps = Annotated[int, Field(ge=0)]


class Training(Spec):
    """Hyper-parameters. Null means: the method's reference value, lengths as the reference's share of `steps`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.microBatchSize) || self.microBatchSize <= self.batchSize",
            "training.microBatchSize must not exceed training.batchSize",
            lambda t: t.micro_batch_size is None or t.micro_batch_size <= t.batch_size,
        ),
        Rule(
            "!has(self.lossGroupSize) || self.batchSize % self.lossGroupSize == 0",
            "training.batchSize must be a multiple of training.lossGroupSize",
            lambda t: t.loss_group_size is None or t.batch_size % t.loss_group_size == 0,
        ),
        Rule(
            "!has(self.microBatchSize) || !has(self.lossGroupSize) || self.microBatchSize % self.lossGroupSize == 0",
            "training.microBatchSize must be a multiple of training.lossGroupSize: a micro-batch takes whole groups",
            lambda t: None in (t.micro_batch_size, t.loss_group_size) or t.micro_batch_size % t.loss_group_size == 0,
        ),
        Rule(
            "!has(self.warmupSteps) || self.warmupSteps <= self.steps",
            "training.warmupSteps must not exceed training.steps",
            lambda t: t.warmup_steps is None or t.warmup_steps <= t.steps,
        ),
        Rule(
            "self.maskRatio[0] <= self.maskRatio[1]",
            "training.maskRatio is [smallest, largest] share of masked tokens: write the smaller first",
            lambda t: t.mask_ratio[0] <= t.mask_ratio[1],
        ),
    )

    steps: Annotated[int, Field(ge=1, le=100_000_000)] = 125_000
    """Optimizer steps of the whole run. Default: 125,000, 100 of DINOv2's epochs."""
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 256
    """Patches in a step over all processes: stays the same when the number of nodes changes. Default: 256, as in arXiv 2404.15217."""
    micro_batch_size: Annotated[int, Field(ge=1)] | None = None
    """Patches that a process takes at once; the rest follows by gradient accumulation. Null: all of its share."""
    loss_group_size: Annotated[int, Field(ge=1)] | None = None
    """Patches among which KoLeo and KDE look for neighbours, and of which drop-path drops a fixed share; a process takes whole groups, so
    there cannot be more processes than groups. Null: 1 for DINO; for DINOv2 64, its batch on one GPU (or the largest power of two below
    it that divides batchSize)."""
    normalization: Normalization = Normalization()
    """Channel statistics; they travel with the exported model."""
    precision: common.Precision = "BFloat16"
    """Arithmetic of the forward pass; weights and optimizer are float32. Default: BFloat16, right for GPUs since 2020; on a CPU,
    Float32 is faster."""
    deterministic: bool = False
    """Bitwise repeatable on a GPU, slower. On a CPU a run is repeatable anyway."""
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    """Seed of every random number: patches, crops, weights."""
    learning_rate: PositiveFloat | None = None
    """Peak learning rate. Null: the reference's rule, 5e-4 * batchSize / 256 for DINO, 4e-3 * sqrt(batchSize / 1024) for DINOv2."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 1e-6
    """Learning rate at the end of the cosine. Default: 1e-6, DINO's and DINOv2's."""
    warmup_steps: Steps | None = None
    """Linear warm-up from 0. Null: 10 % of steps."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.04
    """Weight decay at the start (not on biases and norms). Default: 0.04, DINO's and DINOv2's."""
    weight_decay_end: Annotated[float, Field(ge=0)] = 0.4
    """Weight decay at the end of its cosine. Default: 0.4, DINO's and DINOv2's."""
    teacher_momentum: UnitInterval | None = None
    """EMA momentum of the teacher at the start, cosine to 1. Null: 0.996 for DINO (0.9995 is advised at batch 256), 0.992 for DINOv2."""
    teacher_temperature_start: PositiveFloat = 0.04
    """Teacher temperature at the first step. Default: 0.04, DINO's and DINOv2's."""
    teacher_temperature: PositiveFloat | None = None
    """Teacher temperature after its warm-up. Null: 0.04 for DINO, 0.07 for DINOv2."""
    teacher_temperature_warmup_steps: Steps | None = None
    """Length of that linear warm-up. Null: 30 % of steps."""
    student_temperature: PositiveFloat = 0.1
    """Student temperature. Default: 0.1, DINO's and DINOv2's."""
    center_momentum: UnitInterval = 0.9
    """EMA momentum of the teacher's centre. Default: 0.9, DINO's."""
    prototypes: Annotated[int, Field(ge=2, le=1_048_576)] = 65536
    """Output width of the projection head (K). Default: 65,536, DINO's and DINOv2's."""
    head_hidden_width: Annotated[int, Field(ge=1, le=65536)] = 2048
    """Hidden width of the projection head. Default: 2,048, DINO's."""
    head_bottleneck_width: Annotated[int, Field(ge=1, le=65536)] = 256
    """Width of the normalised bottleneck before the prototypes. Default: 256, DINO's and DINOv2's."""
    norm_last_layer: bool | None = None
    """Keep the prototypes' norm at 1. Null: true for DINO, more stable (false may score better for ViT-S); false for DINOv2."""
    drop_path: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Stochastic depth of the student. DINO: chance to skip a branch, growing from 0 to this over the blocks; DINOv2: share of the batch
    that every branch skips. Null: 0.1 for DINO, 0.3 for DINOv2."""
    clip_grad: Annotated[float, Field(ge=0)] = 3.0
    """Largest gradient norm: of each parameter with DINO, of the backbone and of each head with DINOv2; 0 turns it off. Default: 3, DINO's
    and DINOv2's."""
    freeze_last_layer_steps: Steps | None = None
    """Steps without an update of the prototypes. Null: 1 % of steps."""
    crops: Crops = Crops()
    """Multi-crop."""
    augmentation: Augmentation = Augmentation()
    """Extras, off by default."""
    koleo_weight: Annotated[float, Field(ge=0)] = 0.1
    """Weight of the KoLeo regulariser (DINOv2 only). Default: 0.1, DINOv2's."""
    kde_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the kernel density regulariser (DINOv2 only): the mean log density of the class tokens under a von Mises-Fisher kernel,
    which is minimised. Virchow2 and Midnight use it in the place of KoLeo. Default: 0, off; OpenMidnight's weight is 0.05."""
    kde_concentration: PositiveFloat = 5.0
    """Concentration kappa of that kernel (DINOv2 only). Default: 5, OpenMidnight's."""
    ibot_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the masked-token loss (DINOv2 only). Default: 1, DINOv2's."""
    ibot_separate_head: bool = False
    """Give masked tokens a projection head of their own (DINOv2 only). Default: false, DINOv2's short recipe; its long recipes set true."""
    ibot_prototypes: Annotated[int, Field(ge=2, le=1_048_576)] | None = None
    """Output width of that head (DINOv2 only). Null: as prototypes."""
    ibot_head_bottleneck_width: Annotated[int, Field(ge=1, le=65536)] | None = None
    """Bottleneck width of that head (DINOv2 only). Null: as headBottleneckWidth; DINOv2's long recipes have 256 here and 384 there."""
    mask_probability: UnitInterval = 0.5
    """Share of global crops that are masked (DINOv2 only). Default: 0.5, DINOv2's."""
    mask_ratio: Annotated[list[UnitInterval], Field(min_length=2, max_length=2)] = [0.1, 0.5]
    """Smallest and largest share of masked tokens in such a crop (DINOv2 only). Default: [0.1, 0.5], DINOv2's."""
    centering: Literal["Softmax", "SinkhornKnopp"] = "Softmax"
    """How teacher outputs are balanced (DINOv2 only): Softmax subtracts a moving centre, SinkhornKnopp shares the prototypes out over the
    global batch (of each round, with microBatchSize). Default: Softmax, as in DINO and DINOv2's short recipe."""
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate factor from a block to the one below. Null: 1 for DINO, 0.9 for DINOv2."""
    patch_embed_lr_multiplier: Annotated[float, Field(gt=0, le=1)] | None = None
    """Learning rate factor of the patch embedding. Null: 1 for DINO, 0.2 for DINOv2."""
    compile: bool = False
    """torch.compile the forward pass; needs a C++ compiler in the image."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about 30 % more time."""
    monitor_every_steps: Annotated[int, Field(ge=1)] = 500
    """Steps between measurements of RankMe and ODCorr on a fixed set of patches."""


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
