"""What is accepted and what is refused: one table, proven against the Python models (here) and against an API server (tests/cluster).

A case is a valid resource with a few changes. For a refused one it says which field the message must name, and a fragment of its
sentence: the same from both, or the API server's own where the wording differs.
"""

import copy
import dataclasses
from typing import Any

from patho_api import names
from tests.api import hostile

Body = dict[str, Any]
REMOVED = object()


@dataclasses.dataclass(frozen=True)
class Case:
    """`changes` maps dotted paths to values; `says` is empty if the resource is accepted; an update has `then` on top of `changes`."""

    title: str
    kind: str
    changes: dict[str, Any] = dataclasses.field(default_factory=dict)
    then: dict[str, Any] = dataclasses.field(default_factory=dict)
    field: str = ""
    says: str = ""
    server_says: str = ""

    @property
    def body(self) -> Body:
        """The resource to create."""
        return changed(VALID[self.kind], self.changes)

    @property
    def update(self) -> Body:
        """The resource to update it to."""
        return changed(self.body, self.then)

    def expected_from_server(self) -> tuple[str, str]:
        """(field, fragment) that the API server's message holds."""
        return self.field, self.server_says or self.says


VALID: dict[str, Body] = {
    names.PRETRAIN: {
        "apiVersion": names.API_VERSION,
        "kind": names.PRETRAIN,
        "metadata": {"name": "vits16"},
        "spec": {
            "slides": {"source": "gs://slides/", "index": "gs://me/index"},
            "training": {"steps": 100, "batchSize": 16},
            "checkpoints": {"url": "gs://me/runs/vits16"},
        },
    },
    names.EVAL: {
        "apiVersion": names.API_VERSION,
        "kind": names.EVAL,
        "metadata": {"name": "vits16-mhist"},
        "spec": {
            "model": {"pretrain": {"name": "vits16"}},
            "tasks": [{"name": "MHIST", "data": "gs://data/mhist"}],
            "results": "gs://me/evals/vits16",
        },
    },
}


def changed(body: Body, changes: dict[str, Any]) -> Body:
    """A copy of `body` with the value at each dotted path replaced, added, or (REMOVED) taken out. A number is a list's index."""
    out = copy.deepcopy(body)
    for path, value in changes.items():
        *parents, last = (int(part) if part.isdigit() else part for part in path.split("."))
        node: Any = out
        for part in parents:
            node = node[part] if isinstance(part, int) else node.setdefault(part, {})
        if value is REMOVED:
            del node[last]
        else:
            node[last] = value
    return out


def _pretrain(title: str, changes: dict[str, Any], field: str = "", says: str = "", **more: Any) -> Case:
    return Case(title, names.PRETRAIN, changes, field=field, says=says, **more)


def _eval(title: str, changes: dict[str, Any], field: str = "", says: str = "", **more: Any) -> Case:
    return Case(title, names.EVAL, changes, field=field, says=says, **more)


def _evaluations(*names_and_steps: tuple[str, int]) -> list[Body]:
    template = {"tasks": [{"name": "BACH", "data": "gs://data/bach"}]}
    return [{"name": name, "everySteps": steps, "template": template} for name, steps in names_and_steps]


ACCEPTED = [
    _pretrain("the smallest pretraining", {}),
    _pretrain("nulls where the design shows nulls", {"spec.patches": {"perSlide": None}, "spec.compute": {"minNodes": None}}),
    _pretrain("a null instead of an object", {"spec.checkpoints.storage": None}),
    _pretrain("quantities as numbers and strings", {"spec.compute.resources": {"limits": {"nvidia.com/gpu": 8, "cpu": "48"}}}),
    _pretrain("whole numbers where fractions are meant", {"spec.patches": {"magnifications": [{"mpp": 1}, {"mpp": 2, "weight": 3}]}}),
    _pretrain("an elastic run", {"spec.compute": {"nodes": 4, "minNodes": 2}}),
    _pretrain("weights from timm", {"spec.model": {"init": {"source": "Timm", "tag": "dino"}}}),
    _pretrain("anything in the pod template", {"spec.compute": {"podTemplate": {"spec": {"hostIPC": False, "volumes": [{"name": "x"}]}}}}),
    _pretrain("tolerations as in a pod", {"spec.compute": {"tolerations": [{"key": "gpu", "operator": "Exists"}]}}),
    _pretrain("evaluations of checkpoints", {"spec.evaluations": _evaluations(("bach", 5000), ("bach-late", 25000))}),
    _pretrain("a name of forty characters", {"metadata.name": "a" * names.MAX_NAME_LENGTH}),
    _eval("the smallest evaluation", {}),
    _eval("a step as a number", {"spec.model.pretrain.checkpoint": 2500}),
    _eval("a step as a string", {"spec.model.pretrain.checkpoint": "2500"}),
    _eval("a file with its architecture", {"spec.model": {"url": "gs://m/vit.safetensors", "architecture": "vit_small_patch16_224"}}),
    _eval("a timm model", {"spec.model": {"timm": "vit_small_patch16_224.dino"}}),
    _eval(
        "two tasks of a kind with labels",
        {
            "spec.tasks": [
                {"name": "PatchClassification", "data": "gs://d/a", "label": "a"},
                {"name": "PatchClassification", "data": "gs://d/b", "label": "b"},
            ]
        },
    ),
    _pretrain("a path of this machine and dots that do not climb", {"spec.slides": {"source": "../slides/", "index": "gs://b/a..b/..c/"}}),
    _pretrain("dots in a file url", {"spec.slides.source": "file:///mnt/a/../slides/"}),
]

_AT_LEAST_1 = "greater than or equal to 1"
_NO_FIELD = {"says": "no such field", "server_says": "unknown field"}
_TYPE = "must be of type"

REFUSED = [
    _pretrain("a mistyped section", {"spec.trainig": {"steps": 5}}, "spec.trainig", **_NO_FIELD),
    _pretrain("a mistyped field", {"spec.patches": {"sizePX": 256}}, "spec.patches.sizePX", **_NO_FIELD),
    _pretrain(
        "a mistyped field in a list",
        {"spec.patches": {"magnifications": [{"mmp": 0.5, "mpp": 1}]}},
        "spec.patches.magnifications[0].mmp",
        **_NO_FIELD,
    ),
    _pretrain("no slides", {"spec.slides": REMOVED}, "spec.slides", "required", server_says="Required value"),
    _pretrain(
        "no place for checkpoints", {"spec.checkpoints.url": REMOVED}, "spec.checkpoints.url", "required", server_says="Required value"
    ),
    _pretrain("an empty url", {"spec.slides.source": ""}, "spec.slides.source", "at least 1 char", server_says="at least 1 char"),
    _pretrain(
        "a url of 1,025 characters", {"spec.slides.source": "x" * 1025}, "spec.slides.source", "at most 1024", server_says="Too long"
    ),
    _pretrain("no nodes", {"spec.compute": {"nodes": 0}}, "spec.compute.nodes", _AT_LEAST_1),
    _pretrain("a number in quotes", {"spec.training.steps": "100"}, "spec.training.steps", "valid integer", server_says=_TYPE),
    _pretrain("half a step", {"spec.training.steps": 0.5}, "spec.training.steps", "valid integer", server_says=_TYPE),
    _pretrain("a word for a boolean", {"spec.runPolicy": {"suspend": "yes"}}, "spec.runPolicy.suspend", "valid boolean", server_says=_TYPE),
    _pretrain(
        "an unknown method", {"spec.method": "MAE"}, "spec.method", "'DINO' or 'DINOv2'", server_says='supported values: "DINO", "DINOv2"'
    ),
    _pretrain(
        "a resolution of zero", {"spec.patches": {"magnifications": [{"mpp": 0}]}}, "spec.patches.magnifications[0].mpp", "greater than 0"
    ),
    _pretrain("no resolution", {"spec.patches": {"magnifications": []}}, "spec.patches.magnifications", "at least 1 item"),
    _pretrain("a share above one", {"spec.slides.fraction": 1.5}, "spec.slides.fraction", "less than or equal to 1"),
    _pretrain(
        "a mean of two channels",
        {"spec.training.normalization": {"mean": [0.5, 0.5]}},
        "spec.training.normalization.mean",
        "at least 3 items",
    ),
    _pretrain(
        "a quantity with a wrong unit",
        {"spec.compute": {"resources": {"limits": {"memory": "400GB"}}}},
        "spec.compute.resources.limits.memory",
        "match",
        server_says="should match",
    ),
    _pretrain(
        "a quantity as a fraction",
        {"spec.compute": {"resources": {"limits": {"cpu": 0.5}}}},
        "spec.compute.resources.limits.cpu",
        "valid string",
        server_says=_TYPE,
    ),
    _pretrain("a timm name with a slash", {"spec.model": {"architecture": "timm/vit"}}, "spec.model.architecture", "match"),
    _pretrain("more survivors than nodes", {"spec.compute": {"nodes": 2, "minNodes": 3}}, "spec.compute", "minNodes must not exceed nodes"),
    _pretrain("timm without a tag", {"spec.model": {"init": {"source": "Timm"}}}, "spec.model.init", "set tag, such as dino"),
    _pretrain("a url without source URL", {"spec.model": {"init": {"url": "gs://m/a.pth"}}}, "spec.model.init", "belongs to source URL"),
    _pretrain(
        "one mask for all slides",
        {"spec.slides.foreground": {"method": "Masks", "masksUrl": "gs://m/mask.png"}},
        "spec.slides.foreground",
        "write {id} or {name}",
    ),
    _pretrain("masks without a pattern", {"spec.slides.foreground": {"method": "Masks"}}, "spec.slides.foreground", "Masks needs it"),
    _pretrain(
        "a scale upside down", {"spec.training.crops": {"localScale": [0.4, 0.05]}}, "spec.training.crops", "write the smaller first"
    ),
    _pretrain(
        "a mask ratio upside down", {"spec.training.maskRatio": [0.5, 0.1]}, "spec.training", "training.maskRatio is [smallest, largest]"
    ),
    _pretrain("a micro batch above the batch", {"spec.training.microBatchSize": 17}, "spec.training", "microBatchSize must not exceed"),
    _pretrain(
        "a batch of one and a half groups", {"spec.training.lossGroupSize": 12}, "spec.training", "multiple of training.lossGroupSize"
    ),
    _pretrain(
        "a micro batch of one and a half groups",
        {"spec.training.lossGroupSize": 8, "spec.training.microBatchSize": 12},
        "spec.training",
        "takes whole groups",
    ),
    _pretrain("a warm-up longer than the run", {"spec.training.warmupSteps": 101}, "spec.training", "warmupSteps must not exceed"),
    _pretrain("fewer patches than processes", {"spec.compute": {"nodes": 4, "processesPerNode": 8}}, "spec", "at least one patch"),
    _pretrain("a crop larger than its patch", {"spec.patches": {"sizePx": 128}}, "spec", "lower globalSizePx or localSizePx"),
    _pretrain(
        "an evaluation between checkpoints", {"spec.evaluations": _evaluations(("bach", 300))}, "spec", "only checkpoints can be evaluated"
    ),
    _pretrain(
        "two evaluations of one name",
        {"spec.evaluations": _evaluations(("bach", 5000), ("bach", 25000))},
        "spec",
        "must be unique",
    ),
    _pretrain("a name of forty-one characters", {"metadata.name": "a" * 41}, "metadata.name", "at most 40 characters"),
    _pretrain("a name that starts with a digit", {"metadata.name": "8xh100"}, "metadata.name", "starting with a letter"),
    _pretrain("a name with a dot", {"metadata.name": "vit.s16"}, "metadata.name", "starting with a letter"),
    _eval("no model", {"spec.model": {}}, "spec.model", "exactly one of pretrain, url and timm"),
    _eval("two models", {"spec.model.timm": "vit_small_patch16_224.dino"}, "spec.model", "exactly one of pretrain, url and timm"),
    _eval("an architecture without a file", {"spec.model.architecture": "vit_small_patch16_224"}, "spec.model", "belongs to model.url"),
    _eval("a checkpoint by a wrong word", {"spec.model.pretrain.checkpoint": "latest"}, "spec.model.pretrain.checkpoint", "match"),
    _eval("no tasks", {"spec.tasks": []}, "spec.tasks", "at least 1 item"),
    _eval("an unknown task", {"spec.tasks.0.name": "ImageNet"}, "spec.tasks[0].name", "'BACH'", server_says='supported values: "BACH"'),
    _eval(
        "two tasks of one name",
        {"spec.tasks": [{"name": "MHIST", "data": "a"}, {"name": "MHIST", "data": "b"}]},
        "spec",
        "names must be unique",
    ),
    *(_pretrain(title, changes, field, hostile.SAYS) for title, changes, field in hostile.pretrains()),
    *(_eval(title, changes, field, hostile.SAYS) for title, changes, field in hostile.evals()),
    _eval(
        "a label that is a folder",
        {"spec.tasks": [{"name": "BACH", "data": "gs://d/", "label": ".."}]},
        "spec.tasks[0].label",
        "match",
        server_says="should match",
    ),
]


def _update(title: str, kind: str, then: dict[str, Any], says: str = "", changes: dict[str, Any] | None = None) -> Case:
    return Case(title, kind, changes or {}, then, field="spec" if says else "", says=says)


UPDATES = [
    _update("suspending", names.PRETRAIN, {"spec.runPolicy": {"suspend": True}}),
    _update("training longer", names.PRETRAIN, {"spec.training.steps": 200}),
    _update("another number of nodes", names.PRETRAIN, {"spec.compute": {"nodes": 2}}),
    _update("writing a default out", names.PRETRAIN, {"spec.method": "DINO"}),
    _update("another place for checkpoints", names.PRETRAIN, {"spec.checkpoints.url": "gs://me/runs/b"}, "checkpoints.url is immutable"),
    _update("another method", names.PRETRAIN, {"spec.method": "DINOv2"}, "method and model.architecture are immutable"),
    _update("another architecture", names.PRETRAIN, {"spec.model": {"architecture": "vit_base_patch16_224"}}, "are immutable"),
    _update("suspending an evaluation", names.EVAL, {"spec.runPolicy": {"suspend": True}}),
    _update("another checkpoint", names.EVAL, {"spec.model.pretrain.checkpoint": "Best"}, "model, tasks and results are immutable"),
    _update("another task", names.EVAL, {"spec.tasks.0.name": "CRC"}, "model, tasks and results are immutable"),
    _update("another folder for results", names.EVAL, {"spec.results": "gs://me/other"}, "model, tasks and results are immutable"),
]
