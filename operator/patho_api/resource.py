"""A PathoPretrain or PathoEval as read from YAML or from the API server."""

import dataclasses
import difflib
import json
import re
import typing
from collections.abc import Iterator
from typing import Any

import pydantic
import yaml

from patho_api import names
from patho_api.common import Spec
from patho_api.evaluate import EvalSpec
from patho_api.pretrain import PretrainSpec

SPECS: dict[str, type[PretrainSpec] | type[EvalSpec]] = {names.PRETRAIN: PretrainSpec, names.EVAL: EvalSpec}
DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


class InvalidResource(ValueError):
    """A manifest that cannot be used; the message is one sentence a line, each with the field, the value and the way out."""


@dataclasses.dataclass(frozen=True)
class Resource:
    """One resource. `uid` and `generation` are empty and 0 outside a cluster."""

    kind: str
    name: str
    spec: PretrainSpec | EvalSpec
    namespace: str = "default"
    uid: str = ""
    generation: int = 0


def parse(body: dict[str, Any]) -> Resource:
    """A resource from its JSON body. Raises InvalidResource."""
    kind = body.get("kind")
    if body.get("apiVersion") != names.API_VERSION or kind not in SPECS:
        raise InvalidResource(
            f"apiVersion {body.get('apiVersion')!r}, kind {kind!r}: expected {names.API_VERSION} and {' or '.join(SPECS)}"
        )
    metadata = body.get("metadata") or {}
    name = metadata.get("name", "")
    if not (DNS_1035.fullmatch(name) and len(name) <= names.MAX_NAME_LENGTH):
        raise InvalidResource(
            f"metadata.name {name!r}: lower-case letters, digits and '-', starting with a letter, "
            f"at most {names.MAX_NAME_LENGTH} characters, because pods are named after it"
        )
    try:
        # through JSON and strict, because that is how the API server reads: "100" is not a number, null is as good as absent
        spec = SPECS[kind].model_validate_json(json.dumps(body.get("spec") or {}, default=str), strict=True)
    except pydantic.ValidationError as error:
        raise InvalidResource("\n".join(sentences(error))) from error
    return Resource(
        kind=kind,
        name=name,
        spec=spec,
        namespace=metadata.get("namespace") or "default",
        uid=metadata.get("uid", ""),
        generation=metadata.get("generation", 0),
    )


def load(path: str) -> list[Resource]:
    """The resources of a YAML file, in order; other kinds are left out. Raises InvalidResource, OSError."""
    with open(path, encoding="utf-8") as file:
        try:
            documents = [d for d in yaml.safe_load_all(file) if isinstance(d, dict)]
        except yaml.YAMLError as error:
            raise InvalidResource(f"{path} is not YAML: {error}") from error
    ours = [d for d in documents if str(d.get("apiVersion", "")).startswith(names.GROUP) or d.get("kind") in SPECS]
    if not ours:
        raise InvalidResource(f"{path} holds no {' or '.join(SPECS)}")
    return [parse(d) for d in ours]


def validate_update(old: Spec, new: Spec) -> list[str]:
    """Sentences for the transition rules that `new` breaks (the Python twin of the CEL rules with oldSelf)."""
    return [rule.message for rule in new.rules if rule.transition and not rule.check(new, old)]


def sentences(error: pydantic.ValidationError) -> list[str]:
    """One sentence for each problem: field, value, way out."""
    return [_sentence(problem, error.title) for problem in error.errors()]


def _sentence(problem: Any, kind: str) -> str:
    field = "spec" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"{field}: there is no such field{_instead(kind, str(problem['loc'][-1]), field)}"
    if problem["type"] == "missing":
        return f"{field}: required, but not set"
    if problem["type"] == "value_error":
        return f"{field}: {problem['ctx']['error']}"
    return f"{field}: {problem['input']!r} is wrong: {problem['msg']}"


def _instead(kind: str, name: str, field: str) -> str:
    """The existing field that was meant, as far as can be guessed; `kind` is the title of the specification's model."""
    known = [path for spec in SPECS.values() if spec.__name__ == kind for path in _paths(spec, "spec")]
    names_of = {path.rpartition(".")[2].lower(): path.rpartition(".")[2] for path in known}
    close = difflib.get_close_matches(name.lower(), names_of, n=1, cutoff=0.75)
    found = [path for path in known if close and path.endswith(f".{names_of[close[0]]}")]
    found.sort(key=lambda path: path.rpartition(".")[0] != field.rpartition(".")[0])  # of the same parent first
    return f"; did you mean {found[0]}?" if found else "; docs/api.md and `kubectl explain` list all"


def _paths(model: type[pydantic.BaseModel], prefix: str) -> Iterator[str]:
    """Every field of a specification: `spec.training.batchSize`."""
    for name, info in model.model_fields.items():
        path = f"{prefix}.{info.alias or name}"
        yield path
        for part in (info.annotation, *typing.get_args(info.annotation)):
            if isinstance(part, type) and issubclass(part, pydantic.BaseModel):
                yield from _paths(part, path)
