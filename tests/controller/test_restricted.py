"""Overlays that try to take over: refused with the field's name, and nothing is created."""

import pytest

from patho_api import names
from patho_operator import manifests, restricted, subject
from tests.controller.builders import make_pretrain, plan_for


def container(**security):
    return {"containers": [{"name": names.CONTAINER, "securityContext": security}]}


HOSTILE = [
    ({"hostNetwork": True}, "hostNetwork"),
    ({"hostPID": True}, "hostPID"),
    ({"hostIPC": True}, "hostIPC"),
    ({"serviceAccountName": "admin"}, "serviceAccountName"),
    ({"serviceAccount": "admin"}, "serviceAccount"),
    ({"nodeName": "control-plane"}, "nodeName"),
    ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "volumes[root].hostPath"),
    ({"securityContext": {"runAsUser": 0}}, "securityContext.runAsUser"),
    ({"securityContext": {"runAsNonRoot": False}}, "securityContext.runAsNonRoot"),
    ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "securityContext.seccompProfile"),
    ({"securityContext": None}, "securityContext.runAsNonRoot"),  # null takes ours out
    ({"securityContext": {"runAsNonRoot": None, "runAsUser": None}}, "securityContext.runAsNonRoot"),
    ({"securityContext": {"seccompProfile": None}}, "securityContext.seccompProfile"),
    ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, "securityContext.sysctls"),
    (container(privileged=True), "containers[trainer].securityContext.privileged"),
    (container(allowPrivilegeEscalation=True), "containers[trainer].securityContext.allowPrivilegeEscalation"),
    (container(capabilities={"add": ["SYS_ADMIN"]}), "containers[trainer].securityContext.capabilities.add"),
    (container(capabilities={"drop": []}), "containers[trainer].securityContext.capabilities.drop"),
    (container(procMount="Unmasked"), "containers[trainer].securityContext.procMount"),
    (container(runAsUser=0), "containers[trainer].securityContext.runAsUser"),
    ({"containers": [{"name": "x", "image": "y", "ports": [{"containerPort": 1, "hostPort": 1}]}]}, "containers[x].ports.hostPort"),
    ({"initContainers": [{"name": "x", "securityContext": {"privileged": True}}]}, "initContainers[x].securityContext.privileged"),
]


@pytest.mark.parametrize(("spec", "field"), HOSTILE)
def test_an_overlay_that_takes_over_is_refused_by_name(spec, field):
    body = make_pretrain(compute={"podTemplate": {"spec": spec}})
    assert [
        sentence for sentence in subject.parse(body).refusals if sentence.startswith(f"spec.compute.podTemplate.spec.{field} is refused")
    ]
    plan = plan_for(body)
    assert plan.creates == ()
    failed = next(c for c in plan.status["conditions"] if c["type"] == "Failed")
    assert (failed["status"], field in failed["message"]) == ("True", True)


@pytest.mark.parametrize(
    "nonsense",
    [
        "x",
        ["x"],
        {"containers": "x"},
        {"containers": ["x"]},
        {"containers": [{"name": ["x"]}]},
        {"tolerations": [{"name": {}}]},
        {"volumes": {"a": 1}},
        {"securityContext": "x"},
    ],
)
def test_nonsense_is_left_to_the_api_server(nonsense):
    assert isinstance(subject.parse(make_pretrain(compute={"podTemplate": {"spec": nonsense}})).refusals, tuple)


def test_what_people_need_is_not_refused():
    spec = {
        "hostUsers": False,
        "runtimeClassName": "nvidia",
        "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "cache"}}, {"name": "ca", "configMap": {"name": "ca"}}],
        "initContainers": [{"name": "warm", "image": "busybox"}],
        "containers": [{"name": names.CONTAINER, "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}],
        "affinity": {"nodeAffinity": {}},
    }
    assert subject.parse(make_pretrain(compute={"podTemplate": {"spec": spec}})).refusals == ()


def test_a_pod_without_overlay_meets_the_standard():
    found = subject.parse(make_pretrain()).resource
    made = manifests.job(found, attempt=1, image="x", before=manifests.Before(), reason="", wanted_hash="")
    assert list(restricted.refusals(made["spec"]["template"]["spec"])) == []
