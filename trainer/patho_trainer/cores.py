"""How many cores a process may keep busy: the one home of the number of its threads."""

import os

from patho_api import common


def share(compute: common.Compute, cpus_here: int) -> int:
    """CPU threads of a process: an equal share of the pod's limit, or of this machine. Fixed, because sums depend on it."""
    limit = compute.resources.limits.get("cpu", "")
    cpus = float(limit[:-1]) / 1000 if limit.endswith("m") else float(limit or cpus_here)
    return max(1, int(min(cpus, cpus_here) / compute.processes_per_node))


def here(compute: common.Compute) -> int:
    """`share` on this machine. A pod's limit does not show in the affinity; a torchrun of one's own may start more processes."""
    processes = max(compute.processes_per_node, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return share(compute.model_copy(update={"processes_per_node": processes}), len(os.sched_getaffinity(0)))
