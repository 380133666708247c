"""What users may not get by way of the operator, and what it must not tell: on a real API server, with the rights of the chart."""

import base64
import json

import pytest

from patho_api import names
from tests.cluster import release, runs
from tests.cluster.cluster import Cluster, condition

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]
CANARY = "canary-0b8e6d55f1"
KINDS = "ppt,pev,jobs,pods,services,events,configmaps,leases"


def test_a_secrets_content_is_in_no_object_event_or_log(here: Cluster, operator: release.Operator):
    keys = {"access_key_id": "user", "secret_access_key": CANARY}
    here.apply({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": keys})
    manifest = runs.pretrain("careful", annotations=runs.ends(1, reason="Crashed", message="no"), maxRestarts=0)
    manifest["spec"]["slides"]["storage"] = manifest["spec"]["checkpoints"]["storage"] = {"secretName": "keys"}
    here.apply(manifest)
    runs.wait_for(here, "careful", "Failed")
    said = here.kubectl("get", KINDS, "-o", "json", "--show-managed-fields") + operator.log()
    assert "careful" in said
    assert CANARY not in said
    assert base64.b64encode(CANARY.encode()).decode() not in said


@pytest.mark.parametrize(
    "overlay",
    [
        {"hostPID": True},
        {"serviceAccountName": "admin"},
        {"volumes": [{"name": "root", "hostPath": {"path": "/"}}]},
        {"containers": [{"name": names.CONTAINER, "securityContext": {"privileged": True}}]},
    ],
    ids=lambda overlay: next(iter(overlay)),
)
def test_an_overlay_that_takes_over_makes_no_pod(here: Cluster, overlay: dict):
    manifest = runs.pretrain("hostile")
    manifest["spec"]["compute"]["podTemplate"] = {"spec": overlay}
    here.apply(manifest)
    failed = condition(runs.wait_for(here, "hostile", "Failed"), "Failed")
    assert failed["reason"] == "Refused"
    assert "podTemplate" in failed["message"]
    assert not here.list("jobs")


def test_other_commands_have_no_effect_and_are_told(here: Cluster):
    manifest = runs.pretrain("sly", nodes=1)
    manifest["spec"]["compute"]["podTemplate"] = {
        "spec": {"containers": [{"name": names.CONTAINER, "command": ["sh"], "args": ["-c", "id"]}]}
    }
    here.apply(manifest)
    (pod,) = runs.running(here, "sly", 1)
    assert "sh" not in json.dumps(pod["spec"]["containers"][0]["command"])
    found = condition(runs.wait_for(here, "sly", "Running"), "FullySupported")
    assert "command has no effect" in found["message"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "a%2fb", "A", "-a"])
def test_names_cannot_climb(here: Cluster, name: str):
    with pytest.raises(Exception, match=r"Invalid|invalid|not valid|may not"):
        here.apply(runs.pretrain(name))
