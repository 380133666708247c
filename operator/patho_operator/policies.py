"""NetworkPolicies of live runs follow the operator's settings, and are put back where somebody edited them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from patho_api import names
from patho_operator import errors, manifests, watch
from patho_operator.cluster import Cluster, Json

log = logging.getLogger(__name__)

Peers = Sequence[Mapping[str, Any]]


async def refresh(cluster: Cluster, namespaces: Sequence[str], metrics_from: Peers) -> None:
    """One list, and a write for each policy that differs. Raises ApiError."""
    for namespace in namespaces or ("",):
        for policy in await cluster.objects("NetworkPolicy", namespace, watch.SELECTOR):
            if change := amendment(policy, metrics_from):
                await _amend(cluster, policy, change)


def amendment(policy: Json, metrics_from: Peers) -> Json | None:
    """The merge patch of a run's policy that is not as it should be; None where it is, or where the policy is somebody else's. Pure."""
    metadata = policy["metadata"]
    owners = metadata.get("ownerReferences") or []
    if not any(owner.get("controller") and owner.get("apiVersion") == names.API_VERSION for owner in owners):
        return None
    wanted = manifests.policy_spec(metadata["labels"], metrics_from)
    same = {"uid": metadata["uid"], "resourceVersion": metadata["resourceVersion"]}
    return {"metadata": same, "spec": wanted} if policy.get("spec") != wanted else None


async def _amend(cluster: Cluster, policy: Json, change: Json) -> None:
    namespace, name = policy["metadata"]["namespace"], policy["metadata"]["name"]
    try:
        await cluster.amend("NetworkPolicy", namespace, name, change)
    except (errors.NotFound, errors.Conflict):
        return  # it went, or changed again: the next round looks once more
    log.info("NetworkPolicy %s/%s follows the settings", namespace, name)
