"""What kaiko-eva itself computes, for the tests and the benchmark to compare with. Runs with eva on its path (see `place`), never inside
the project's own process.

    reference.py datasets FOLDER OUT.json          samples, labels and splits of the miniatures in FOLDER, by eva's dataset classes
    reference.py fit IN.npz CONFIG.json OUT.json   linear probes by eva's trainer, as its offline configurations set it up
    reference.py decode IN.npz CONFIG.json OUT.npz steps of eva's decoder from a given start
    reference.py segment IN.npz CONFIG.json OUT.json   decoders by eva's trainer, as its online CoNSeP configuration sets it up
"""

import hashlib
import json
import logging
import pathlib
import sys
import tempfile
import time
import warnings

import numpy as np
import torch

warnings.filterwarnings("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


def digest(pixels) -> str:
    return hashlib.sha256(np.ascontiguousarray(np.asarray(pixels), dtype=np.uint8).tobytes()).hexdigest()


def classified(dataset) -> list:
    dataset.configure()
    return [(dataset.filename(i), int(dataset.load_target(i)), digest(dataset.load_data(i))) for i in range(len(dataset))]


def consep(folder: pathlib.Path, split: str, size_px: int) -> list:
    """(file, coordinates, digest of the mask, digest of the resized mask, mean of the resized image) of each patch of a grid."""
    from eva.vision.data.datasets import CoNSeP
    from eva.vision.data.transforms import common
    from eva.vision.data.wsi.patching import samplers

    raw = CoNSeP(str(folder), samplers.GridSampler(), split)
    seen = CoNSeP(str(folder), samplers.GridSampler(), split, transforms=common.ResizeAndCrop(size_px))
    for each in (raw, seen):
        each.configure()
    found = []
    for i in range(len(raw)):
        image, mask, metadata = raw[i]
        resized = seen[i]
        found.append(
            [raw.filename(i), metadata["coords"], digest(image), digest(mask), digest(resized[1]), round(float(resized[0].mean()), 5)]
        )
    return found


def datasets(folder: str, out: str) -> None:
    from eva.vision.data.datasets import BACH, CRC, MHIST, PatchCamelyon

    root = pathlib.Path(folder)
    found = {
        "BACH": {split: classified(BACH(str(root / "BACH"), split)) for split in ("train", "val")},
        "CRC": {split: classified(CRC(str(root / "CRC"), split)) for split in ("train", "val")},
        "MHIST": {ours: classified(MHIST(str(root / "MHIST"), theirs)) for ours, theirs in (("train", "train"), ("val", "test"))},
        "PCam": {split: classified(PatchCamelyon(str(root / "PCam"), split)) for split in ("train", "val", "test")},
        "CoNSeP": {split: consep(root / "CoNSeP", split, 224) for split in ("train", "val")},
    }
    pathlib.Path(out).write_text(json.dumps(found))


class InMemory(torch.utils.data.Dataset):
    """Samples that are in memory already: eva reads a file for each, which would only make it slower."""

    def __init__(self, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.inputs, self.targets = inputs, targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int):
        return self.inputs[i], self.targets[i], {}


def session(config: dict, module, splits: dict, batch_size: int, monitor: str) -> tuple[list[float], float]:
    """Best validation score of each run, by eva's own evaluation session; and the seconds that it took."""
    import lightning
    from eva.core import trainers
    from eva.core.data import dataloaders, datamodules
    from eva.core.data.datamodules import schemas
    from lightning.pytorch import callbacks

    def loader(shuffle: bool) -> dataloaders.DataLoader:
        return dataloaders.DataLoader(batch_size=batch_size, shuffle=shuffle, num_workers=0, persistent_workers=False, prefetch_factor=None)

    data = datamodules.DataModule(
        datasets=schemas.DatasetsSchema(train=splits["train"], val=splits["val"]),
        dataloaders=schemas.DataloadersSchema(train=loader(True), val=loader(False)),
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = trainers.Trainer(
            default_root_dir=folder,
            n_runs=config["runs"],
            max_steps=config["max_steps"],
            accelerator="cpu",
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=50,
            callbacks=[
                callbacks.ModelCheckpoint(filename="best", save_last=False, save_top_k=1, monitor=monitor, mode="max"),
                callbacks.EarlyStopping(min_delta=0, patience=config["patience"], monitor=monitor, mode="max"),
            ],
        )
        lightning.seed_everything(config["seed"], verbose=False)
        begin = time.process_time()
        trainer.run_evaluation_session(model=module, datamodule=data)
        seconds = time.process_time() - begin
        written = json.loads(next(pathlib.Path(folder).rglob("results.json")).read_text())
    (scores,) = [metrics[monitor]["values"] for metrics in written["metrics"]["val"]]
    return scores, seconds


def fit(given: str, config_file: str, out: str) -> None:
    from eva.core.metrics import defaults
    from eva.core.metrics.structs import MetricsSchema
    from eva.core.models.modules import HeadModule

    config, arrays = json.loads(pathlib.Path(config_file).read_text()), np.load(given)
    classes, x = config["classes"], torch.from_numpy(arrays["train_x"])
    binary = classes == 2
    outputs = 1 if binary else classes
    splits = {
        name: InMemory(
            torch.from_numpy(arrays[f"{name}_x"]), torch.from_numpy(arrays[f"{name}_y"]).to(torch.float32 if binary else torch.int64)
        )
        for name in ("train", "val")
    }
    metric = defaults.BinaryClassificationMetrics() if binary else defaults.MulticlassClassificationMetrics(classes)
    module = HeadModule(
        head={"class_path": "torch.nn.Linear", "init_args": {"in_features": x.shape[1], "out_features": outputs}},
        criterion=torch.nn.BCEWithLogitsLoss() if binary else torch.nn.CrossEntropyLoss(),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=3e-4),
        metrics=MetricsSchema(common=[metric]),
    )
    monitor = "val/BinaryBalancedAccuracy" if binary else "val/MulticlassAccuracy"
    scores, seconds = session(config, module, splits, 256, monitor)
    pathlib.Path(out).write_text(json.dumps({"scores": scores, "cpu_seconds": seconds}))


def decoder(width: int, classes: int):
    from eva.vision.models.networks.decoders.segmentation import ConvDecoderWithImage

    return ConvDecoderWithImage(width, classes)


def decode(given: str, config_file: str, out: str) -> None:
    """Losses of some steps, and the Dice of the last decoder; batches in the order of the arrays."""
    from eva.vision.losses import DiceLoss
    from eva.vision.metrics import MonaiDiceScore
    from eva.vision.models.networks.decoders.segmentation.typings import DecoderInputs

    config, arrays = json.loads(pathlib.Path(config_file).read_text()), np.load(given)
    tokens, images, masks = (torch.from_numpy(arrays[name]) for name in ("tokens", "images", "masks"))
    network = decoder(tokens.shape[1], config["classes"])
    network.load_state_dict(
        {name.removeprefix("start."): torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith("start.")}
    )
    criterion, optimizer = DiceLoss(softmax=True, batch=True), torch.optim.AdamW(network.parameters(), lr=2e-3)
    losses = []
    for rows in torch.arange(len(masks)).split(config["batch_size"]):
        optimizer.zero_grad()
        loss = criterion(network(DecoderInputs([tokens[rows]], masks.shape[-2:], images[rows])), masks[rows].long())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    network.eval()
    with torch.no_grad():
        predicted = network(DecoderInputs([tokens], masks.shape[-2:], images)).argmax(dim=1)
    score = MonaiDiceScore(config["classes"], include_background=False, ignore_empty=True)
    score.update(predicted, masks.long())
    np.savez(out, losses=losses, dice=float(score.compute()), predicted=predicted.numpy())


def segment(given: str, config_file: str, out: str) -> None:
    import timm
    from eva.core.metrics.structs import MetricsSchema
    from eva.core.models.modules.utils.batch_postprocess import BatchPostProcess
    from eva.vision.losses import DiceLoss
    from eva.vision.metrics.defaults import MulticlassSegmentationMetrics
    from eva.vision.models.modules import SemanticSegmentationModule

    config, arrays = json.loads(pathlib.Path(config_file).read_text()), np.load(given)
    encoder = timm.create_model(config["architecture"], features_only=True, out_indices=1, dynamic_img_size=True)
    weights = {name.removeprefix("weights."): torch.from_numpy(arrays[name]) for name in arrays.files if name.startswith("weights.")}
    encoder.model.load_state_dict(weights, strict=False)
    splits = {
        name: InMemory(torch.from_numpy(arrays[f"{name}_images"]), torch.from_numpy(arrays[f"{name}_masks"]).long())
        for name in ("train", "val")
    }
    module = SemanticSegmentationModule(
        encoder=encoder,
        decoder=decoder(config["width"], config["classes"]),
        criterion=DiceLoss(softmax=True, batch=True),
        optimizer=lambda parameters: torch.optim.AdamW(parameters, lr=2e-3),
        postprocess=BatchPostProcess(predictions_transforms=[lambda logits: torch.argmax(logits, dim=1)]),
        metrics=MetricsSchema(evaluation=[MulticlassSegmentationMetrics(config["classes"])]),
    )
    scores, seconds = session(config, module, splits, 64, "val/MonaiDiceScore")
    pathlib.Path(out).write_text(json.dumps({"scores": scores, "cpu_seconds": seconds}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    {"datasets": datasets, "fit": fit, "decode": decode, "segment": segment}[sys.argv[1]](*sys.argv[2:])
