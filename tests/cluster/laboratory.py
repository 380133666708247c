"""A laboratory on the real node: the chart's operator in its own pod, a bucket with a slide and labelled images, packages for pods."""

import pathlib
import shutil
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from patho_api import names
from tests.cluster import gcs, images, node, release, volumes
from tests.cluster.cluster import Cluster

SLIDE = pathlib.Path(__file__).parents[1] / "slides" / "CMU-1-Small-Region.svs"
COLOURS = {"pink": (230, 150, 190), "violet": (120, 80, 160)}
MINIATURE = {"train": 8, "val": 4}  # images of each class


@pytest.fixture(scope="session")
def bucket(real_node: node.Node) -> str:
    """A GCS server that pods reach, with the slide, labelled images, and a bucket to work in; its URL."""
    data = real_node.plane.folder / "buckets"
    (data / "slides").mkdir(parents=True)
    (data / "work").mkdir()
    shutil.copy(SLIDE, data / "slides")
    draw = np.random.default_rng(0)
    for split, count in MINIATURE.items():
        for label, colour in COLOURS.items():
            folder = data / "labelled" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = np.clip(draw.normal(colour, 20, (32, 32, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return gcs.start(real_node.plane.processes, real_node.network.gateway, data)


@pytest.fixture(scope="session")
def lab(real_node: node.Node) -> Iterator[Cluster]:
    """The cluster with the chart installed and its operator running in a pod; a namespace that has the packages."""
    cluster = real_node.plane.cluster
    repository, _, tag = images.IMAGE.rpartition(":")
    release.install(
        cluster,
        {
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
            "trainer": {"image": images.IMAGE},
            "nodeSelector": node.SELECTOR,
            "tolerations": [node.TOLERATION],
        },
    )
    cluster.inside(release.NAMESPACE).kubectl("rollout", "status", f"deployment/{release.DEPLOYMENT}", "--timeout=110s")
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "lab", "labels": restricted}})
    volumes.provide_packages(cluster.inside("lab"))
    yield cluster.inside("lab")
    release.uninstall(cluster)


def compute(nodes: int) -> dict:
    size = {"limits": {"memory": "4Gi"}, "requests": {"cpu": "100m", "memory": "512Mi"}}
    return {"nodes": nodes, "resources": size, "podTemplate": volumes.overlay(names.CONTAINER)}
