"""A newer operator takes over runs that an older release started: nothing restarts."""

import copy

import pytest

from patho_api import names
from patho_operator import manifests, subject
from tests.controller.builders import at, make_eval, make_job, make_pod, make_pretrain, plan_for, started

# What the definitions of 0.1's first builds wrote into every stored specification, and null stands for now
WRITTEN_OUT = {"normLastLayer": True, "crops": {"globalScale": [0.4, 1.0], "localScale": [0.05, 0.4]}}
CHOSEN = {"normLastLayer": False, "crops": {"globalScale": [0.3, 1.0], "localScale": [0.05, 0.4]}}


def pretrain(training, **compute):
    body = make_pretrain(compute=compute)
    body["spec"]["training"] |= training
    return body


@pytest.mark.parametrize(
    ("body", "annotation"),  # as those builds put it on their Jobs
    [
        (pretrain(WRITTEN_OUT, nodes=2), "fbf65d10b12627dc"),
        (pretrain(CHOSEN), "fa6a2f6579008d74"),
        (make_eval(), "daf8796f78e310e8"),
    ],
)
def test_a_run_of_an_earlier_release_goes_on(body, annotation):
    body = started(body, pretrain=make_pretrain(status={"checkpoint": {"latest": {"step": 100, "url": "gs://c/step-00000100"}}}))
    job = make_job(body)
    job["metadata"]["annotations"][names.ANNOTATION_SPEC_HASH] = annotation
    pods = [make_pod(body, index) for index in range(body["spec"].get("compute", {}).get("nodes", 1))]
    assert not plan_for(body, [job], pods, now=at(60)).deletes


def test_what_null_stands_for_with_dino_is_a_change_with_dinov2():
    written = pretrain(copy.deepcopy(WRITTEN_OUT))
    for body in (written, plain := pretrain({})):
        body["spec"]["method"] = "DINOv2"
    assert manifests.spec_hash(subject.parse(written).resource) != manifests.spec_hash(subject.parse(plain).resource)
