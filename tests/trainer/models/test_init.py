"""First weights from files: every layout loads, everything else is a sentence, nothing in a file runs."""

import argparse
import io
import pathlib

import huggingface_hub.constants
import pytest
import safetensors.torch
import torch

from patho_api import pretrain
from patho_trainer import errors
from patho_trainer.models import init, vit

ARCHITECTURE = "vit_tiny_patch16_224"


class Folder:
    """Reads paths as a bucket reads URLs."""

    def read(self, url):
        return pathlib.Path(url).read_bytes()


def make_backbone(size_px=32, **options):
    return vit.create(ARCHITECTURE, img_size_px=size_px, depth=2, **options)


def pth(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def prefixed(prefix, state):
    return {prefix + name: value for name, value in state.items()}


def dino_checkpoint(state):
    network = prefixed("module.backbone.", state) | {"module.head.mlp.0.weight": torch.zeros(2, 2)}
    return pth({"student": {}, "teacher": network, "epoch": 3, "args": argparse.Namespace(arch="vit_tiny")})


def dinov2_checkpoint(state):
    chunked = {name.replace("blocks.", "blocks.0.", 1) if name.startswith("blocks.") else name: value for name, value in state.items()}
    return pth({"teacher": prefixed("backbone.", chunked | {"mask_token": torch.zeros(1, 192)}) | {"dino_head.mlp.0.bias": torch.zeros(2)}})


LAYOUTS = {
    "timm.safetensors": lambda state: safetensors.torch.save(state | {"head.weight": torch.zeros(1000, 192)}),
    "timm.pth": pth,
    "timm_training.pth": lambda state: pth({"state_dict": prefixed("module.", state), "epoch": 1}),
    "dino.pth": dino_checkpoint,
    "dinov2.pth": dinov2_checkpoint,
}


@pytest.mark.parametrize("url", LAYOUTS)
def test_every_published_layout_gives_the_same_features(url):
    source, target, images = make_backbone(), make_backbone(), torch.randn(2, 3, 32, 32)
    init.load(target, LAYOUTS[url](source.state_dict()), url)
    assert torch.equal(target(images), source(images))


def test_position_embeddings_are_resampled_to_the_crops(tmp_path):
    target = make_backbone(size_px=64)
    init.load(target, pth(make_backbone(size_px=32).state_dict()), "weights.pth")
    assert target.pos_embed.shape == (1, 1 + 4 * 4, 192)


def test_weights_are_read_from_the_bucket(tmp_path):
    source = vit.create(ARCHITECTURE, img_size_px=32)
    path = tmp_path / "weights.safetensors"
    path.write_bytes(safetensors.torch.save(source.state_dict()))
    model = pretrain.Model(architecture=ARCHITECTURE, init=pretrain.Init(source="URL", url=str(path)))
    loaded = init.backbone(model, img_size_px=32, drop_path=0.1, bucket=Folder())
    assert torch.equal(loaded.cls_token, source.cls_token)


@pytest.mark.parametrize(
    ("url", "data", "sentence"),
    [
        ("a.safetensors", b"no", "a.safetensors: not a readable .safetensors or .pth file"),
        ("a.pth", b"<html>", "a.pth: not a readable .safetensors or .pth file"),
        ("a.pth", pth([1, 2]), "a.pth: holds a list, not a dictionary of weights"),
        ("a.pth", pth({"x": torch.zeros(1)}), "a.pth: not the weights of this architecture; missing cls_token, pos_embed, .* unexpected x"),
        ("a.pth", pth(vit.create(ARCHITECTURE, img_size_px=32, depth=2, embed_dim=96).state_dict()), "other shapes than the architecture"),
    ],
)
def test_a_file_that_does_not_fit_is_answered_with_a_sentence(url, data, sentence):
    with pytest.raises(errors.InvalidConfiguration, match=sentence):
        init.load(make_backbone(), data, url)


class Evil:
    """Would write a file when a careless reader unpickles it."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    with pytest.raises(errors.InvalidConfiguration, match=r"convert it to \.safetensors"):
        init.parse(pth({"model": Evil(tmp_path / "ran")}), "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_an_unknown_tag_is_answered_with_known_ones():
    model = pretrain.Model(architecture="vit_small_patch16_224", init=pretrain.Init(source="Timm", tag="dinoo"))
    with pytest.raises(errors.InvalidConfiguration, match=r"timm has no weights vit_small_patch16_224.dinoo; known are dino"):
        init.backbone(model, img_size_px=32)


def test_without_the_hub_the_error_says_which_file_to_fetch_and_what_to_set(monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    model = pretrain.Model(architecture="vit_small_patch16_224", init=pretrain.Init(source="Timm", tag="dino"))
    with pytest.raises(errors.InvalidConfiguration, match=r"could not be downloaded .* download https://.*\.pth .* {source: URL, url: "):
        init.backbone(model, img_size_px=32)
