"""Merging a user's overlay into the operator's pod template: dictionaries deeply, lists of named things by name."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# What identifies an element of a list, in the order tried. Other lists are replaced as a whole.
IDENTITIES = ("mountPath", "name")


def merge(base: Any, over: Any) -> Any:
    """`base` with `over` on top; null in `over` removes a key. Neither is changed."""
    if isinstance(base, Mapping) and isinstance(over, Mapping):
        return _merge_dicts(base, over)
    identity = _identity(base, over)
    if identity:
        return _merge_lists(base, over, identity)
    return over


def ignored(over: Any, result: Any, path: str = "") -> Iterator[str]:
    """Paths of the values in `over` that did not make it into `result`: what the operator owns."""
    if isinstance(over, Mapping) and isinstance(result, Mapping):
        for key, value in over.items():
            if value is None and key not in result:
                continue
            yield from ignored(value, result.get(key), f"{path}.{key}" if path else key)
    elif identity := _identity(over, result):
        found = {item[identity]: item for item in result}
        for item in over:
            yield from ignored(item, found.get(item[identity]), f"{path}[{item[identity]}]")
    elif over != result:
        yield path


def without_named(template: Mapping[str, Any], field: str, taken: set[str]) -> dict[str, Any]:
    """A pod template whose spec's list `field` lacks the elements with these names, and those without any: they would replace ours."""
    given = template.get("spec")
    if not isinstance(given, Mapping):
        return {key: value for key, value in template.items() if key != "spec"}
    spec, found = dict(given), given.get(field)
    spec.pop(field, None)
    kept = [
        item
        for item in (found if isinstance(found, list) else [])
        if isinstance(item, Mapping) and isinstance(name := item.get("name"), str) and name not in {"", *taken}
    ]
    if kept:
        spec[field] = kept
    return {**template, "spec": spec}


def _merge_dicts(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = {key: value for key, value in base.items() if not (key in over and over[key] is None)}
    for key, value in over.items():
        if value is not None:
            merged[key] = merge(merged[key], value) if key in merged else value
    return merged


def _merge_lists(base: Sequence[Any], over: Sequence[Any], identity: str) -> list[Any]:
    changes = {item[identity]: item for item in over}
    merged = [merge(item, changes.pop(item[identity])) if item[identity] in changes else item for item in base]
    return merged + list(changes.values())


def _identity(first: Any, second: Any) -> str | None:
    """What identifies the elements of both lists; None if they are not lists of identified things."""
    if not (isinstance(first, list) and isinstance(second, list) and first and second):
        return None
    items = [*first, *second]
    return next((name for name in IDENTITIES if all(isinstance(i, Mapping) and isinstance(i.get(name), str) for i in items)), None)
