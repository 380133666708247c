"""The two manifests of the demo: small enough for a laptop's CPU, the same fields as a real run."""

from typing import Any

from patho_api import common, names

RUN = "demo"
STEPS = 48
BATCH = 24
PATCH_PX = 128


def pretrain(storage: common.Storage, steps: int) -> dict[str, Any]:
    """DINO on a tiny ViT with small crops: two processes, three magnifications, a checkpoint every tenth of the run or so."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.PRETRAIN,
        "metadata": {"name": RUN},
        "spec": {
            "method": "DINO",
            "model": {"architecture": "test_vit"},
            "slides": {"source": "s3://demo/slides/", "index": "s3://demo/index", "storage": _storage(storage)},
            "patches": {"sizePx": PATCH_PX, "magnifications": [{"mpp": 0.5}, {"mpp": 1.0}, {"mpp": 2.0}], "windowSteps": 4},
            "training": {
                "steps": steps,
                "batchSize": BATCH,
                "precision": "Float32",
                # a teacher that follows in tens of steps and is sharp enough not to end up uniform: one slide has little to tell apart
                "learningRate": 5e-4,
                "teacherMomentum": 0.96,
                "teacherTemperatureStart": 0.02,
                "teacherTemperature": 0.02,
                "prototypes": 128,
                "headHiddenWidth": 256,
                "headBottleneckWidth": 64,
                "crops": {"globalSizePx": 64, "localSizePx": 32, "localCount": 4},
                "monitorEverySteps": max(1, steps // 3),
            },
            "checkpoints": {"url": "s3://demo/runs/demo", "everySteps": max(1, steps // 6), "keep": 2},
            "compute": {"nodes": 1, "processesPerNode": 2},
        },
    }


def evaluate(storage: common.Storage, checkpoint_url: str) -> dict[str, Any]:
    """A linear probe of a checkpoint on the patches that the demo cut out of three tissues."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": names.EVAL,
        "metadata": {"name": f"{RUN}-probe"},
        "spec": {
            "model": {"url": checkpoint_url},
            "tasks": [{"name": "PatchClassification", "data": "s3://demo/labelled", "label": "tissue"}],
            "runs": 5,
            "imageSizePx": 64,
            "results": "s3://demo/evals/demo",
            "storage": _storage(storage),
        },
    }


def _storage(storage: common.Storage) -> dict[str, Any]:
    return {"endpoint": storage.endpoint, "region": storage.region}
