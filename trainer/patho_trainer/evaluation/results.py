"""`results.json`: the whole outcome of a PathoEval, in camelCase. This module is its schema; `Results.model_json_schema()` prints it.

Nothing in it depends on the clock or the machine: the same evaluation writes the same bytes.
"""

import importlib.metadata
from typing import Annotated, Any, Literal

from pydantic import Field

from patho_api import status
from patho_api.common import Normalization, Spec

FILE = "results.json"
BALANCED_ACCURACY, DICE = "balancedAccuracy", "dice"  # metrics; higher is better


class Run(Spec):
    """One probe."""

    seed: int
    """What its start and its order of samples are drawn from."""
    score: float
    """Of the task's metric, on the split that is reported."""
    chosen_at: float
    """The same on the split that chose the epoch."""
    best_epoch: int
    """Epochs trained up to the chosen weights."""
    steps: int
    """Steps until the run stopped."""


class TaskOutcome(Spec):
    """One task."""

    task: str
    """Label of the task."""
    kind: str
    """Its data set: MHIST, PatchClassification, ..."""
    data: str
    """Folder of the data set."""
    data_version: str
    """Digest of the addresses and entity tags of its images, or version of its slide index."""
    preprocessing: str
    """How an image gets to the model's size."""
    feature_width: int
    """Dimensions of a feature vector."""
    classes: list[str]
    """Class names; positions are the class indices."""
    samples: dict[str, int]
    """Images or patches by split."""
    chosen_on: str
    """Split that decided about early stopping."""
    scored_on: str
    """Split of the score. The same as chosen_on where the data set has no third split: then the score is a little optimistic."""
    recipe: dict[str, Any]
    """Optimizer, learning rate, batch size, steps, patience: what the protocol means at this size."""
    metric: str
    """What score, mean and std measure: balancedAccuracy, or dice without the background."""
    mean: float
    """Mean over the runs."""
    std: float
    """Sample standard deviation over the runs (n - 1), as in kaiko-eva; 0 for one run."""
    runs: list[Run]
    """Every probe."""
    confusion: list[list[float]]
    """Share of the true class (row) that was taken for a class (column), mean over the runs; of pixels in a segmentation."""
    rank_me: float
    """RankMe of the training split's features; of a segmentation, of each patch's mean token."""
    od_corr: float
    """ODCorr of the same."""

    def in_status(self) -> status.TaskResult:
        """What goes into the resource's status."""
        return status.TaskResult(
            task=self.task, metric=self.metric, mean=self.mean, std=self.std, runs=len(self.runs), samples=self.samples[self.scored_on]
        )


class ModelFacts(Spec):
    """The model that was evaluated, and what it was given."""

    source: str
    """Checkpoint folder, file or timm name."""
    architecture: str
    """timm's name."""
    step: int | None
    """Training step of a pathoscale checkpoint."""
    run: str = ""
    """Folder of the run that a pathoscale checkpoint belongs to."""
    weights_digest: str
    """Digest of the weights."""
    pooling: str
    """CLS, or CLSMean: class token and mean of the patch tokens."""
    image_size_px: int
    """Edge of the image that the model saw."""
    normalization: Normalization
    """Channel statistics."""


class Results(Spec):
    """The file."""

    schema_version: Literal[2] = 2
    """Grows when a field changes its meaning."""
    protocol: str
    """Name and source of the protocol. Numbers of different protocols or versions of kaiko-eva are not comparable."""
    model: ModelFacts
    """What was evaluated."""
    tasks: Annotated[list[TaskOutcome], Field(min_length=1)]
    """Outcome of each task."""
    rank_me: float
    """Mean of the tasks' RankMe."""
    od_corr: float
    """Mean of the tasks' ODCorr."""
    versions: dict[str, str]
    """Versions of the packages that the numbers come from."""


def versions(cuda: str | None) -> dict[str, str]:
    """Versions of what computes features and probes; `cuda` is the one that torch was built for."""
    found = {package: importlib.metadata.version(package) for package in ("pathoscale", "torch", "timm", "numpy", "pillow")}
    return found | ({"cuda": cuda} if cuda else {})


def file(results: Results) -> bytes:
    """The bytes of results.json."""
    return results.model_dump_json(by_alias=True, indent=2).encode() + b"\n"
