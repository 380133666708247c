"""`spec.training` of a PathoPretrain: the hyper-parameters, the crops and what is done to them."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from patho_api import common
from patho_api.common import Normalization, PositiveFloat, Rule, Spec, UnitInterval


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
