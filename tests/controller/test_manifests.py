"""What an attempt's objects look like, and that a pod runs what a laptop runs."""

import json

import pytest
from torchx import runner

from patho_api import launch, names
from patho_operator import manifests, observed, subject
from tests.controller.builders import UID, created, make_pretrain, plan_for

STORAGE = {"secretName": "gcs-key"}


def job_of(**compute):
    return created(plan_for(make_pretrain(compute=compute)))


def template_of(**compute):
    return job_of(**compute)["spec"]["template"]


def container_of(**compute):
    return template_of(**compute)["spec"]["containers"][0]


def variables(container):
    return {e["name"]: e["value"] for e in container["env"]}


def test_an_attempt_is_one_indexed_job_that_judges_nothing_itself():
    spec = job_of(nodes=3)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"], spec["podReplacementPolicy"]) == (1000, 0, "Failed")
    assert spec["successPolicy"] == {"rules": [{"succeededIndexes": "0"}]}
    assert "backoffLimit" not in spec


def test_permanent_exits_fail_the_job_and_disruptions_are_ignored():
    first, second, third = job_of()["spec"]["podFailurePolicy"]["rules"]
    assert (first["action"], first["onExitCodes"]["values"]) == ("FailJob", [40, 41, 42])
    assert (second["action"], second["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")
    assert (third["action"], third["onExitCodes"]["values"]) == ("Ignore", [143])


def test_the_pod_meets_the_restricted_pod_security_standard():
    spec = template_of()["spec"]
    container = spec["containers"][0]["securityContext"]
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["securityContext"]["runAsUser"] == 65532
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    assert {next(iter(v.keys() - {"name"})) for v in spec["volumes"]} == {"emptyDir"}


def test_the_pod_can_write_where_it_must():
    spec = template_of(processesPerNode=4)["spec"]
    mounts = {m["mountPath"]: m["name"] for m in spec["containers"][0]["volumeMounts"]}
    volumes = {v["name"]: v["emptyDir"] for v in spec["volumes"]}
    assert volumes[mounts["/tmp"]] == {}
    assert volumes[mounts["/dev/shm"]] == {"medium": "Memory", "sizeLimit": "4Gi"}
    assert variables(spec["containers"][0])["HOME"] == "/tmp"


def test_the_pod_has_no_service_account_token_unless_it_asks_for_an_account():
    assert template_of()["spec"]["automountServiceAccountToken"] is False
    spec = template_of(serviceAccountName="workload")["spec"]
    assert (spec["automountServiceAccountToken"], spec["serviceAccountName"]) == (True, "workload")


def test_requests_equal_limits_unless_both_are_given():
    limits = {"cpu": "4", "nvidia.com/gpu": 2}
    assert container_of(resources={"limits": limits})["resources"]["requests"] == {"cpu": "4", "nvidia.com/gpu": "2"}
    assert container_of(resources={"limits": limits, "requests": {"cpu": "1"}})["resources"]["requests"] == {"cpu": "1"}


def test_many_nodes_meet_at_index_0_by_its_name_and_one_meets_itself():
    assert variables(container_of(nodes=2))[names.ENV_RANK0_HOST] == "vits16-pt-1-0.vits16-pt.lab.svc"
    assert variables(container_of())[names.ENV_RANK0_HOST] == "localhost"
    service = created(plan_for(make_pretrain(compute={"nodes": 2})), "Service")
    assert service["metadata"]["name"] == template_of(nodes=2)["spec"]["subdomain"]
    assert service["spec"]["publishNotReadyAddresses"]
    labels = template_of(nodes=2)["metadata"]["labels"] | {observed.COMPLETION_INDEX: "0"}  # which the Job controller adds
    assert service["spec"]["selector"].items() <= labels.items()
    assert observed.COMPLETION_INDEX in service["spec"]["selector"]  # for each pod of a thousand all their addresses would be written


def test_secrets_are_mounted_where_the_trainer_looks_for_them():
    body = make_pretrain()
    body["spec"]["slides"]["storage"] = {"secretName": "read"}
    body["spec"]["checkpoints"]["storage"] = {"secretName": "write"}
    spec = created(plan_for(body))["spec"]["template"]["spec"]
    secrets = {v["name"]: v["secret"]["secretName"] for v in spec["volumes"] if "secret" in v}
    mounts = {m["mountPath"]: (secrets[m["name"]], m["readOnly"]) for m in spec["containers"][0]["volumeMounts"] if m["name"] in secrets}
    assert mounts == {names.STORAGE_SECRET_DIR: ("read", True), names.CHECKPOINT_SECRET_DIR: ("write", True)}
    env = variables(spec["containers"][0])
    assert env[names.ENV_SECRET_DIR] == names.STORAGE_SECRET_DIR
    assert env[names.ENV_CHECKPOINT_SECRET_DIR] == names.CHECKPOINT_SECRET_DIR


def test_everything_a_run_owns_is_labelled_and_owned():
    metadata = job_of()["metadata"]
    assert metadata["labels"][names.LABEL_RUN] == "vits16"
    assert metadata["ownerReferences"][0]["uid"] == UID
    assert metadata["labels"].items() <= template_of()["metadata"]["labels"].items()


def test_with_the_switch_only_a_runs_own_pods_reach_its_rendezvous():
    operator = {"podSelector": {"matchLabels": {"app": "operator"}}}
    policy, job = plan_for(make_pretrain(), metrics_from=(operator,)).creates
    own = {"matchLabels": {names.LABEL_RUN: "vits16", names.LABEL_KIND: names.PRETRAIN}}
    assert policy["spec"]["podSelector"] == own
    assert own["matchLabels"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert policy["spec"]["ingress"][0] == {"from": [{"podSelector": own}]}
    assert policy["spec"]["ingress"][1] == {"ports": [{"port": 9400, "protocol": "TCP"}], "from": [operator]}
    assert policy["metadata"]["ownerReferences"] == job["metadata"]["ownerReferences"]


def test_a_policy_comes_before_the_pods_it_is_for_and_only_when_asked_for():
    two = make_pretrain(compute={"nodes": 2})
    assert [made["kind"] for made in plan_for(two, metrics_from=()).creates] == ["NetworkPolicy", "Service", "Job"]
    assert [made["kind"] for made in plan_for(two).creates] == ["Service", "Job"]
    assert "from" not in created(plan_for(two, metrics_from=()), "NetworkPolicy")["spec"]["ingress"][1]


def test_kueue_admits_what_is_created_suspended_with_its_label():
    job = job_of(nodes=4, minNodes=2, queueName="gpus")
    assert job["spec"]["suspend"]
    assert job["metadata"]["labels"][names.LABEL_QUEUE] == "gpus"
    assert job["metadata"]["annotations"]["kueue.x-k8s.io/job-min-parallelism"] == "2"


def test_the_kubelet_finds_nothing_to_expand_in_the_specification():
    body = make_pretrain()
    body["spec"]["slides"]["source"] = "gs://b/$(HOME)/${app_id}/"
    text = variables(created(plan_for(body))["spec"]["template"]["spec"]["containers"][0])[names.ENV_SPEC]
    assert "$" not in text
    assert json.loads(text)["slides"]["source"] == "gs://b/$(HOME)/${app_id}/"


def test_the_overlay_adds_what_the_operator_does_not_know():
    overlay = {
        "metadata": {"annotations": {"team": "path"}},
        "spec": {
            "hostUsers": False,
            "containers": [{"name": "trainer", "env": [{"name": "NCCL_DEBUG", "value": "INFO"}]}, {"name": "sidecar"}],
        },
    }
    template = template_of(podTemplate=overlay)
    trainer, sidecar = template["spec"]["containers"]
    assert variables(trainer)["NCCL_DEBUG"] == "INFO"
    assert names.ENV_SPEC in variables(trainer)
    assert (sidecar["name"], template["spec"]["hostUsers"]) == ("sidecar", False)
    assert sidecar["securityContext"]["allowPrivilegeEscalation"] is False
    assert template["metadata"]["annotations"] == {"team": "path"}


@pytest.mark.parametrize(
    ("overlay", "path"),
    [
        ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy"),
        ({"spec": {"containers": [{"name": "trainer", "command": ["sh"]}]}}, "spec.containers[trainer].command"),
        ({"spec": {"containers": [{"name": "trainer", "args": ["-c"]}]}}, "spec.containers[trainer].args"),
        ({"spec": {"containers": [{"name": "trainer", "env": [{"name": "PATHO_RUN", "value": "x"}]}]}}, "env[PATHO_RUN].value"),
        ({"spec": {"volumes": [{"name": "scratch", "hostPath": {"path": "/"}}]}}, "spec.volumes[scratch]"),
        ({"metadata": {"labels": {names.LABEL_RUN: "other"}}}, "metadata.labels"),
    ],
)
def test_what_the_operator_owns_cannot_be_overridden_and_is_said(overlay, path):
    body = make_pretrain(compute={"podTemplate": overlay})
    assert without_spec(created(plan_for(body))["spec"]["template"]) == without_spec(template_of())
    assert any(path in note and "the operator owns it" in note for note in subject.parse(body).notes)


@pytest.mark.parametrize("field", [None, [], [{"image": "other"}]])
def test_an_overlay_without_names_takes_nothing_away(field):
    container = container_of(podTemplate={"spec": {"containers": field, "volumes": None}}, resources={"limits": {"nvidia.com/gpu": "8"}})
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_fraction_of_a_gpu_is_for_the_api_server_to_refuse():
    assert container_of(resources={"limits": {"nvidia.com/gpu": "500m"}})["resources"]["limits"] == {"nvidia.com/gpu": "500m"}


def without_spec(template):
    """The template without the specification in its environment, whose order does not matter."""
    container = template["spec"]["containers"][0]
    env = {k: v for k, v in variables(container).items() if k != names.ENV_SPEC}
    return template | {"spec": template["spec"] | {"containers": [container | {"env": env}]}}


def test_a_pod_runs_what_a_laptop_runs():
    """The Job's container against torchx' own dry run of the same AppDef for this machine."""
    body = make_pretrain(compute={"nodes": 2, "processesPerNode": 2})
    found = subject.parse(body).resource
    container = created(plan_for(body))["spec"]["template"]["spec"]["containers"][0]
    with runner.get_runner() as local:
        request = local.dryrun(launch.appdef(found, attempt=1, image="trainer:1"), "local_cwd").request
    replicas = request.role_params[names.CONTAINER]
    assert len(replicas) == 2
    for index, replica in enumerate(replicas):
        macros = {f"{UID}-1": request.app_id, "$(JOB_COMPLETION_INDEX)": str(index), names.ENV_RANK0_HOST: "TORCHX_RANK0_HOST"}
        assert [macros.get(a, a) for a in [*container["command"], *container["args"]]] == replica.args
        shared = {k: v for k, v in variables(container).items() if k in launch.appdef(found).roles[0].env}
        assert shared == {k: v for k, v in replica.env.items() if k in shared}
        assert shared.keys() == launch.appdef(found).roles[0].env.keys()


def test_names_fit_into_what_a_pods_host_name_may_be():
    body = make_pretrain()
    body["metadata"]["name"] = "r" * names.MAX_NAME_LENGTH
    found = subject.parse(body).resource
    assert len(f"{manifests.job_name(found, 9999)}-4095") <= 63
