"""PathoEval: which model, on which tasks, by which protocol."""

from typing import Annotated, Any, ClassVar, Literal

import pydantic
from pydantic import Field

from patho_api import common
from patho_api.common import Normalization, Rule, Spec, Storage, Url

TaskName = Literal["BACH", "CRC", "MHIST", "PCam", "TP53", "CoNSeP", "PatchClassification", "PatchSegmentation"]


class PretrainRef(Spec):
    """A checkpoint of a PathoPretrain in the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=40)]
    """Name of the PathoPretrain."""
    checkpoint: Annotated[str, Field(max_length=16, pattern=r"^(Latest|Best|[0-9]+)$", json_schema_extra=common.INT_OR_STRING)] = "Latest"
    """Latest, Best (by an evaluation), or a step, such as 2500."""

    @pydantic.field_validator("checkpoint", mode="before")
    @classmethod
    def _a_step_is_a_string(cls, value: Any) -> Any:
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


class EvalModel(Spec):
    """The model to evaluate: exactly one of `pretrain`, `url`, `timm`."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "[has(self.pretrain), self.url != '', self.timm != ''].filter(x, x).size() == 1",
            "model: set exactly one of pretrain, url and timm",
            lambda m: [m.pretrain is not None, m.url != "", m.timm != ""].count(True) == 1,
        ),
        Rule(
            "self.architecture == '' || self.url != ''",
            "model.architecture belongs to model.url: a pathoscale checkpoint and a timm name know theirs",
            lambda m: m.architecture == "" or m.url != "",
        ),
    )

    pretrain: PretrainRef | None = None
    """A checkpoint of a PathoPretrain in the same namespace."""
    url: common.UrlOrEmpty = ""
    """A pathoscale checkpoint folder, or a .safetensors or .pth file (then set architecture)."""
    architecture: Annotated[str, Field(max_length=128, pattern=r"^[a-z0-9_]*$")] = ""
    """timm architecture of the file at url. Empty: a pathoscale checkpoint says it."""
    timm: Annotated[str, Field(max_length=128)] = ""
    """A timm model with its tag, such as `vit_small_patch16_224.dino`; the pod must reach timm's hub."""
    normalization: Normalization | None = None
    """Channel statistics. Null: those of the checkpoint, or of timm's configuration."""
    pooling: Literal["CLS", "CLSMean"] = "CLS"
    """Features: CLS (the class token) or CLSMean (class token and mean of the patch tokens). Default: CLS, as in eva."""


class Task(Spec):
    """One labelled data set."""

    name: TaskName
    """Data set: BACH, CRC, MHIST, PCam, CoNSeP in their official formats; TP53: slides with a label; your own as PatchClassification or
    PatchSegmentation."""
    data: Url
    """Folder of the data set; of TP53, its manifest (.csv or .parquet with the columns `url`, `patient`, `label`)."""
    label: Annotated[str, Field(max_length=32, pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*)?$")] = ""
    """Name in the results, where the same kind appears twice. Empty: the task's name."""


class EvalTemplate(Spec):
    """What to evaluate on, how, and where."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "self.tasks.all(t, self.tasks.exists_one(u, (u.label == '' ? u.name : u.label) == (t.label == '' ? t.name : t.label)))",
            "tasks: names must be unique; give a label to tasks of the same kind",
            lambda s: len({t.label or t.name for t in s.tasks}) == len(s.tasks),
        ),
    )

    tasks: Annotated[list[Task], Field(min_length=1, max_length=16)]
    """Data sets."""
    protocol: Literal["Eva", "Paper"] = "Eva"
    """Eva (kaiko-eva 0.4.5: AdamW 3e-4, batch 256) or Paper (arXiv 2404.15217: SGD 0.01 at batch 4096, cosine). Default: Eva, whose public
    leaderboard the scores can be held against."""
    runs: Annotated[int, Field(ge=1, le=100)] = 5
    """Probes with different seeds. Default: 5, as in arXiv 2404.15217."""
    max_steps: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Steps of a probe. Null: the protocol's 12,500, and 2,000 for a decoder."""
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    """Images at once when features are computed; scores do not depend on it."""
    image_size_px: Annotated[int, Field(ge=16, le=2048)] = 224
    """Images are resized and centre-cropped to this edge; patches of slides and of your own masks are cut at it. Default: 224 (eva)."""
    seed: Annotated[int, Field(ge=0, le=2**53)] = 0
    """Seed of the first probe; the others count up."""
    storage: Storage = Storage()
    """How to reach data, model and results."""
    compute: common.Compute = common.Compute()
    """Where the pod goes and what it gets."""
    run_policy: common.RunPolicy = common.RunPolicy()
    """What the operator does when something goes wrong, or when it is over."""


class EvalSpec(EvalTemplate):
    """Score a model by linear probes, or decoders for segmentation, on frozen features."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *EvalTemplate.rules,
        Rule(
            "self.model == oldSelf.model && self.tasks == oldSelf.tasks && self.results == oldSelf.results",
            "model, tasks and results are immutable: scores would not belong together; make a new PathoEval",
            lambda new, old: (new.model, new.tasks, new.results) == (old.model, old.tasks, old.results),
            transition=True,
        ),
    )

    model: EvalModel
    """The model to evaluate."""
    results: Url
    """Folder for results.json, the report and cached features."""
