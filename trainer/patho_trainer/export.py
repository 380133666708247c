"""A checkpoint as others load it: timm's weights, their configuration, a model card."""

import json
import pathlib
from typing import Any

from patho_api import common
from patho_trainer import checkpoint
from patho_trainer.data import storage, urls

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
| global batch | {batch} |
| seed | {seed} |
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
    config = folder / "config.json"
    config.write_text(json.dumps(facts, indent=1))
    card = folder / "README.md"
    card.write_text(model_card(facts, step_url, weights.name))
    return [weights, config, card]


def model_card(facts: dict[str, Any], url: str, weights: str) -> str:
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
        batch=spec["training"]["batchSize"],
        seed=spec["training"]["seed"],
        url=url,
    )
