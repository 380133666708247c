"""The model of a PathoEval: its frozen backbone, what goes in, and which tokens come out."""

# B images, S edge, N tokens, G edge of their grid, D width of the backbone, F width of the features: D, or 2 D with CLSMean

import dataclasses
import hashlib
from typing import Any

import timm
import torch

from patho_api import evaluate
from patho_api.common import Normalization
from patho_trainer import checkpoint, errors
from patho_trainer.data import storage
from patho_trainer.models import vit


@dataclasses.dataclass(frozen=True)
class Encoder:
    """Images to features."""

    backbone: vit.Backbone
    source: str
    """Address or timm name, as the user gave it."""
    architecture: str
    """timm's name."""
    step: int | None
    """Training step of a pathoscale checkpoint."""
    run: str
    """Folder of the run that a pathoscale checkpoint belongs to, else empty."""
    digest: str
    """Of the weights: equal weights, equal digest, wherever they came from."""
    normalization: Normalization
    pooling: str
    """CLS or CLSMean."""

    @torch.inference_mode()
    def __call__(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """float32 features (B, F) of uint8 images."""
        tokens_BND: torch.Tensor = self.backbone.forward_features(normalized(images_B3SS, self.normalization))
        if self.pooling == "CLS":
            return tokens_BND[:, 0]
        return torch.cat([tokens_BND[:, 0], tokens_BND[:, self.backbone.num_prefix_tokens :].mean(dim=1)], dim=1)

    @torch.inference_mode()
    def token_map(self, images_B3SS: torch.Tensor) -> torch.Tensor:
        """float32 patch tokens (B, D, G, G) of the last block, before the final norm: what timm's `features_only` gives kaiko-eva."""
        maps: list[torch.Tensor] = self.backbone.forward_intermediates(
            normalized(images_B3SS, self.normalization), indices=1, norm=False, intermediates_only=True
        )
        return maps[0]


def normalized(images_B3SS: torch.Tensor, normalization: Normalization) -> torch.Tensor:
    """float32 images out of uint8 ones."""
    mean, std = (torch.tensor(v, device=images_B3SS.device)[:, None, None] for v in (normalization.mean, normalization.std))
    return (images_B3SS / 255 - mean) / std


def load(model: evaluate.EvalModel, bucket: storage.Bucket, device: torch.device) -> Encoder:
    """The frozen model on `device`. Raises InvalidConfiguration or DataNotFound when it cannot be had or has no class token."""
    backbone, config = _backbone(model, bucket)
    architecture = config.get("architecture") or model.architecture
    if backbone.cls_token is None:
        raise errors.InvalidConfiguration(f"model: {architecture} has no class token, which a probe reads: use a ViT that has one")
    for parameter in backbone.parameters():
        parameter.requires_grad_(False)
    return Encoder(
        backbone=backbone.eval().to(device),
        source=model.url or model.timm,
        architecture=architecture,
        step=config.get("step"),
        run="" if config.get("step") is None else _run(model.url),
        digest=_digest(backbone),
        normalization=model.normalization or Normalization.model_validate(config.get("normalization") or _of_timm(backbone)),
        pooling=model.pooling,
    )


def check_size(encoder: Encoder, image_size_px: int) -> None:
    """Raise InvalidConfiguration unless the model's patches tile an image of this edge."""
    patch_px = encoder.backbone.patch_embed.patch_size[0]
    if image_size_px % patch_px:
        near = max(patch_px, round(image_size_px / patch_px) * patch_px)
        raise errors.InvalidConfiguration(
            f"imageSizePx: {image_size_px} is not a multiple of {encoder.architecture}'s patch size {patch_px}: use {near}"
        )


def _backbone(model: evaluate.EvalModel, bucket: storage.Bucket) -> tuple[vit.Backbone, dict[str, Any]]:
    """Backbone, and what its source says about it: the config.json of a checkpoint, nothing for a file of weights."""
    if model.pretrain is not None:
        raise errors.InvalidConfiguration(
            f"model.pretrain: {model.pretrain.name} is a resource of a cluster, and nothing has looked up its checkpoint here: "
            "set model.url to the checkpoint's folder"
        )
    if model.timm:
        return _from_timm(model.timm), {"architecture": model.timm}
    return checkpoint.load_backbone(model.url, bucket, model.architecture)


def _from_timm(name: str) -> vit.Backbone:
    """Raises InvalidConfiguration for a name that timm does not know, and when its hub cannot be reached."""
    architecture, _, tag = name.partition(".")
    known = [n.partition(".")[2] for n in timm.list_pretrained(f"{architecture}.*")]
    if timm.is_model(architecture) and tag not in (["", *known] if known else []):
        raise errors.InvalidConfiguration(
            f"model.timm: timm has no weights {name}; the tags of {architecture} are {', '.join(known) or 'none'}"
        )
    try:
        return vit.create(name, pretrained=True)
    except errors.PathoError:
        raise
    except Exception as error:  # the hub's client raises its own, the network's and the file system's errors
        raise errors.InvalidConfiguration(
            f"model.timm: the weights of {name} could not be fetched from timm's hub ({type(error).__name__}): where it cannot be reached, "
            f"put the file into a bucket and set model to {{url: <that file>, architecture: {architecture}}}"
        ) from error


def _run(url: str) -> str:
    """The folder of a run, out of its own address or that of one of its checkpoints."""
    parent, _, name = url.rstrip("/").rpartition("/")
    return parent if name.startswith("step-") else url.rstrip("/")


def _of_timm(backbone: vit.Backbone) -> dict[str, Any]:
    return {key: list(backbone.pretrained_cfg[key]) for key in ("mean", "std")}


def _digest(backbone: torch.nn.Module) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(backbone.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
