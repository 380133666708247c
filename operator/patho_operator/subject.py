"""The resource a decision is about, as the API server has it: specification (or why it is unusable) and present status. Pure."""

import dataclasses
import functools
import json
from typing import Any

import pydantic
import pydantic_core

from patho_api import names, resource, status, support
from patho_operator import manifests
from patho_operator.observed import Json, Key

Status = status.PretrainStatus | status.EvalStatus
Specification = tuple[resource.Resource | None, tuple[str, ...], tuple[str, ...], str]  # refusals, notes, hash
REMEMBERED = 2048  # specifications of 16 KiB
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
    spec_hash: str  # as in manifests.spec_hash; empty where the specification is invalid
    status: Status
    raw_status: Json


def parse(body: Json) -> Subject:
    """A subject from its JSON."""
    metadata = body["metadata"]
    found, refusals, notes, spec_hash = _specification(body)
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
        spec_hash=spec_hash,
        status=status_of(body),
        raw_status=raw,
    )


def _specification(body: Json) -> Specification:
    metadata = {name: body["metadata"].get(name) for name in ("name", "namespace", "uid", "generation")}
    parts = {"apiVersion": body["apiVersion"], "kind": body["kind"], "metadata": metadata, "spec": body.get("spec") or {}}
    return _read(pydantic_core.to_json(parts))


@functools.lru_cache(REMEMBERED)
def _read(text: bytes) -> Specification:
    """A specification from its JSON. Several turns on a resource follow each other closely."""
    try:
        found = resource.parse(json.loads(text))
    except resource.InvalidResource as error:
        return None, tuple(str(error).splitlines()), (), ""
    refused, ignored = manifests.overlay_words(found)
    return found, (*support.refusals(found.spec), *refused), (*support.notes(found.spec), *ignored), manifests.spec_hash(found)


def status_of(body: Json) -> Status:
    """The status of a resource; parts that this release cannot read (another release wrote them) are dropped rather than fatal."""
    kept: dict[str, Any] = dict(body.get("status") or {})
    while True:
        try:
            return STATUSES[body["kind"]].model_validate(kept)
        except pydantic.ValidationError as error:
            for problem in error.errors():
                kept.pop(str(problem["loc"][0]), None)
