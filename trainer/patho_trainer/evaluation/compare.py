"""Two evaluations side by side: differences with their spread, and everything that makes them incomparable. Pure but for `load`."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import pydantic

from patho_trainer import errors
from patho_trainer.data import storage, urls
from patho_trainer.evaluation import results
from patho_trainer.evaluation.results import Results, TaskOutcome

ERRORS = 2.0  # standard errors of a difference that may be chance


@dataclasses.dataclass(frozen=True)
class Difference:
    """A task of both. `error` is the standard error of the difference of the means, None where a side has one run only."""

    task: str
    a: TaskOutcome
    b: TaskOutcome

    @property
    def change(self) -> float:
        """Mean of b less mean of a."""
        return self.b.mean - self.a.mean

    @property
    def error(self) -> float | None:
        """Standard error of the change over the runs (Welch)."""
        if min(len(self.a.runs), len(self.b.runs)) < 2:
            return None
        return math.sqrt(self.a.std**2 / len(self.a.runs) + self.b.std**2 / len(self.b.runs))

    @property
    def verdict(self) -> str:
        """better, worse or within the spread; empty where there is no spread to tell."""
        if self.error is None:
            return ""
        if abs(self.change) <= ERRORS * self.error:
            return "within the spread"
        return "better" if self.change > 0 else "worse"


def load(url: str, bucket: storage.Bucket) -> Results:
    """The results at `url`, a file or the folder that holds it. Raises NotFound, and InvalidConfiguration for another kind of file."""
    file = url if url.endswith(".json") else urls.join(url, results.FILE)
    try:
        return Results.model_validate_json(bucket.read(file))
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise errors.InvalidConfiguration(f"{file} holds no results that this release can read ({where}: {first['msg']})") from error


def differences(a: Results, b: Results) -> list[Difference]:
    """The tasks that both have, by label, in the order of a."""
    others = {task.task: task for task in b.tasks}
    return [Difference(task.task, task, others[task.task]) for task in a.tasks if task.task in others]


def warnings(a: Results, b: Results) -> list[str]:
    """Sentences on what differs beside the weights: protocols, data, preprocessing, versions, tasks that only one has."""
    found = []
    if a.protocol != b.protocol:
        found.append(f"protocols differ: {a.protocol} and {b.protocol}: such scores are not comparable")
    for label, key in (("image sizes", "image_size_px"), ("poolings", "pooling"), ("normalizations", "normalization")):
        left, right = getattr(a.model, key), getattr(b.model, key)
        if left != right:
            found.append(f"{label} differ: {_said(left)} and {_said(right)}")
    for each in differences(a, b):
        found += _of_task(each)
    for name, here, there in (("a", a, b), ("b", b, a)):
        alone = sorted({t.task for t in here.tasks} - {t.task for t in there.tasks})
        if alone:
            found.append(f"only {name} has {', '.join(alone)}")
    changed = [f"{package} {a.versions.get(package, 'none')} and {b.versions.get(package, 'none')}" for package in _packages(a, b)]
    return found + ([f"versions differ: {', '.join(changed)}"] if changed else [])


def _of_task(each: Difference) -> list[str]:
    a, b = each.a, each.b
    found = []
    if (a.kind, a.metric) != (b.kind, b.metric):
        found.append(f"{each.task}: {a.kind} by {a.metric} and {b.kind} by {b.metric}: another thing is measured")
    if a.samples != b.samples or a.classes != b.classes:
        found.append(f"{each.task}: the data differ: {_said(a.samples)} and {_said(b.samples)}")
    elif a.data_version != b.data_version:
        found.append(f"{each.task}: the images may differ (another place or other entity tags): {a.data} and {b.data}")
    if a.preprocessing != b.preprocessing:
        found.append(f"{each.task}: preprocessing differs: {a.preprocessing} and {b.preprocessing}")
    recipe = [k for k in {**a.recipe, **b.recipe} if a.recipe.get(k) != b.recipe.get(k)]
    if recipe:
        said = ", ".join(f"{key} {a.recipe.get(key)} and {b.recipe.get(key)}" for key in recipe)
        found.append(f"{each.task}: recipes differ: {said}")
    if len(a.runs) != len(b.runs):
        found.append(f"{each.task}: {len(a.runs)} and {len(b.runs)} runs")
    return found


def _packages(a: Results, b: Results) -> Iterable[str]:
    return [p for p in {**a.versions, **b.versions} if a.versions.get(p) != b.versions.get(p)]


def _said(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count:,} {split}" for split, count in value.items())
    return f"mean {value.mean}, std {value.std}" if hasattr(value, "mean") else str(value)
