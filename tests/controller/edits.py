"""Edits out of a definition's schema: every field, with its bounds, what lies beyond them, what it may be, and what it may not."""

import copy
import itertools
from collections.abc import Iterator
from typing import Any

from patho_api import crd

Path = tuple[str | int, ...]
STRANGE: list[Any] = [None, "", "x" * 5000, "\u0000/../ü", -1, 0, 2**63, 1.5, True, [], {}, [None], {"a": {"b": []}}]
BOUNDS = [("minimum", 0), ("minimum", -1), ("maximum", 0), ("maximum", 1)]


def schema(kind: str) -> dict[str, Any]:
    """Of the specification."""
    found: dict[str, Any] = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def fields(schema: dict, path: Path = ()) -> Iterator[tuple[Path, dict]]:
    """Every field of a schema, and the first item of every list."""
    for name, node in schema.get("properties", {}).items():
        yield (*path, name), node
        yield from fields(node, (*path, name))
    if "items" in schema:
        yield (*path, 0), schema["items"]
        yield from fields(schema["items"], (*path, 0))


def values(node: dict) -> list[Any]:
    """What to try in a field: its bounds, what lies beyond them, all it may be, and what it may not."""
    found = [node[key] + beyond for key, beyond in BOUNDS if key in node]
    return [*found, *node.get("enum", []), *STRANGE]


def edited(body: dict, path: Path, value: Any) -> dict:
    """The body with one field of its spec changed, and what must be there for it made."""
    found = copy.deepcopy(body)
    found["metadata"]["generation"] += 1
    place: Any = found["spec"]
    for step, following in itertools.pairwise(path):
        if isinstance(place, list) and len(place) <= int(step):
            place.append({})
        if not (place[step] if isinstance(place, list) else place.get(step)):
            place[step] = [] if isinstance(following, int) else {}
        place = place[step]
    if isinstance(place, list) and not place:
        place.append(value)
    else:
        place[path[-1]] = value
    return found
