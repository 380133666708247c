"""A step of DINOv2: the trajectories of the reference, shares that add up, what a checkpoint holds."""

import numpy as np
import pytest
import torch

from patho_trainer import config, errors, optim, schedules
from patho_trainer.data import masking
from patho_trainer.methods import dinov2
from patho_trainer.models import heads, masked, vit
from tests.trainer.golden import numbers
from tests.trainer.methods import specs

TRAJECTORY = {
    "steps": 50,
    "learningRate": 2e-3,
    "warmupSteps": 5,
    "teacherTemperatureWarmupSteps": 15,
    "teacherMomentum": 0.9,
    "freezeLastLayerSteps": 2,
    "dropPath": 0.0,
    "lossGroupSize": 4,
}
SEPARATE = {"centering": "SinkhornKnopp", "ibotSeparateHead": True, "ibotPrototypes": 24, "ibotHeadBottleneckWidth": 8}
PAIRS = {"dropPath": 0.5, "lossGroupSize": 2, "kdeWeight": 0.05}


def make_crops(step, samples=4):
    return [numbers.normal(1000 + 10 * step + view, samples, 3, size, size) for view, size in enumerate((32, 32, 16, 16))]


def reference_method(**training):
    """DINOv2 around the two-block network of the golden trajectories."""
    h = config.resolved(specs.make(method="DINOv2", **TRAJECTORY | training))
    networks = []
    for _ in range(2):
        backbone = vit.create("vit_tiny_patch16_224", img_size_px=32, depth=2, embed_dim=48, num_heads=3)
        made = [heads.ProjectionHead(48, hidden_width=32, bottleneck_width=16, prototypes=32, norm_last_layer=False)]
        if h.ibot_separate_head:
            made.append(heads.ProjectionHead(48, hidden_width=32, bottleneck_width=8, prototypes=24, norm_last_layer=False))
        networks.append(masked.MaskedNetwork(masked.adopted(backbone, "tiny"), made[0], made[1] if made[1:] else None))
        numbers.fill(networks[-1])
    student, teacher = networks
    centres = [dinov2.Centre.zero(prototypes, "cpu") for prototypes in (32, 24 if h.ibot_separate_head else 32)]
    return dinov2.Method(student, teacher.requires_grad_(False), *centres, h)


def reference_masks(grid, probability, ratio, batch_size, seed, step, slots):
    """Masks (8, 2, 2) of the golden trajectories: half of the crops, each token with even odds."""
    source = np.random.RandomState(3000 + step)
    masks = source.random_sample((8, 4)) < 0.5
    masks[source.permutation(8)[:4]] = False
    return masks.reshape(8, 2, 2)


def train(method, optimizer, step, shares=((0, 1, 2, 3),)):
    """One whole step in so many micro-batches; returns its terms and the norm of its gradient."""
    values, total = schedules.at(method.hyperparameters, step), {}
    optim.apply(values, optimizer)
    for slots in shares:
        out = dinov2.step(method, [crop[list(slots)] for crop in make_crops(step)], values, step=step, slots=slots)
        out["loss"].backward()
        total = {name: total.get(name, 0) + value.item() for name, value in out.items()}
    norm = optim.clip(method.student, method.hyperparameters)
    optimizer.step()
    optimizer.zero_grad()
    dinov2.update(method, values)
    return total | {"norm": norm.item()}


@pytest.mark.parametrize(("centering", "training"), [("softmax", {}), ("sinkhorn", SEPARATE)])
def test_fifty_steps_follow_the_trajectory_of_the_reference(centering, training, monkeypatch):
    monkeypatch.setattr(masking, "masks", reference_masks)
    method = reference_method(**training)
    optimizer = optim.adamw(method.student, method.hyperparameters)
    told = [train(method, optimizer, step) for step in range(50)]
    expected = numbers.DINOV2[f"trajectory_{centering}"]
    names = {"loss": "losses", "dino": "dino", "ibot": "ibot", "koleo": "koleo", "norm": "gradient_norms"}
    for ours, theirs in names.items():
        numbers.close([step[ours] for step in told], expected[theirs], tolerance=1e-3)
    norms = {name: parameter.norm().item() for name, parameter in method.teacher.named_parameters()}
    numbers.close([norms[name] for name in expected["teacher_norms"]], list(expected["teacher_norms"].values()), tolerance=1e-3)
    if centering == "softmax":
        numbers.close(method.cls.center_K, expected["center"], tolerance=1e-3)
        numbers.close(method.ibot.center_K, expected["ibot_center"], tolerance=1e-3)


@pytest.mark.parametrize("training", [PAIRS, PAIRS | {"ibotSeparateHead": True, "ibotPrototypes": 24, "ibotHeadBottleneckWidth": 8}])
def test_micro_batches_of_whole_groups_give_the_step_of_the_whole_batch_with_drop_path(training):
    whole, parts = reference_method(**training), reference_method(**training)
    optimizers = [optim.adamw(method.student, method.hyperparameters) for method in (whole, parts)]
    for step in range(3):
        together = train(whole, optimizers[0], step)
        apart = train(parts, optimizers[1], step, shares=((0, 2), (1, 3)))
        assert apart == pytest.approx(together, abs=1e-4)
    torch.testing.assert_close(parts.cls.center_K, whole.cls.center_K)
    torch.testing.assert_close(parts.ibot.center_K, whole.ibot.center_K)


def test_a_centre_is_the_mean_over_all_processes_and_stays_where_nobody_has_outputs():
    centre = dinov2.Centre.zero(3, "cpu")
    centre.add(torch.tensor([[1.0, 2.0, 3.0]]))
    centre.update(0.5, all_reduce=lambda tensor: tensor.mul_(2) if tensor.ndim == 0 else tensor.add_(1))
    assert centre.center_K.tolist() == [0.5, 0.75, 1.0]
    centre.update(0.5, all_reduce=lambda _: None)
    assert centre.center_K.tolist() == [0.5, 0.75, 1.0]


def test_teacher_and_student_begin_alike_and_the_teacher_takes_no_gradient():
    method = dinov2.build(specs.make(method="DINOv2", lossGroupSize=4, ibotSeparateHead=True), "cpu")
    pairs = zip(method.student.named_parameters(), method.teacher.named_parameters(), strict=True)
    assert all(a == b and torch.equal(mine, theirs) and not theirs.requires_grad for (a, mine), (b, theirs) in pairs)


def test_the_exported_backbone_has_timms_weights_and_no_others():
    method = dinov2.build(specs.make(method="DINOv2", lossGroupSize=4), "cpu")
    timms = vit.create("vit_tiny_patch16_224", img_size_px=32)
    assert set(method.teacher.backbone.state_dict()) == set(timms.state_dict())


def test_the_teacher_moves_a_little_with_heads_and_mask_token():
    method = reference_method(**SEPARATE)
    before = {name: parameter.clone() for name, parameter in method.teacher.named_parameters()}
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1)
    dinov2.update(method, schedules.Values(0, 0, 0.9, 0.04, False))
    for name, parameter in method.teacher.named_parameters():
        torch.testing.assert_close(parameter, before[name] + 0.1)


def test_the_teacher_sees_what_is_hidden_from_the_student(monkeypatch):
    monkeypatch.setattr(masking, "masks", lambda grid, *_: np.ones((8, *grid), dtype=bool))
    method, values = reference_method(), schedules.Values(0, 0, 0.9, 0.04, False)
    first = dinov2.step(method, make_crops(0), values, step=0, slots=range(4))
    with torch.no_grad():  # its patches are all hidden: the embedding of patches may be what it likes
        method.student.backbone.patch_embed.proj.weight.add_(1)
    second = dinov2.step(method, [crop if crop.shape[-1] == 32 else crop * 0 for crop in make_crops(0)], values, step=0, slots=range(4))
    torch.testing.assert_close(second["ibot"], first["ibot"])


def test_a_checkpoint_brings_everything_back():
    method, fresh = reference_method(), reference_method()
    train(method, optim.adamw(method.student, method.hyperparameters), 2)
    fresh.load_state_dict(method.state_dict())
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in method.state_dict().items())


def test_frozen_prototypes_stay_and_their_moments_go_on():
    method = reference_method()
    optimizer, layer = optim.adamw(method.student, method.hyperparameters), method.student.dino_head.last_layer
    before = layer.weight_v.clone()
    train(method, optimizer, 1)
    assert torch.equal(layer.weight_v, before)
    assert optimizer.state[layer.weight_v]["exp_avg"].abs().max() > 0


def test_activation_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        method = reference_method(dropPath=0.5)
        method.student.activation_checkpointing = checkpointing
        dinov2.step(method, make_crops(0), schedules.at(method.hyperparameters, 9), step=0, slots=range(4))["loss"].backward()
        gradients.append([p.grad for p in method.student.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bfloat16_is_close_to_float32():
    outs = []
    for precision in ("Float32", "BFloat16"):
        method = reference_method(precision=precision, dropPath=0.3)
        outs.append(dinov2.step(method, make_crops(0), schedules.at(method.hyperparameters, 9), step=0, slots=range(4)))
    assert outs[1]["loss"].dtype == torch.float32
    torch.testing.assert_close(outs[1]["loss"], outs[0]["loss"], rtol=0.03, atol=0)


@pytest.mark.parametrize(
    ("architecture", "sentence"),
    [
        ("vit_base_patch16_siglip_224", "has no class token as its feature"),
        ("vit_small_patch16_36x1_224", None),
        ("vit_small_patch16_18x2_224", r"blocks of another kind than DINOv2's \(ParallelThingsBlock\)"),
    ],
)
def test_architectures_that_it_cannot_train_are_refused(architecture, sentence):
    with torch.device("meta"):
        backbone = vit.create(architecture)
    if sentence is None:
        assert masked.adopted(backbone, architecture) is backbone
    else:
        with pytest.raises(errors.InvalidConfiguration, match=sentence):
            masked.adopted(backbone, architecture)
