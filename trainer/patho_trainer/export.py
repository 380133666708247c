"""A checkpoint as others load it: timm's weights, their configuration, a model card."""

import json
import pathlib
from typing import Any

import pydantic

from patho_api import common, names, pretrain
from patho_trainer import best, checkpoint, config
from patho_trainer.data import storage, urls

NOT_JUDGED = "not the best checkpoint of its run by an evaluation, or none was made"
CARD = """\
# {architecture}, {method} on pathology slides

Trained by pathoscale for {step:,} steps on patches read online out of whole-slide images. Load it with timm:

```python
import timm
model = timm.create_model("{architecture}", num_classes=0, dynamic_img_size=True, img_size={size},
                          checkpoint_path="{weights}")
```

Normalisation: mean {mean}, std {std} (values 0 to 1, RGB). Image size in training: {size} px.

| | |
|---|---|
| slides | `{source}` (index version `{index}`) |
| patches | {patch} px at {mpps} um/px |
| recipe | {recipe} |
| seed | {seed} |
| score | {score} |
| checkpoint | `{url}` |
"""


def export(url: str, folder: pathlib.Path, storage_spec: common.Storage) -> list[pathlib.Path]:
    """Write model.safetensors, config.json and README.md of the checkpoint at `url` (a step's folder, or a run's: then its newest).

    Returns the paths. Raises DataNotFound where there is no complete checkpoint.
    """
    bucket = storage.Bucket(storage_spec)
    step_url = checkpoint.resolve(url, bucket)
    facts = checkpoint.config(step_url, bucket)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / "model.safetensors"
    bucket.download(urls.join(checkpoint.home(step_url, bucket), checkpoint.TEACHER), str(weights))
    settings = folder / "config.json"
    settings.write_text(json.dumps(facts, indent=1))
    card = folder / "README.md"
    card.write_text(model_card(facts, step_url, weights.name, _score(facts["step"], step_url.rpartition("/")[0], bucket)))
    return [weights, settings, card]


def model_card(facts: dict[str, Any], url: str, weights: str, score: str = NOT_JUDGED) -> str:
    """The model card of a checkpoint's config.json."""
    spec = facts["spec"]
    return CARD.format(
        architecture=facts["architecture"],
        method=facts["method"],
        step=facts["step"],
        size=facts["imageSizePx"],
        weights=weights,
        mean=facts["normalization"]["mean"],
        std=facts["normalization"]["std"],
        source=spec["slides"]["source"],
        index=facts["indexVersion"],
        patch=spec["patches"]["sizePx"],
        mpps=", ".join(str(m["mpp"]) for m in spec["patches"]["magnifications"]),
        recipe=recipe(pretrain.PretrainSpec.model_validate(spec)),
        score=score,
        seed=spec["training"]["seed"],
        url=url,
    )


def recipe(spec: pretrain.PretrainSpec) -> str:
    """The hyper-parameters that a reader looks for first; all of them are in config.json."""
    h = config.resolved(spec)
    init = spec.model.init
    start = {"Random": "random weights", "Timm": f"timm's weights `{init.tag}`", "URL": f"`{init.url}`"}[init.source]
    return (
        f"from {start}; global batch {h.batch_size:,}, {h.steps:,} steps, learning rate {h.learning_rate:.3g}, "
        f"weight decay {h.weight_decay:g} to {h.weight_decay_end:g}, "
        f"teacher momentum {h.teacher_momentum:g}, {h.prototypes:,} prototypes, {h.precision}"
    )


def _score(step: int, root: str, bucket: storage.Bucket) -> str:
    try:
        judged = best.found(root, bucket)
    except pydantic.ValidationError:  # the weights are worth no less for it
        return f"unknown: {names.best_url(root)} cannot be read"
    if judged is None or judged.step != step:
        return NOT_JUDGED
    return f"{judged.task}: {judged.score:.3f} {judged.metric}".rstrip()
