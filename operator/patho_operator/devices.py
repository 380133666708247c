"""Accelerators of a Job's pods. Pure."""

from collections.abc import Mapping
from typing import Any

from patho_api import names

Json = Mapping[str, Any]
KINDS = ("gpu", "tpu", "gaudi", "neuron")  # extended resources that count whole devices: nvidia.com/gpu, amd.com/gpu, google.com/tpu


def per_pod(job_spec: Json) -> int:
    """Devices that one pod of a Job has, as the Job was made."""
    containers = ((job_spec.get("template") or {}).get("spec") or {}).get("containers") or []
    limits: Json = next(((c.get("resources") or {}).get("limits") or {} for c in containers if c.get("name") == names.CONTAINER), {})
    counts = (str(count) for name, count in limits.items() if "/" in name and name.rpartition("/")[2] in KINDS)
    return sum(int(count) for count in counts if count.isdigit())
