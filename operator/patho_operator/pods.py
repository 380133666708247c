"""The pod of a run: the AppDef's role as a pod template that meets the *restricted* Pod Security Standard. Pure."""

from collections.abc import Mapping
from typing import Any

from torchx import specs

from patho_api import common, launch, names
from patho_api.pretrain import PretrainSpec
from patho_api.resource import Resource
from patho_operator import overlay, restricted

Manifest = dict[str, Any]

USER = 65532  # "nonroot" of distroless images; the trainer image uses the same
INDEX = "$(JOB_COMPLETION_INDEX)"  # expanded by the kubelet; the Job controller sets the variable
SCRATCH, SHARED_MEMORY, STORAGE, CHECKPOINT_STORAGE = "scratch", "shared-memory", "storage-secret", "checkpoint-storage-secret"


def template(
    resource: Resource, *, attempt: int, image: str, run_id: str, labels: Mapping[str, str], variables: Mapping[str, str]
) -> Manifest:
    """Pod template of an attempt: ours, the user's overlay on top, and what the operator owns on top of that.

    `resource` is rendered as it is given; `image` stands in for an empty `compute.image`; `variables` are added to the environment.
    """
    owned = _owned(resource, _role(resource, attempt, image, run_id), labels, variables)
    volumes = {volume["name"] for volume in owned["spec"]["volumes"]}
    wanted = overlay.without_named(resource.spec.compute.pod_template, "volumes", volumes)
    wanted = overlay.without_named(wanted, "containers", set())
    merged: Manifest = overlay.merge(overlay.merge(_defaults(resource), wanted), owned)
    for field in restricted.CONTAINERS:  # of the overlay's own too
        if isinstance(found := merged["spec"].get(field), list):
            merged["spec"][field] = [overlay.merge({"securityContext": restricted.SECURITY}, c) for c in found]
    return merged


def _role(resource: Resource, attempt: int, image: str, run_id: str) -> specs.Role:
    app = launch.appdef(resource, attempt=attempt, image=image)
    return launch.fill(app.roles[0], app_id=run_id, replica_id=INDEX, rank0_env=names.ENV_RANK0_HOST)


def _defaults(resource: Resource) -> Manifest:
    """What the overlay may change."""
    compute = resource.spec.compute
    limits = dict(compute.resources.limits)
    container = {
        "name": names.CONTAINER,
        "resources": {"limits": limits, "requests": dict(compute.resources.requests) or limits},
        "securityContext": restricted.SECURITY,
    }
    spec = {
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "enableServiceLinks": False,
        "containers": [container],
    }
    return {"spec": spec}


def _owned(resource: Resource, role: specs.Role, labels: Mapping[str, str], variables: Mapping[str, str]) -> Manifest:
    """What the overlay cannot change: what runs, how it is found and how it ends."""
    compute, policy = resource.spec.compute, resource.spec.run_policy
    secrets = _secrets(resource)
    spec = {
        "restartPolicy": "Never",
        "subdomain": subdomain(resource),
        "terminationGracePeriodSeconds": policy.grace_period_seconds,
        "automountServiceAccountToken": bool(compute.service_account_name),
        "containers": [_container(role, variables, secrets)],
        "volumes": [*_volumes(compute), *({"name": name, "secret": {"secretName": secret}} for name, secret, _, _ in secrets)],
    }
    optional = {
        "serviceAccountName": compute.service_account_name,
        "schedulerName": compute.scheduler_name,
        "priorityClassName": compute.priority_class_name,
        "nodeSelector": compute.node_selector,
        "tolerations": compute.tolerations,
    }
    return {"metadata": {"labels": dict(labels)}, "spec": spec | {key: value for key, value in optional.items() if value}}


def subdomain(resource: Resource) -> str:
    """Name of the headless Service that all attempts of a run share."""
    return f"{resource.name}-{names.JOB_INFIX[resource.kind]}"


def _container(role: specs.Role, more: Mapping[str, str], secrets: list[tuple[str, str, str, str]]) -> Manifest:
    variables = role.env | {
        **more,
        names.ENV_TERMINATION_LOG: names.TERMINATION_LOG,
        names.ENV_SCRATCH_DIR: names.SCRATCH_DIR,
        "HOME": names.SCRATCH_DIR,
        **{variable: folder for _, _, variable, folder in secrets},
    }
    mounts: list[Manifest] = [{"name": SCRATCH, "mountPath": names.SCRATCH_DIR}, {"name": SHARED_MEMORY, "mountPath": "/dev/shm"}]
    mounts += [{"name": name, "mountPath": folder, "readOnly": True} for name, _, _, folder in secrets]
    return {
        "name": names.CONTAINER,
        "image": role.image,
        "command": [role.entrypoint],
        "args": list(role.args),
        "env": [{"name": name, "value": value} for name, value in variables.items()],
        "ports": [{"name": name, "containerPort": port} for name, port in role.port_map.items()],
        "volumeMounts": mounts,
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "FallbackToLogsOnError",  # the tail of the log says more than nothing
    }


def _volumes(compute: common.Compute) -> list[Manifest]:
    """Writable places. NCCL and gloo exchange tensors of local processes through /dev/shm; the runtime's default is 64 MiB."""
    return [
        {"name": SCRATCH, "emptyDir": {}},
        {"name": SHARED_MEMORY, "emptyDir": {"medium": "Memory", "sizeLimit": f"{compute.processes_per_node}Gi"}},
    ]


def _secrets(resource: Resource) -> list[tuple[str, str, str, str]]:
    """Secrets to mount: (volume, secret, environment variable, folder)."""
    spec = resource.spec
    if isinstance(spec, PretrainSpec):
        data, checkpoints = spec.slides.storage, spec.checkpoints.storage
    else:
        data, checkpoints = spec.storage, None
    wanted = [
        (STORAGE, data.secret_name, names.ENV_SECRET_DIR, names.STORAGE_SECRET_DIR),
        (
            CHECKPOINT_STORAGE,
            checkpoints.secret_name if checkpoints else "",
            names.ENV_CHECKPOINT_SECRET_DIR,
            names.CHECKPOINT_SECRET_DIR,
        ),
    ]
    return [entry for entry in wanted if entry[1]]
