"""What this release does not do is said, field by field."""

import pytest

from patho_api import evaluate, pretrain, support

BASE = {"slides": {"source": "s3://a/", "index": "s3://b"}, "checkpoints": {"url": "s3://c", "everySteps": 10}}
MASKED = [{"name": "CoNSeP", "data": "s3://d"}]
UNSUPPORTED = {"name": "cells", "everySteps": 10, "template": {"protocol": "Paper", "tasks": MASKED}}


def make_pretrain(**spec):
    return pretrain.PretrainSpec.model_validate(BASE | spec)


def make_eval(**spec):
    base = {"model": {"timm": "a.b"}, "tasks": [{"name": "MHIST", "data": "s3://d"}], "results": "s3://r"}
    return evaluate.EvalSpec.model_validate(base | spec)


@pytest.mark.parametrize(
    "spec",
    [
        make_pretrain(),
        make_pretrain(method="DINOv2", training={"augmentation": {"hsvFilter": True, "hed": True, "rotate90": True}}),
        make_eval(),
        make_eval(tasks=MASKED, compute={"nodes": 2}),
    ],
)
def test_a_plain_specification_is_supported_whole(spec):
    assert support.refusals(spec) == []
    assert support.notes(spec) == []


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (make_pretrain(method="DINOv2", compute={"nodes": 5}), "spec.compute: 5 processes share 4 loss groups of 64 patches"),
        (make_pretrain(training={"lossGroupSize": 256}, compute={"nodes": 2}), "spec.compute: 2 processes share 1 loss groups of 256"),
        (make_pretrain(method="DINOv2", training={"lossGroupSize": 1}), "spec.training.koleoWeight: KoLeo needs a neighbour"),
    ],
)
def test_what_cannot_run_is_refused_before_any_pod_is_made(spec, sentence):
    (found,) = support.refusals(spec)
    assert found.startswith(sentence)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (make_pretrain(evaluations=[UNSUPPORTED]), "spec.evaluations[cells].template: spec.protocol Paper has no effect on CoNSeP"),
        (make_eval(protocol="Paper", tasks=MASKED), "spec.protocol Paper has no effect on CoNSeP"),
        (make_pretrain(training={"koleoWeight": 0.5}), "spec.training.koleoWeight"),
    ],
)
def test_what_has_no_effect_is_noted_with_the_field(spec, field):
    (sentence,) = support.notes(spec)
    assert sentence.startswith(field)
