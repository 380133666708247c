import json
import pathlib

import numpy as np
import pytest
import torch

from patho_api.common import Normalization
from patho_trainer.evaluation import encoder, protocols, segmentation
from tests.trainer.evaluation import miniatures, official
from tests.trainer.evaluation.eva import place

CLASSES, PATCHES, EDGE_PX, GRID, BATCH = 4, 48, 32, 2, 8
HALF = Normalization()
# the layers of kaiko-eva's ConvDecoderWithImage by their names there
NAMES = {"tokens.": "_layers.1.", "pixels.0.": "image_block.0.", "pixels.1.": "image_block.1.", "classifier.": "classifier."}


def nuclei(patches: int = PATCHES, seed: int = 0, width: int = 16) -> segmentation.Masked:
    """Patches with discs of three kinds, whose tokens say something of them."""
    types = np.stack([np.minimum(official.type_map(seed + n, EDGE_PX), CLASSES - 1) for n in range(patches)])
    images = np.stack([official.stained(each, seed + n) for n, each in enumerate(types)]).transpose(0, 3, 1, 2)
    random = torch.Generator().manual_seed(seed)
    coarse = torch.nn.functional.adaptive_avg_pool2d(torch.from_numpy(types[:, None]).float(), GRID)
    return segmentation.Masked(
        coarse + torch.randn(patches, width, GRID, GRID, generator=random),
        torch.from_numpy(images.copy()),
        torch.from_numpy(types).to(torch.uint8),
    )


def test_dice_counts_the_classes_that_a_patch_has_and_not_the_background():
    nothing, half = torch.tensor([[9, 1, 0], [0, 0, 0], [0, 0, 0]]), torch.tensor([[4, 0, 0], [2, 2, 0], [0, 0, 2]])
    assert segmentation.dice(torch.stack([half])) == pytest.approx((2 * 2 / (4 + 2) + 1) / 2)
    assert segmentation.dice(torch.stack([half, nothing])) == segmentation.dice(torch.stack([half]))
    assert segmentation.dice(torch.stack([nothing])) == 0


def test_the_loss_of_a_sure_and_right_decoder_is_nothing():
    masks_BSS = torch.randint(0, 3, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    logits = torch.nn.functional.one_hot(masks_BSS, 3).movedim(-1, 1).float() * 100
    assert segmentation.dice_loss(logits, masks_BSS) == pytest.approx(0, abs=1e-5)
    assert segmentation.dice_loss(-logits, masks_BSS) > 0.9


def test_equal_seeds_train_equal_decoders_and_keep_the_best_epoch():
    recipe = protocols.segmentation(8, 4)
    train, val = nuclei(8), nuclei(4, seed=500)
    runs = [segmentation.fit(train, val, classes=CLASSES, normalization=HALF, recipe=recipe, seed=3) for _ in range(2)]
    assert (runs[0].val_score, runs[0].best_epoch) == (runs[1].val_score, runs[1].best_epoch)
    counts = segmentation.confusion(runs[0].decoder, val, HALF, 64)
    assert segmentation.dice(counts) == runs[0].val_score


def test_patience_is_evas_for_consep():
    assert protocols.segmentation(27 * 16).patience_epochs == 200


@pytest.mark.slow
def test_losses_score_and_predictions_of_a_decoder_are_evas(tmp_path: pathlib.Path):
    if not place.installed():
        pytest.skip(place.NOT_INSTALLED)
    patches, decoder = nuclei(), segmentation.start(16, CLASSES, seed=1)
    start = {renamed(name): value.clone().numpy() for name, value in decoder.state_dict().items()}
    images = encoder.normalized(patches.images_N3SS, HALF).numpy()
    np.savez(f"{tmp_path}/in.npz", tokens=patches.tokens_NDGG, images=images, masks=patches.masks_NSS, **start)
    pathlib.Path(tmp_path, "config.json").write_text(json.dumps({"classes": CLASSES, "batch_size": BATCH}))
    place.run("decode", f"{tmp_path}/in.npz", f"{tmp_path}/config.json", f"{tmp_path}/out.npz")
    theirs = np.load(f"{tmp_path}/out.npz")
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=2e-3)
    batches = [patches.take(rows) for rows in torch.arange(PATCHES).split(BATCH)]
    assert [segmentation.train_step(decoder, optimizer, b, HALF) for b in batches] == pytest.approx(theirs["losses"].tolist(), rel=1e-5)
    predicted = segmentation.predict(decoder, patches, HALF, 64).numpy()
    assert (predicted == theirs["predicted"]).mean() > 0.999  # rounding decides ties
    counts = segmentation._counts(patches.masks_NSS, torch.from_numpy(theirs["predicted"]), CLASSES)
    assert segmentation.dice(counts) == pytest.approx(
        float(theirs["dice"]), rel=1e-5
    )  # of the same predictions: so early it hangs on a few pixels


def renamed(name: str) -> str:
    ours = next(prefix for prefix in NAMES if name.startswith(prefix))
    return f"start.{NAMES[ours]}{name.removeprefix(ours)}"


def test_token_maps_are_what_timm_gives_eva(bucket, root):
    loaded = encoder.load(miniatures.spec(root, [miniatures.task(root)]).model, bucket, miniatures.CPU)
    reference = encoder.vit.timm.create_model(miniatures.ARCHITECTURE, features_only=True, out_indices=1, dynamic_img_size=True)
    reference.model.load_state_dict(miniatures.backbone().state_dict(), strict=False)
    images_B3SS = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        (expected,) = reference.eval()(encoder.normalized(images_B3SS, loaded.normalization))
    torch.testing.assert_close(loaded.token_map(images_B3SS), expected)
