"""Small specifications."""

from patho_api import pretrain

CROPS = {"globalSizePx": 32, "localSizePx": 16, "localCount": 2}
SMALL = {"steps": 10, "batchSize": 4, "prototypes": 32, "headHiddenWidth": 32, "headBottleneckWidth": 16, "precision": "Float32"}


def make(architecture="vit_tiny_patch16_224", init=None, method="DINO", **training):
    """A valid specification of a tiny run; `training` in camelCase."""
    return pretrain.PretrainSpec.model_validate(
        {
            "method": method,
            "model": {"architecture": architecture, "init": init or {}},
            "slides": {"source": "/slides/", "index": "/index"},
            "checkpoints": {"url": "/checkpoints"},
            "training": {"crops": CROPS} | SMALL | training,
        }
    )
