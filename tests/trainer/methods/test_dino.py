"""A step of DINO: the trajectory of the reference, shares that add up, what a checkpoint holds."""

import pytest
import torch

from patho_trainer import config, errors, optim, schedules
from patho_trainer.methods import dino
from patho_trainer.models import heads, vit
from tests.trainer.golden import numbers
from tests.trainer.methods import specs

TRAJECTORY = {
    "steps": 50,
    "learningRate": 2e-3,
    "warmupSteps": 5,
    "teacherTemperature": 0.07,
    "teacherTemperatureWarmupSteps": 15,
    "teacherMomentum": 0.9,
    "freezeLastLayerSteps": 2,
    "dropPath": 0.0,
}


def make_crops(step, samples=4):
    return [numbers.normal(1000 + 10 * step + view, samples, 3, size, size) for view, size in enumerate((32, 32, 16, 16))]


def reference_method(**training):
    """DINO around the two-block network of the golden trajectory."""
    h = config.resolved(specs.make(**TRAJECTORY | training))
    networks = []
    for _ in range(2):
        backbone = vit.create("vit_tiny_patch16_224", img_size_px=32, drop_path=h.drop_path, depth=2, embed_dim=48, num_heads=3)
        head = heads.ProjectionHead(48, hidden_width=32, bottleneck_width=16, prototypes=32, norm_last_layer=True)
        networks.append(vit.Network(backbone, head))
        numbers.fill(networks[-1])
    return dino.Method(*networks, torch.zeros(32), torch.zeros(32), h)


def train(method, optimizer, step, shares=(slice(0, 4),)):
    """One whole step; returns its loss."""
    values, total = schedules.at(method.hyperparameters, step), 0.0
    optim.apply(values, optimizer)
    for rows in shares:
        out = dino.step(method, [crop[rows] for crop in make_crops(step)], values, step=step, slots=range(4)[rows])
        out["loss"].backward()
        total += out["loss"].item()
    optim.clip_per_parameter(method.student.parameters(), method.hyperparameters.clip_grad)
    if values.freeze_last_layer:
        optim.freeze_last_layer(method.student)
    optimizer.step()
    optimizer.zero_grad()
    dino.update(method, values)
    return total


def test_fifty_steps_follow_the_trajectory_of_the_reference():
    method = reference_method()
    optimizer = optim.adamw(method.student, method.hyperparameters)
    losses = [train(method, optimizer, step) for step in range(50)]
    expected = numbers.DINO["trajectory"]
    numbers.close(losses, expected["losses"], tolerance=1e-4)
    numbers.close(method.center_K, expected["center"], tolerance=1e-4)
    norms = {name: parameter.norm().item() for name, parameter in method.teacher.named_parameters()}
    numbers.close([norms[name] for name in expected["teacher_norms"]], list(expected["teacher_norms"].values()), tolerance=1e-4)


def test_micro_batches_give_the_step_of_the_whole_batch_with_drop_path():
    whole, parts = reference_method(dropPath=0.5), reference_method(dropPath=0.5)
    optimizers = [optim.adamw(method.student, method.hyperparameters) for method in (whole, parts)]
    for step in range(3):
        together = train(whole, optimizers[0], step)
        apart = train(parts, optimizers[1], step, shares=(slice(0, 1), slice(1, 4)))
        assert apart == pytest.approx(together, abs=1e-5)
    torch.testing.assert_close(parts.center_K, whole.center_K)


def test_the_centre_is_the_mean_over_all_processes():
    method = reference_method(centerMomentum=0.0)
    values = schedules.at(method.hyperparameters, 0)
    dino.step(method, [crop[:2] for crop in make_crops(0)], values, step=0, slots=(0, 1))
    of_the_other = torch.arange(32.0)
    dino.update(method, values, all_reduce=lambda tensor: tensor.add_(of_the_other))
    mine = method.teacher([crop[:2] for crop in make_crops(0)[:2]]).detach().sum(0)
    torch.testing.assert_close(method.center_K, (mine + of_the_other) / 8)


def test_the_teacher_moves_a_little_and_its_head_too():
    method = reference_method()
    before = method.teacher.head.last_layer.weight_v.clone()
    with torch.no_grad():
        method.student.head.last_layer.weight_v.add_(1)
    dino.update(method, schedules.Values(0, 0, 0.9, 0.04, False))
    torch.testing.assert_close(method.teacher.head.last_layer.weight_v, before + 0.1)


def test_every_process_builds_the_same_weights_and_another_seed_others():
    first, second = (dino.build(specs.make(seed=3), "cpu") for _ in range(2))
    other = dino.build(specs.make(seed=4), "cpu")
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True))
    assert not torch.equal(first.student.head.last_layer.weight_v, other.student.head.last_layer.weight_v)
    assert all(torch.equal(a, b) for a, b in zip(first.student.parameters(), first.teacher.parameters(), strict=True))


def test_a_checkpoint_brings_everything_back():
    method, fresh = reference_method(), reference_method()
    train(method, optim.adamw(method.student, method.hyperparameters), 2)
    fresh.load_state_dict(method.state_dict())
    assert all(torch.equal(value, fresh.state_dict()[name]) for name, value in method.state_dict().items())


def test_only_the_student_drops_paths():
    method = dino.build(specs.make(), "cpu")
    assert max(method.student.drop_rates) == pytest.approx(0.1)
    assert method.teacher.drop_rates == []


def test_activation_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        method = reference_method(dropPath=0.5)
        method.student.activation_checkpointing = checkpointing
        dino.step(method, make_crops(0), schedules.at(method.hyperparameters, 9), step=0, slots=range(4))["loss"].backward()
        gradients.append([p.grad for p in method.student.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_bfloat16_is_close_to_float32():
    outs = []
    for precision in ("Float32", "BFloat16"):
        method = reference_method(precision=precision)
        outs.append(dino.step(method, make_crops(0), schedules.at(method.hyperparameters, 9), step=0, slots=range(4)))
    assert outs[1]["loss"].dtype == torch.float32
    torch.testing.assert_close(outs[1]["loss"], outs[0]["loss"], rtol=0.02, atol=0)


def test_crops_that_patches_do_not_tile_are_refused_with_a_size_that_works():
    spec = specs.make("vit_small_patch14_dinov2", crops={"globalSizePx": 224, "localSizePx": 96})
    with pytest.raises(errors.InvalidConfiguration, match=r"localSizePx: 96 is not a multiple of .* patch size 14: use 98"):
        dino.build(spec, "cpu")
