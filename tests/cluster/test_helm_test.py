"""`helm test` on the real node: its pod asks the operator's pod, and says so when there is none."""

import pytest

from tests.cluster import release
from tests.cluster.cluster import Cluster, Refused

pytestmark = [pytest.mark.node, pytest.mark.timeout(600)]


@pytest.fixture
def system(lab: Cluster) -> Cluster:
    """The cluster, in the namespace of the release."""
    return lab.inside(release.NAMESPACE)


def helm_test(system: Cluster) -> str:
    return system.helm("test", release.NAME, "--timeout=100s", "--logs")


def test_it_passes_where_the_operator_answers(system: Cluster):
    said = helm_test(system)
    assert f"http://{release.NAME}.{release.NAMESPACE}.svc:8080/readyz answers: ok" in said
    assert not system.exists("pod", "pathoscale-test")


def test_it_fails_where_no_operator_is_and_says_where_to_look(system: Cluster):
    system.kubectl("scale", f"deployment/{release.DEPLOYMENT}", "--replicas=0")
    system.wait_gone("pods", "app.kubernetes.io/name=pathoscale-operator", seconds=90)
    try:
        with pytest.raises(Refused, match="pathoscale-test failed"):
            helm_test(system)
        said = system.kubectl("logs", "pathoscale-test")
    finally:
        system.kubectl("scale", f"deployment/{release.DEPLOYMENT}", "--replicas=1")
        system.kubectl("rollout", "status", f"deployment/{release.DEPLOYMENT}", "--timeout=110s")
    assert "the operator does not answer" in said
    assert f"kubectl --namespace {release.NAMESPACE} describe deployment {release.DEPLOYMENT}" in said
