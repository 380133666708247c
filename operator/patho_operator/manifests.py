"""Objects of an attempt: one Indexed Job; for all attempts a headless Service (more than one node) and a NetworkPolicy (if asked). Pure."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from patho_api import names
from patho_api.evaluate import EvalModel, EvalSpec
from patho_api.pretrain import PretrainSpec
from patho_api.resource import Resource
from patho_operator import overlay, pods, restricted
from patho_operator.observed import COMPLETION_INDEX, Before

Manifest = dict[str, Any]

# Parts of the specification that apply without new pods
LIVE_FIELDS = ({"run_policy", "evaluations"}, {"checkpoints": {"keep"}})
RETRIES_PER_INDEX = 1000  # never the judge: the operator is
# What null stands for with DINO, and the API server once wrote into every specification as a default
ONCE_WRITTEN_CROPS = {"global_scale": [0.4, 1.0], "local_scale": [0.05, 0.4]}
ONCE_WRITTEN_TRAINING = {"norm_last_layer": True}


def spec_hash(resource: Resource) -> str:
    """Hash of the part of the specification that the pods were made from.

    Defaults are left out: a release that adds a field, or says null for an old default, and an empty image that resolves anew, restart
    nothing.
    """
    fields: dict[str, Any] = dict.fromkeys(LIVE_FIELDS[0], True) | LIVE_FIELDS[1]
    kept = _without_old_defaults(resource.spec).model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=fields)
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _without_old_defaults(spec: PretrainSpec | EvalSpec) -> PretrainSpec | EvalSpec:
    """The specification with null for the values in ONCE_WRITTEN_*: it means the same, and hashes alike."""
    if not isinstance(spec, PretrainSpec) or spec.method != "DINO":
        return spec
    training, crops = spec.training, spec.training.crops
    scales = {name: None for name, value in ONCE_WRITTEN_CROPS.items() if getattr(crops, name) == value}
    others = {name: None for name, value in ONCE_WRITTEN_TRAINING.items() if getattr(training, name) == value}
    return spec.model_copy(update={"training": training.model_copy(update={"crops": crops.model_copy(update=scales), **others})})


def job_name(resource: Resource, attempt: int) -> str:
    """`<run>-pt-<attempt>` or `<run>-ev-<attempt>`."""
    return f"{pods.subdomain(resource)}-{attempt}"


def run_id(uid: str, attempt: int) -> str:
    """Unique for each attempt of each resource that ever was: torchrun's rendezvous id."""
    return f"{uid}-{attempt}"


def with_model(resource: Resource, url: str, storage: Any = None) -> Resource:
    """A PathoEval whose reference to a PathoPretrain is replaced by the checkpoint it stands for."""
    spec = resource.spec
    if not isinstance(spec, EvalSpec) or spec.model.pretrain is None:
        return resource
    model = EvalModel(url=url, normalization=spec.model.normalization, pooling=spec.model.pooling)
    changes: dict[str, Any] = {"model": model} | ({"storage": storage} if storage else {})
    return Resource(resource.kind, resource.name, spec.model_copy(update=changes), resource.namespace, resource.uid, resource.generation)


def job(
    resource: Resource,
    *,
    attempt: int,
    image: str,
    before: Before,
    reason: str,
    wanted_hash: str,
    from_step: int | None = None,
    model_url: str = "",
    best_by: str = "",
) -> Manifest:
    """The Job of an attempt; its pods carry the whole specification. `resource` has its model resolved (`with_model`).

    `best_by` is the task by which a PathoEval decides on its run's best checkpoint.
    """
    compute = resource.spec.compute
    name = job_name(resource, attempt)
    labels = _labels(resource) | {names.LABEL_UID: resource.uid, names.LABEL_ATTEMPT: str(attempt)}
    annotations = {
        names.ANNOTATION_SPEC_HASH: wanted_hash,
        names.ANNOTATION_IMAGE: compute.image or image,
        names.ANNOTATION_REASON: reason,
        names.ANNOTATION_BEFORE: _before(before),
        names.ANNOTATION_FROM_STEP: "" if from_step is None else str(from_step),
        names.ANNOTATION_MODEL_URL: model_url,
    }
    variables = {names.ENV_RANK0_HOST: _host(resource, name)} | ({names.ENV_BEST_BY: best_by} if best_by else {})
    template = pods.template(
        resource, attempt=attempt, image=image, run_id=run_id(resource.uid, attempt), labels=labels, variables=variables
    )
    metadata = _metadata(resource, name, labels) | {"annotations": {key: value for key, value in annotations.items() if value}}
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": _job_spec(compute.nodes, template)}
    return _queued(body, compute.queue_name, compute.min_nodes, compute.nodes) if compute.queue_name else body


def overlay_words(resource: Resource) -> tuple[list[str], list[str]]:
    """What compute.podTemplate may not ask for, and which of its fields have no effect because the operator owns them: a sentence each."""
    over = resource.spec.compute.pod_template
    if not over:
        return [], []
    made = job(resource, attempt=1, image="", before=Before(), reason="", wanted_hash="")["spec"]["template"]
    refused = sorted([*restricted.overlay_refusals(over), *restricted.refusals(made["spec"])])
    return refused, [f"spec.compute.podTemplate.{path} has no effect: the operator owns it" for path in overlay.ignored(over, made)]


def service(resource: Resource) -> Manifest:
    """The headless Service that gives index 0 of each attempt its name, at which the others meet it; ready or not, since they meet before
    they are ready. Of index 0 alone: for each pod that comes or goes the control plane would write the addresses of all."""
    labels = _labels(resource)
    spec = {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": _all_pods(labels) | {COMPLETION_INDEX: "0"}}
    return {"apiVersion": "v1", "kind": "Service", "metadata": _metadata(resource, pods.subdomain(resource), labels), "spec": spec}


def network_policy(resource: Resource, metrics_from: Sequence[Mapping[str, Any]]) -> Manifest:
    """What may reach the pods of all attempts: each other on any port (NCCL picks its own), and `metrics_from` (peers as in a
    NetworkPolicy; empty: anybody) the port of metrics and progress. The rendezvous has no authentication of its own."""
    labels = _labels(resource)
    metadata = _metadata(resource, pods.subdomain(resource), labels)
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": policy_spec(labels, metrics_from)}


def policy_spec(labels: Mapping[str, str], metrics_from: Sequence[Mapping[str, Any]]) -> Manifest:
    """What the policy of the run with these labels says, as the API server gives it back."""
    own = {"matchLabels": _all_pods(labels)}
    metrics: Manifest = {"ports": [{"port": names.PORT_METRICS, "protocol": "TCP"}]}
    if metrics_from:
        metrics["from"] = [dict(peer) for peer in metrics_from]
    return {"podSelector": own, "policyTypes": ["Ingress"], "ingress": [{"from": [{"podSelector": own}]}, metrics]}


def _all_pods(labels: Mapping[str, str]) -> dict[str, str]:
    """What selects the pods of all attempts of the run with these labels."""
    return {k: labels[k] for k in (names.LABEL_RUN, names.LABEL_KIND)}


def _job_spec(nodes: int, template: Mapping[str, Any]) -> Manifest:
    return {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        # each index has its own back-off: a gang that lost index 0 trains again after 19 s instead of a minute
        "backoffLimitPerIndex": RETRIES_PER_INDEX,
        "maxFailedIndexes": 0,
        "podReplacementPolicy": "Failed",  # the only one that goes with a podFailurePolicy
        "podFailurePolicy": {
            "rules": [
                _on_exit("FailJob", *names.PERMANENT_EXITS),
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                _on_exit("Ignore", names.EXIT_STOPPED),
            ]
        },
        # rank 0 leaves only when all have committed the last checkpoint: an index drained at the very end is not run again
        "successPolicy": {"rules": [{"succeededIndexes": "0"}]},
        "template": template,
    }


def _on_exit(action: str, *codes: int) -> Manifest:
    return {"action": action, "onExitCodes": {"containerName": names.CONTAINER, "operator": "In", "values": sorted(codes)}}


def _queued(body: Manifest, queue: str, fewest: int | None, nodes: int) -> Manifest:
    """Kueue's contract: its label, created suspended; an elastic run may be admitted in part."""
    metadata = dict(body["metadata"])
    metadata["labels"] = metadata["labels"] | {names.LABEL_QUEUE: queue}
    if fewest is not None and fewest < nodes:
        partial = {"kueue.x-k8s.io/job-min-parallelism": str(fewest), "kueue.x-k8s.io/job-completions-equal-parallelism": "true"}
        metadata["annotations"] = metadata["annotations"] | partial
    return body | {"metadata": metadata, "spec": body["spec"] | {"suspend": True}}


def _host(resource: Resource, name: str) -> str:
    """DNS name of index 0; a single node meets itself."""
    if resource.spec.compute.nodes == 1:
        return "localhost"
    return f"{name}-0.{pods.subdomain(resource)}.{resource.namespace}.svc"


def _labels(resource: Resource) -> dict[str, str]:
    return {names.LABEL_RUN: resource.name, names.LABEL_KIND: resource.kind, names.LABEL_MANAGED_BY: names.MANAGED_BY}


def _metadata(resource: Resource, name: str, labels: Mapping[str, str]) -> Manifest:
    return {"name": name, "namespace": resource.namespace, "labels": dict(labels), "ownerReferences": [owner(resource)]}


def owner(resource: Resource) -> Manifest:
    """What makes an object go when the resource goes. No blockOwnerDeletion: it would need a right to finalizers."""
    return {"apiVersion": names.API_VERSION, "kind": resource.kind, "name": resource.name, "uid": resource.uid, "controller": True}


def _before(before: Before) -> str:
    totals = {
        "restarts": before.restarts,
        "disruptions": before.disruptions,
        "acceleratorSeconds": round(before.accelerator_seconds, 1),
    }
    return json.dumps(totals)
