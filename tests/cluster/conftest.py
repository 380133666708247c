"""Fixtures: a cluster for the session, a namespace for each test.

`cluster` is a control plane on this machine with fake nodes; KUBECONFIG together with PATHOSCALE_USE_KUBECONFIG=1 names a
throw-away cluster to use instead (CRDs and fake nodes are put into it).
"""

import os
import pathlib
import tempfile
import uuid
from collections.abc import Iterator

import pytest

from tests.cluster import controlplane, kwok, tools
from tests.cluster.cluster import Cluster
from tests.cluster.processes import Processes

FAKE_NODES = 3
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the tools before the first test starts its clock."""
    wanted = any(item.get_closest_marker(mark) for item in session.items for mark in ("cluster", "node"))
    if wanted and not session.config.option.collectonly and tools.missing() and not tools.reason_against_building():
        with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
            print("\nbuilding the control plane from pinned Go modules: about ten minutes, once")
            tools.build()


@pytest.fixture(scope="session")
def folder() -> Iterator[pathlib.Path]:
    """A short path for the session: sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="patho-", ignore_cleanup_errors=True) as name:
        yield pathlib.Path(name)


@pytest.fixture(scope="session")
def processes(folder: pathlib.Path) -> Iterator[Processes]:
    """The session's processes; all are ended."""
    group = Processes(folder)
    yield group
    group.stop_all()


@pytest.fixture(scope="session")
def cluster(processes: Processes) -> Iterator[Cluster]:
    """A cluster with three fake nodes, as its administrator."""
    if reason := tools.missing() and tools.reason_against_building():
        pytest.skip(f"NOT RUN: {reason}")
    access = _foreign_cluster() or controlplane.start(processes).cluster
    kwok.start(processes, access.kubeconfig)
    kwok.add_nodes(access, FAKE_NODES)
    yield access
    kwok.remove_nodes(access)


@pytest.fixture
def here(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, in a new namespace that enforces the restricted Pod Security Standard."""
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    yield cluster.inside(name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def _foreign_cluster() -> Cluster | None:
    if os.environ.get("PATHOSCALE_USE_KUBECONFIG") != "1":
        return None
    return Cluster(pathlib.Path(os.environ["KUBECONFIG"]))
