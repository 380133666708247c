import pytest
import torch

from patho_api import evaluate
from patho_trainer import errors
from patho_trainer.data import storage
from patho_trainer.evaluation import encoder
from tests.trainer.evaluation import miniatures

CPU = torch.device("cpu")


def model(**fields: object) -> evaluate.EvalModel:
    return evaluate.EvalModel.model_validate(fields)


def test_features_are_timms_own(bucket: storage.Bucket, root: str):
    loaded = encoder.load(model(url=f"{root}/vit.safetensors", architecture=miniatures.ARCHITECTURE), bucket, CPU)
    images_B3SS = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    with torch.no_grad():
        expected = miniatures.backbone().eval()(images_B3SS / 255 * 2 - 1)
    torch.testing.assert_close(loaded(images_B3SS), expected)


def test_cls_mean_appends_the_mean_of_the_patch_tokens(bucket: storage.Bucket, root: str):
    weights = {"url": f"{root}/vit.safetensors", "architecture": miniatures.ARCHITECTURE}
    cls, both = (encoder.load(model(**weights, pooling=pooling), bucket, CPU) for pooling in ("CLS", "CLSMean"))
    images_B3SS = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    features_BF = both(images_B3SS)
    assert features_BF.shape == (2, 128)
    assert torch.equal(features_BF[:, :64], cls(images_B3SS))


def test_a_checkpoint_states_its_architecture_step_and_normalization(bucket: storage.Bucket, root: str):
    miniatures.write_checkpoint(bucket, f"{root}/run/step-00000020")
    loaded = encoder.load(model(url=f"{root}/run"), bucket, CPU)
    same = encoder.load(model(url=f"{root}/vit.safetensors", architecture=miniatures.ARCHITECTURE), bucket, CPU)
    assert (loaded.architecture, loaded.step) == (miniatures.ARCHITECTURE, 20)
    assert loaded.normalization.dump() == miniatures.NORMALIZATION
    assert loaded.digest == same.digest


def test_other_weights_have_another_digest(bucket: storage.Bucket, root: str):
    miniatures.write_weights(bucket, f"{root}/other.safetensors", seed=1)
    files = [f"{root}/{name}.safetensors" for name in ("vit", "other")]
    digests = {encoder.load(model(url=url, architecture=miniatures.ARCHITECTURE), bucket, CPU).digest for url in files}
    assert len(digests) == 2


@pytest.mark.parametrize(
    ("fields", "error", "sentence"),
    [
        ({"pretrain": {"name": "run"}}, errors.InvalidConfiguration, "model.pretrain: run is a resource of a cluster.*: set model.url"),
        ({"url": "ROOT/vit.safetensors"}, errors.InvalidConfiguration, "set model.architecture to its timm name"),
        ({"url": "ROOT/none.pth", "architecture": "test_vit"}, errors.DataNotFound, "none.pth"),
        ({"url": "ROOT/norun"}, errors.DataNotFound, "norun holds no complete checkpoint"),
        ({"url": "ROOT/vit.safetensors", "architecture": "test_vit3"}, errors.InvalidConfiguration, "vit.safetensors: "),
        ({"timm": "vit_smal_patch16_224"}, errors.InvalidConfiguration, "timm has no model 'vit_smal_patch16_224'; did you mean vit_small"),
        ({"timm": "vit_small_patch16_224.dinox"}, errors.InvalidConfiguration, r"timm has no weights .*; the tags .* are .*dino"),
        ({"timm": "test_vit3"}, errors.InvalidConfiguration, "has no class token"),
    ],
)
def test_a_model_that_cannot_be_had_is_one_sentence(fields, error, sentence: str, bucket: storage.Bucket, root: str, monkeypatch):
    monkeypatch.setattr("timm.create_model", without_weights(encoder.vit.timm.create_model))
    fields = {key: value.replace("ROOT", root) if isinstance(value, str) else value for key, value in fields.items()}
    with pytest.raises(error, match=sentence) as caught:
        encoder.load(model(**fields), bucket, CPU)
    assert "\n" not in str(caught.value)


def without_weights(create):
    """timm without its hub: the architecture is real, the weights are random."""
    return lambda name, pretrained=False, **options: create(name, **options)


def test_an_unreachable_hub_says_where_to_put_the_file(bucket: storage.Bucket, monkeypatch):
    def offline(*_: object, **__: object) -> None:
        raise ConnectionError("no route to host")

    monkeypatch.setattr("timm.create_model", offline)
    with pytest.raises(
        errors.InvalidConfiguration, match=r"could not be fetched .* \(ConnectionError\): .* put the file into a bucket and set model to"
    ):
        encoder.load(model(timm="vit_small_patch16_224.dino"), bucket, CPU)


def test_an_image_size_that_patches_do_not_tile_is_refused(bucket: storage.Bucket, root: str):
    loaded = encoder.load(model(url=f"{root}/vit.safetensors", architecture=miniatures.ARCHITECTURE), bucket, CPU)
    with pytest.raises(errors.InvalidConfiguration, match="imageSizePx: 100 is not a multiple of test_vit's patch size 16: use 96"):
        encoder.check_size(loaded, 100)
