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
    """One list, and a write for each policy that differs. What the server refuses is logged: the next round tries it once more."""
    for namespace in namespaces or ("",):
        try:
            found = await cluster.objects("NetworkPolicy", namespace, watch.SELECTOR)
        except errors.ApiError as error:
            log.warning("NetworkPolicies of live runs were not looked at: %s", error)
            continue
        for policy in found:
            if change := amendment(policy, metrics_from):
                await _amend(cluster, policy, change)


def amendment(policy: Json, metrics_from: Peers) -> list[Json] | None:
    """The JSON patch of a run's policy that is not as it should be; None where it is, or where the policy is somebody else's. Pure."""
    metadata = policy["metadata"]
    owners = metadata.get("ownerReferences") or []
    owner = next((each for each in owners if each.get("controller") and each.get("apiVersion") == names.API_VERSION), None)
    if owner is None:
        return None
    wanted = manifests.policy_spec({names.LABEL_RUN: owner["name"], names.LABEL_KIND: owner["kind"]}, metrics_from)
    if _as_written_back(policy.get("spec")) == _as_written_back(wanted):
        return None
    same = {"op": "test", "path": "/metadata/resourceVersion", "value": metadata["resourceVersion"]}
    return [same, {"op": "replace", "path": "/spec", "value": wanted}]  # a merge would leave what was added


def _as_written_back(value: Any) -> Any:
    """As the API server writes it: without null, empty lists and empty `matchLabels`; an empty selector selects all, and stays."""
    if isinstance(value, list):
        return [_as_written_back(each) for each in value]
    if isinstance(value, Mapping):
        return {k: _as_written_back(v) for k, v in value.items() if v is not None and v != [] and (k, v) != ("matchLabels", {})}
    return value


async def _amend(cluster: Cluster, policy: Json, change: Sequence[Json]) -> None:
    namespace, name = policy["metadata"]["namespace"], policy["metadata"]["name"]
    try:
        await cluster.amend("NetworkPolicy", namespace, name, change)
    except errors.NotFound:
        return
    except errors.ApiError as error:
        log.warning("NetworkPolicy %s/%s does not follow the settings: %s", namespace, name, error)
    else:
        log.info("NetworkPolicy %s/%s follows the settings", namespace, name)
