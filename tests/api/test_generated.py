"""Generated files equal what the models generate, and read like a manual."""

import pathlib

import pytest

from patho_api import crd, names, pretrain

ROOT = pathlib.Path(__file__).parents[2]
GENERATED = crd.files()


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_up_to_date(name):
    assert (ROOT / name).read_text(encoding="utf-8") == GENERATED[name], "run: make generate"


@pytest.mark.parametrize("folder", crd.FOLDERS)
def test_no_other_definition_lies_beside_the_generated_ones(folder):
    assert {path.name for path in (ROOT / folder).iterdir()} == {f"{plural}.yaml" for plural in names.PLURALS.values()}


@pytest.mark.parametrize("kind", names.PLURALS)
def test_every_field_has_a_description(kind):
    silent = [path for path, node in fields(kind) if not node.get("description")]
    assert silent == ["metadata"]


@pytest.mark.parametrize("kind", names.PLURALS)
def test_strings_and_lists_of_a_specification_have_a_maximum_length(kind):
    limits = {"string": "maxLength", "array": "maxItems"}
    bounded = [(path, node) for path, node in fields(kind) if path.startswith("spec") and "enum" not in node]
    assert [path for path, node in bounded if node.get("type") in limits and limits[node["type"]] not in node] == []


def test_a_default_is_told_and_kept():
    size = dict(fields(names.PRETRAIN))["spec.training.crops.localCount"]
    assert size["default"] == 8
    assert "Default: 8" in size["description"]


def test_a_null_stands_for_absent_so_that_rules_can_ask_with_has():
    per_slide = dict(fields(names.PRETRAIN))["spec.patches.perSlide"]
    assert "nullable" not in per_slide
    assert "default" not in per_slide


def test_an_exclusive_bound_is_written_as_openapi_wants_it():
    mpp = crd.schema(pretrain.Magnification)["properties"]["mpp"]
    assert (mpp["minimum"], mpp["exclusiveMinimum"]) == (0, True)


def test_transition_rules_stand_where_the_old_value_is_known():
    rules = dict(fields(names.PRETRAIN))["spec"]["x-kubernetes-validations"]
    assert [r["rule"] for r in rules if "oldSelf.checkpoints.url" in r["rule"]]
    elsewhere = [path for path, node in fields(names.PRETRAIN) if "oldSelf" in str(node.get("x-kubernetes-validations")) and path != "spec"]
    assert elsewhere == []


def fields(kind):
    """(dotted path, schema) of every field of a kind; [] marks the items of a list."""
    root = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    waiting = [("", root)]
    while waiting:
        path, node = waiting.pop()
        inner = node["items"] if node.get("type") == "array" else node
        for name, child in inner.get("properties", {}).items():
            below = f"{path}{'[]' if inner is not node else ''}.{name}".lstrip(".")
            yield below, child
            waiting.append((below, child))
