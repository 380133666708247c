"""The paper's findings as manifests: each of them, made small, trains to its end."""

import math
import pathlib
import re

import pytest
import safetensors.torch

from patho_api import pretrain as api
from patho_api import resource
from patho_trainer import pretrain
from patho_trainer.models import vit
from tests.trainer import runs, slides

pytestmark = pytest.mark.slow
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
MANIFESTS = [found for path in sorted(EXAMPLES.glob("paper-*.yaml")) for found in resource.load(str(path))]
LEVELS = ((640, 640), (320, 320), (160, 160), (80, 80))  # 0.25, 0.5, 1 and 2 um/px
SMALL = {"8": "vit_small_patch8_224", "14": "vit_small_patch14_reg4_dinov2", "16": "test_vit"}  # by patch size in pixels


@pytest.fixture(scope="module")
def bucket(tmp_path_factory) -> pathlib.Path:
    """Ten slides that offer all magnifications, and weights to start from."""
    folder = tmp_path_factory.mktemp("findings")
    for number in range(10):
        slides.write(folder / "slides" / f"{number}.tif", slides.Recipe(LEVELS, mpp=0.25, seed=number))
    weights = vit.create(SMALL["16"]).state_dict()
    (folder / "weights.safetensors").write_bytes(safetensors.torch.save(weights))
    return folder


def made_small(spec: api.PretrainSpec, bucket: pathlib.Path, out: pathlib.Path) -> api.PretrainSpec:
    """The same run with a small model, on small patches, for two steps; what the finding is about stays."""
    patch_px = re.search(r"patch(\d+)", spec.model.architecture)[1]
    edge = 28 if patch_px == "14" else 16
    body = spec.dump()
    init = body["model"]["init"]
    if init["source"] == "Timm":  # the hub is out of reach
        known = patch_px == "16"
        init = {"source": "URL", "url": f"{bucket}/weights.safetensors"} if known else {"source": "Random"}
    body["model"] = {"architecture": SMALL[patch_px], "init": init}
    body["slides"] |= {"source": f"{bucket}/slides/", "index": f"{bucket}/index", "foreground": {"method": "None"}}
    body["patches"] |= {"sizePx": 64, "windowSteps": 1}
    body["training"] |= {"steps": 2, "batchSize": 4, "precision": "Float32", "monitorEverySteps": 100, "microBatchSize": None}
    body["training"] |= {"lossGroupSize": None, "prototypes": 64, "ibotPrototypes": 64, "headHiddenWidth": 32, "headBottleneckWidth": 16}
    body["training"]["crops"] |= {"globalSizePx": 2 * edge, "localSizePx": edge, "localCount": 2}
    body["checkpoints"] |= {"url": f"{out}/run", "everySteps": 2}
    body["compute"] = {}
    return api.PretrainSpec.model_validate(body)


@pytest.mark.parametrize("found", MANIFESTS, ids=lambda found: found.name)
def test_a_finding_of_the_paper_trains(found, bucket, tmp_path):
    with runs.process(made_small(found.spec, bucket, tmp_path), tmp_path) as ctx:
        pretrain.train(ctx)
        losses = [entry["loss"] for entry in runs.steps(ctx.space.folder)]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))


def test_every_finding_has_its_manifests():
    counts = {path.stem.removeprefix("paper-"): len(resource.load(str(path))) for path in EXAMPLES.glob("paper-*.yaml")}
    assert counts == {
        "vits16": 1,
        "vits16-dinov2": 1,
        "vitl14": 1,
        "magnification": 6,
        "initialisation": 2,
        "slides": 4,
        "patches": 5,
        "sizes": 5,
    }
