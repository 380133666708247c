"""What a pod's overlay may not ask for: the *restricted* Pod Security Standard, held whether or not the namespace enforces it. Pure.

https://kubernetes.io/docs/concepts/security/pod-security-standards: whoever may create a run must not get more than the operator gives.
"""

from collections.abc import Iterator, Mapping
from typing import Any

VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
CAPABILITIES = {"NET_BIND_SERVICE"}
CONTAINERS = ("containers", "initContainers")
INSTEAD = {  # not of the standard: these have a field of their own, or go round the scheduler
    "serviceAccountName": "set spec.compute.serviceAccountName",
    "serviceAccount": "set spec.compute.serviceAccountName",
    "nodeName": "set spec.compute.nodeSelector",
}
SECURITY: dict[str, Any] = {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}


def overlay_refusals(overlay: Any) -> Iterator[str]:
    """A sentence for each field of compute.podTemplate that has its own place in the specification."""
    spec = _mapping(_mapping(overlay).get("spec"))
    for field in INSTEAD.keys() & spec.keys():
        yield f"spec.compute.podTemplate.spec.{field} is refused: {INSTEAD[field]}"


def refusals(pod: Any) -> Iterator[str]:
    """A sentence for each thing in a pod's specification that breaks the standard."""
    for path in _violations(_mapping(pod)):
        yield f"spec.compute.podTemplate.spec.{path} is refused: pods of a run meet the restricted Pod Security Standard"


def _violations(pod: Mapping[str, Any]) -> Iterator[str]:
    yield from (flag for flag in ("hostNetwork", "hostPID", "hostIPC") if pod.get(flag))
    for volume in _mappings(pod.get("volumes")):
        yield from (f"volumes[{volume.get('name')}].{kind}" for kind in sorted(volume.keys() - {"name"} - VOLUMES))
    security = _mapping(pod.get("securityContext"))
    yield from _identity(security, "securityContext")
    yield from _removed(security)
    for field in CONTAINERS:
        for container in _mappings(pod.get(field)):
            yield from _container(container, f"{field}[{container.get('name')}]")


def _container(container: Mapping[str, Any], path: str) -> Iterator[str]:
    security = _mapping(container.get("securityContext"))
    capabilities = _mapping(security.get("capabilities"))
    inside = f"{path}.securityContext"
    if security.get("privileged"):
        yield f"{inside}.privileged"
    if security.get("allowPrivilegeEscalation") is not False:
        yield f"{inside}.allowPrivilegeEscalation"
    if set(map(str, capabilities.get("add") or ())) - CAPABILITIES:
        yield f"{inside}.capabilities.add"
    if "ALL" not in (capabilities.get("drop") or ()):
        yield f"{inside}.capabilities.drop"
    if security.get("procMount", "Default") != "Default":
        yield f"{inside}.procMount"
    yield from _identity(security, inside)
    if any(port.get("hostPort") for port in _mappings(container.get("ports"))):
        yield f"{path}.ports.hostPort"


def _identity(security: Mapping[str, Any], path: str) -> Iterator[str]:
    """What a pod and each of its containers may say alike."""
    if security.get("runAsNonRoot") is False:
        yield f"{path}.runAsNonRoot"
    if security.get("runAsUser") == 0:
        yield f"{path}.runAsUser"
    yield from (f"{path}.{field}" for field in ("sysctls", "seLinuxOptions", "windowsOptions") if security.get(field))
    for field in ("seccompProfile", "appArmorProfile"):
        if _mapping(security.get(field)).get("type") == "Unconfined":
            yield f"{path}.{field}"


def _removed(security: Mapping[str, Any]) -> Iterator[str]:
    """What the standard wants to be said, and a null in the overlay would take out."""
    if security.get("runAsNonRoot") is None:
        yield "securityContext.runAsNonRoot"
    if not _mapping(security.get("seccompProfile")).get("type"):
        yield "securityContext.seccompProfile"


def _mapping(value: Any) -> Mapping[str, Any]:
    """What is no mapping is left to the API server to refuse."""
    return value if isinstance(value, Mapping) else {}


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []
