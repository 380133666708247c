"""Which checkpoint a PathoEval evaluates. Pure."""

import dataclasses

import pydantic

from patho_api import names, resource
from patho_api.common import Storage
from patho_api.evaluate import EvalSpec, PretrainRef
from patho_api.pretrain import PretrainSpec
from patho_api.status import PretrainStatus
from patho_operator.observed import Json, Observed
from patho_operator.subject import Subject, status_of


@dataclasses.dataclass(frozen=True)
class Model:
    """A resolved model (`url` set), or why there is none yet (`waiting` set, a sentence)."""

    url: str = ""
    storage: Storage | None = None  # of the PathoPretrain's checkpoints, for a PathoEval that names none
    waiting: str = ""


def resolve(subject: Subject, observed: Observed) -> Model:
    """The model of a PathoEval; empty for a PathoPretrain. Once resolved it stays: a run goes on making newer checkpoints."""
    if subject.resource is None or not isinstance(spec := subject.resource.spec, EvalSpec):
        return Model()
    if spec.model.pretrain is None:
        return Model(url=spec.model.url or spec.model.timm)
    storage = None if spec.storage != Storage() else _storage(observed.pretrain)
    known = getattr(subject.status, "model_url", "") or max((j.model_url for j in observed.jobs), default="")
    found = Model(url=known) if known else _checkpoint(spec.model.pretrain, observed.pretrain)
    return dataclasses.replace(found, storage=storage)


def _checkpoint(reference: PretrainRef, pretrain: Json | None) -> Model:
    if pretrain is None:
        return Model(waiting=f"PathoPretrain {reference.name} does not exist: create it, or correct spec.model.pretrain.name")
    known = status_of(pretrain)
    saved = known.checkpoint if isinstance(known, PretrainStatus) else None
    latest = saved.latest if saved else None
    if latest is None:
        return Model(waiting=f"PathoPretrain {reference.name} has no checkpoint yet: this starts with its first one")
    if reference.checkpoint == "Latest":
        return Model(url=latest.url)
    if reference.checkpoint == "Best":
        best = saved.best if saved else None
        return (
            Model(url=best.url)
            if best
            else Model(waiting=f"PathoPretrain {reference.name} has no best checkpoint yet: use Latest or a step")
        )
    step = int(reference.checkpoint)
    if latest.step < step:
        return Model(
            waiting=f"PathoPretrain {reference.name} has reached step {latest.step} of the wanted {step}: this starts when it is saved"
        )
    return Model(url=names.checkpoint_url(_root(latest.url), step))


def _root(url: str) -> str:
    """The folder of all checkpoints, from the url of one."""
    return url.rstrip("/").rpartition("/")[0]


def _storage(pretrain: Json | None) -> Storage | None:
    """How the PathoPretrain reaches its checkpoints."""
    spec = pretrain_spec(pretrain)
    return (spec.checkpoints.storage or spec.slides.storage) if spec else None


def pretrain_spec(pretrain: Json | None) -> PretrainSpec | None:
    """The specification of a PathoPretrain; None if there is none, or none that this release can read."""
    try:
        return PretrainSpec.model_validate((pretrain or {}).get("spec") or {})
    except pydantic.ValidationError:
        return None


def waits_for(spec: object) -> str:
    """Name of the PathoPretrain that a specification refers to; empty if none."""
    if isinstance(spec, EvalSpec) and spec.model.pretrain is not None:
        return spec.model.pretrain.name
    return ""


def wanted_step(spec: object) -> int | None:
    """The step of a PathoPretrain that a specification refers to; None if it names none."""
    reference = spec.model.pretrain if isinstance(spec, EvalSpec) else None
    return int(reference.checkpoint) if reference and reference.checkpoint.isdigit() else None


def pretrain_name(body: Json) -> str:
    """The same from a body whose specification may be invalid."""
    if body.get("kind") != names.EVAL:
        return ""
    try:
        return waits_for(resource.parse(dict(body)).spec)
    except resource.InvalidResource:
        return ""
