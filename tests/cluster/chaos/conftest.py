"""A control plane of its own for the faults: no other operator acts there."""

import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from tests.cluster import controlplane, kwok, node, release, tools, waiting
from tests.cluster.chaos.campaign import Arena
from tests.cluster.cluster import Cluster, Refused
from tests.cluster.processes import Processes

FAKE_NODES = 8


@pytest.fixture(scope="session")
def arena() -> Iterator[Arena]:
    """Control plane, fake nodes, the chart's definitions and rights; the chart's own pod finds no node."""
    if tools.missing() and (reason := tools.reason_against_building()):
        pytest.skip(f"NOT RUN: {reason}")
    with tempfile.TemporaryDirectory(prefix="patho-", ignore_cleanup_errors=True) as name:
        processes = Processes(pathlib.Path(name))
        try:
            cluster = controlplane.start(processes).cluster
            kwok.start(processes, cluster.kubeconfig)
            kwok.add_nodes(cluster, FAKE_NODES)
            release.install(cluster, {"nodeSelector": node.SELECTOR})
            waiting.until(lambda: _served(cluster), what="both kinds served")
            token = release.as_service_account(cluster, processes.folder / "operator.kubeconfig")
            yield Arena(processes.folder, cluster.kubeconfig, token)
        finally:
            processes.stop_all()


def _served(cluster: Cluster) -> bool:
    """The API server answers 429 for new definitions until their storage is ready."""
    try:
        cluster.kubectl("get", "ppt,pev")
    except Refused:
        return False
    return True
