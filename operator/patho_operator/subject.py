"""The resource a decision is about, as the API server has it: specification (or why it is unusable) and present status. Pure."""

import dataclasses
from typing import Any

import pydantic

from patho_api import names, resource, status, support
from patho_operator import manifests
from patho_operator.observed import Json, Key

Status = status.PretrainStatus | status.EvalStatus
STATUSES: dict[str, type[Status]] = {names.PRETRAIN: status.PretrainStatus, names.EVAL: status.EvalStatus}


@dataclasses.dataclass(frozen=True)
class Subject:
    """One PathoPretrain or PathoEval."""

    key: Key
    uid: str
    generation: int
    resource_version: str
    deleting: bool
    resource: resource.Resource | None  # None: the specification is invalid
    refusals: tuple[str, ...]  # why it cannot be run, one sentence each
    notes: tuple[str, ...]  # what has no effect, one sentence each
    status: Status
    raw_status: Json


def parse(body: Json) -> Subject:
    """A subject from its JSON."""
    metadata = body["metadata"]
    found, refusals, notes = _specification(body)
    raw = body.get("status") or {}
    return Subject(
        key=Key(body["kind"], metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        generation=metadata.get("generation", 0),
        resource_version=metadata.get("resourceVersion", ""),
        deleting="deletionTimestamp" in metadata,
        resource=found,
        refusals=refusals,
        notes=notes,
        status=_status(body["kind"], raw),
        raw_status=raw,
    )


def _specification(body: Json) -> tuple[resource.Resource | None, tuple[str, ...], tuple[str, ...]]:
    try:
        found = resource.parse(dict(body))
    except resource.InvalidResource as error:
        return None, tuple(str(error).splitlines()), ()
    notes = [*support.notes(found.spec), *manifests.ignored(found)]
    return found, (*support.refusals(found.spec), *manifests.refused(found)), tuple(notes)


def _status(kind: str, raw: Json) -> Status:
    """The status; parts that this release cannot read (another release wrote them) are dropped rather than fatal."""
    kept: dict[str, Any] = dict(raw)
    while True:
        try:
            return STATUSES[kind].model_validate(kept)
        except pydantic.ValidationError as error:
            for problem in error.errors():
                kept.pop(str(problem["loc"][0]), None)
