"""Weights before the first step: random, timm's by tag, or a file in timm's, DINO's or DINOv2's layout."""

import argparse
import difflib
import io
import pickle
import re
from collections.abc import Mapping
from typing import Any, Protocol

import safetensors
import safetensors.torch
import timm
import torch
from timm.models import vision_transformer

from patho_api import pretrain
from patho_trainer import errors
from patho_trainer.models import vit

_WRAPPERS = ("teacher", "model", "state_dict")  # of DINO's, DINOv2's and timm's training checkpoints
_FOREIGN = re.compile(r"^(head|fc|head_dist|dino_head|ibot_head)\.")


class Reader(Protocol):
    """What is asked of a bucket here."""

    def read(self, url: str) -> bytes: ...


def backbone(model: pretrain.Model, *, img_size_px: int, drop_path: float = 0.0, bucket: Reader | None = None) -> vit.Backbone:
    """The backbone with its first weights; random ones come from torch's global generator, which the caller seeds.

    Raises InvalidConfiguration where weights cannot be had or do not fit.
    """
    options: dict[str, Any] = {"img_size_px": img_size_px, "drop_path": drop_path}
    if model.init.source == "Timm":
        return _from_timm(model, options)
    made = vit.create(model.architecture, **options)
    if model.init.source == "URL":
        assert bucket is not None, "model.init.url needs a bucket to be read from"
        load(made, bucket.read(model.init.url), model.init.url)
    return made


def _from_timm(model: pretrain.Model, options: dict[str, Any]) -> vit.Backbone:
    name = f"{model.architecture}.{model.init.tag}"
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{model.architecture}.*")]
    if model.init.tag not in tags:
        close = difflib.get_close_matches(model.init.tag, tags, n=3) or sorted(tags)
        known = f"known are {', '.join(close)}" if close else "it has none for this architecture"
        raise errors.InvalidConfiguration(f"model.init.tag: timm has no weights {name}; {known}")
    try:
        return vit.create(name, pretrained=True, **options)
    except OSError as error:  # the hub's client derives its errors from it, like the network's and the file system's
        file = timm.get_pretrained_cfg(name).url or f"https://huggingface.co/timm/{name}/resolve/main/model.safetensors"
        raise errors.InvalidConfiguration(
            f"model.init: timm's weights {name} could not be downloaded ({type(error).__name__}); download {file} where the network "
            "allows it, copy it to your bucket and set model.init to {source: URL, url: <that file>}"
        ) from error


def load(backbone: vit.Backbone, data: bytes, url: str) -> None:
    """Load the bytes of a .safetensors or .pth file into the backbone, in place; position embeddings are resampled to its grid.

    Nothing in the file is executed. Raises InvalidConfiguration naming `url` and the first keys that do not fit.
    """
    state = backbone_state(parse(data, url))
    try:
        state = vision_transformer.checkpoint_filter_fn(dict(state), backbone)
        result = backbone.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, IndexError) as error:
        raise errors.InvalidConfiguration(f"{url}: the weights have other shapes than the architecture ({_first_line(error)})") from error
    if result.missing_keys or result.unexpected_keys:
        raise errors.InvalidConfiguration(
            f"{url}: not the weights of this architecture; missing {_some(result.missing_keys)}, unexpected {_some(result.unexpected_keys)}"
        )


def parse(data: bytes, url: str) -> dict[str, Any]:
    """The content of a .safetensors file, or else of a torch file of tensors and plain values."""
    try:
        if url.endswith(".safetensors"):
            content = safetensors.torch.load(data)
        else:
            with torch.serialization.safe_globals([argparse.Namespace]):  # DINO keeps its arguments beside the weights
                content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise errors.InvalidConfiguration(
            f"{url}: not a readable .safetensors or .pth file of tensors ({_first_line(error)}); convert it to .safetensors"
        ) from error
    if not isinstance(content, dict):
        raise errors.InvalidConfiguration(f"{url}: holds a {type(content).__name__}, not a dictionary of weights")
    return content


def backbone_state(content: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The backbone's tensors, without the wrappers and prefixes of training checkpoints, without heads."""
    for wrapper in _WRAPPERS:
        if isinstance(content.get(wrapper), Mapping):
            return backbone_state(content[wrapper])
    state = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): value for name, value in content.items()}
    if any(name.startswith("backbone.") for name in state):
        state = {name.removeprefix("backbone."): value for name, value in state.items() if name.startswith("backbone.")}
    # DINOv2 cuts its blocks into chunks for sharding: blocks.<chunk>.<block>.
    state = {re.sub(r"^blocks\.\d+\.(\d+)\.", r"blocks.\1.", name): value for name, value in state.items()}
    return {name: value for name, value in state.items() if not _FOREIGN.match(name)}


def _some(keys: list[str]) -> str:
    return f"{', '.join(keys[:3])} and {len(keys) - 3} more" if len(keys) > 3 else ", ".join(keys) or "nothing"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[1] if lines and lines[0].startswith("Error(s) in loading") else lines[0])[:200] if lines else type(error).__name__
