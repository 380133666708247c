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

from tests.cluster import controlplane, kwok, leftovers, node, release, tools
from tests.cluster.cluster import Cluster
from tests.cluster.laboratory import bucket, lab  # noqa: F401  # fixtures
from tests.cluster.network import Network
from tests.cluster.processes import Processes

FAKE_NODES = 3
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the tools before the first test starts its clock."""
    wanted = any(item.get_closest_marker(mark) for item in session.items for mark in ("cluster", "node", "chaos"))
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
    _need_tools()
    access = _foreign_cluster(processes.folder) or controlplane.start(processes).cluster
    kwok.start(processes, access.kubeconfig)
    kwok.add_nodes(access, FAKE_NODES)
    yield access
    kwok.remove_nodes(access)


@pytest.fixture(scope="session")
def operator(cluster: Cluster, processes: Processes) -> Iterator[release.Operator]:
    """The operator beside the cluster: the chart's own pod finds no node, since fake ones would run nothing."""
    release.install(cluster, {"nodeSelector": node.SELECTOR})
    process = release.Operator(processes, cluster)
    process.start()
    yield process
    process.kill()
    release.uninstall(cluster)


@pytest.fixture(scope="module")
def without_operator(processes: Processes, request: pytest.FixtureRequest) -> Iterator[None]:
    """No operator acts on the cluster, whichever tests came before; one that did goes on afterwards."""
    if not processes.pid("operator"):
        yield
        return
    stopped: release.Operator = request.getfixturevalue("operator")
    stopped.kill()
    yield
    stopped.start()


@pytest.fixture(scope="session")
def real_node() -> Iterator[node.Node]:
    """A control plane of its own with a real kubelet; removed completely, as is what a killed run left."""
    _need_tools()
    if reason := node.reason_against():
        pytest.skip(f"NOT RUN: {reason}")
    with Network.claim() as network:
        leftovers.remove(network)
        group = Processes(network.folder)
        try:
            yield node.start(controlplane.start(group, network))
        finally:
            group.stop_all()
            leftovers.remove(network)


@pytest.fixture
def here(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, in a new namespace that enforces the restricted Pod Security Standard."""
    yield from _new_namespace(cluster)


@pytest.fixture
def on_node(real_node: node.Node) -> Iterator[Cluster]:
    """The real node's cluster, in such a namespace."""
    yield from _new_namespace(real_node.plane.cluster)


def _new_namespace(cluster: Cluster) -> Iterator[Cluster]:
    name = f"test-{uuid.uuid4().hex[:8]}"
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}})
    yield cluster.inside(name)
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def _need_tools() -> None:
    if tools.missing() and (reason := tools.reason_against_building()):
        pytest.skip(f"NOT RUN: {reason}")


def _foreign_cluster(folder: pathlib.Path) -> Cluster | None:
    """The cluster that KUBECONFIG names, if it is to be used; its credentials are copied, so that nothing is written beside them."""
    if os.environ.get("PATHOSCALE_USE_KUBECONFIG") != "1":
        return None
    given = Cluster(pathlib.Path(os.environ["KUBECONFIG"]))
    copy = folder / "admin.kubeconfig"
    copy.touch(mode=0o600)
    copy.write_text(given.kubectl("config", "view", "--minify", "--raw", "--flatten"))
    return Cluster(copy)
