"""Urls that climb out of their folder, in every field that takes one: cases for tests/api/cases.py."""

from typing import Any

CLIMBING = ("s3://b/a/../../c", "gs://b/..", "az://b/%2e%2E/c")
SAYS = "'..' leads nowhere in a bucket: write the path from its root"


def _template(url: str) -> list[dict[str, Any]]:
    return [{"name": "probe", "everySteps": 10, "template": {"tasks": [{"name": "BACH", "data": url}]}}]


def pretrains() -> list[tuple[str, dict[str, Any], str]]:
    """(title, changes, field) for a PathoPretrain."""
    url = CLIMBING[0]
    fields: list[tuple[dict[str, Any], str]] = [
        *(({"spec.slides.source": each}, "spec.slides.source") for each in CLIMBING),
        ({"spec.slides.index": url}, "spec.slides.index"),
        ({"spec.slides.foreground": {"method": "Masks", "masksUrl": f"{url}/{{id}}.png"}}, "spec.slides.foreground.masksUrl"),
        ({"spec.model": {"init": {"source": "URL", "url": url}}}, "spec.model.init.url"),
        ({"spec.checkpoints.url": url}, "spec.checkpoints.url"),
        ({"spec.evaluations": _template(url)}, "spec.evaluations[0].template.tasks[0].data"),
    ]
    return [(f"{next(iter(changes.values()))} climbs", changes, field) for changes, field in fields]


def evals() -> list[tuple[str, dict[str, Any], str]]:
    """The same for a PathoEval."""
    url = CLIMBING[0]
    fields: list[tuple[dict[str, Any], str]] = [
        ({"spec.model": {"url": url}}, "spec.model.url"),
        ({"spec.tasks": [{"name": "BACH", "data": url}]}, "spec.tasks[0].data"),
        ({"spec.results": url}, "spec.results"),
    ]
    return [(f"{field} climbs", changes, field) for changes, field in fields]
