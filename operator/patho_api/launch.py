"""The one description of a run: specification -> torchx AppDef. torchx is imported here and nowhere else in the contract.

`patho run` executes the AppDef on this machine with torchx' local scheduler; the operator renders the same AppDef to an Indexed Job.
Both fill in torchx' macros: `app_id` (unique for each attempt: torchrun's rendezvous id), `replica_id` (index of the pod) and
`rank0_env` (name of the variable that holds the host of index 0).
"""

import dataclasses
import json

from torchx import specs

from patho_api import names
from patho_api.evaluate import EvalSpec
from patho_api.pretrain import PretrainSpec
from patho_api.resource import Resource

COMMANDS = {names.PRETRAIN: "pretrain", names.EVAL: "evaluate"}
SHUTDOWN_MARGIN_SECONDS = 10  # between torchrun's own time-out and the pod's SIGKILL


def appdef(resource: Resource, *, attempt: int = 1, image: str = "") -> specs.AppDef:
    """What attempt `attempt` of a run executes: one role of `compute.nodes` replicas, each with the spec in its environment.

    `image` stands in for an empty `compute.image`.
    """
    compute = resource.spec.compute
    role = specs.Role(
        name=names.CONTAINER,
        image=compute.image or image,
        min_replicas=compute.min_nodes,
        num_replicas=compute.nodes,
        entrypoint="python",
        args=_arguments(resource.kind),
        env=_environment(resource, attempt),
        max_retries=0,
        resource=_resource(resource.spec),
        port_map={"rendezvous": names.PORT_RENDEZVOUS, "metrics": names.PORT_METRICS},
    )
    return specs.AppDef(name=f"{resource.name}-{names.JOB_INFIX[resource.kind]}-{attempt}", roles=[role])


def fill(role: specs.Role, *, app_id: str, replica_id: str, rank0_env: str) -> specs.Role:
    """The role with torchx' macros filled in, as torchx' own schedulers do it. The environment holds none, and is long."""
    values = specs.macros.Values(img_root="", app_id=app_id, replica_id=replica_id, rank0_env=rank0_env)
    return dataclasses.replace(values.apply(dataclasses.replace(role, env={})), env=dict(role.env))


def spec_json(spec: PretrainSpec | EvalSpec) -> str:
    """The spec as JSON in which no `$` stands: torchx' macros and the kubelet would both expand it."""
    return json.dumps(spec.dump(), separators=(",", ":"), sort_keys=True).replace("$", r"\u0024")


def _arguments(kind: str) -> list[str]:
    macros = specs.macros
    return [
        "-m",
        "patho_trainer",
        COMMANDS[kind],
        "--run-id",
        macros.app_id,
        "--node-rank",
        macros.replica_id,
        "--rank0-env",
        macros.rank0_env,
    ]


def _environment(resource: Resource, attempt: int) -> dict[str, str]:
    grace_seconds = resource.spec.run_policy.grace_period_seconds
    return {
        names.ENV_KIND: resource.kind,
        names.ENV_RUN: resource.name,
        names.ENV_ATTEMPT: str(attempt),
        names.ENV_SPEC: spec_json(resource.spec),
        # a node that is replaced deadlocks the gang without this (torch shares its store handle across rounds)
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        # else torchrun kills its workers 30 s after SIGTERM, in the middle of the last checkpoint
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(max(1, grace_seconds - SHUTDOWN_MARGIN_SECONDS)),
    }


def _resource(spec: PretrainSpec | EvalSpec) -> specs.Resource:
    """torchx' view of the pod's size, for schedulers that place by it; 0 means unset."""
    gpus = spec.compute.resources.limits.get("nvidia.com/gpu", "0")
    return specs.Resource(cpu=-1, gpu=int(gpus) if gpus.isdigit() else 0, memMB=-1)
