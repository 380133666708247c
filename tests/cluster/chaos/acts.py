"""What stories are made of: a run of two nodes, what is done to it, and what it says."""

from typing import Any

from patho_api import names
from patho_operator import cluster
from tests.cluster import runs
from tests.cluster.chaos import admin
from tests.cluster.chaos.life import RUN, Life

FIRST = f"{RUN}-pt-1"
GONE = {"status": {"phase": "Succeeded"}}


async def start(life: Life, **changes: Any) -> None:
    """A run of two nodes; `changes` go to its compute or, in camelCase of the run policy, to that."""
    compute = {key: changes.pop(key) for key in ("nodeSelector", "podTemplate", "priorityClassName", "resources") if key in changes}
    manifest = runs.pretrain(RUN, nodes=2, **changes)
    manifest["spec"]["compute"] |= compute
    await life.admin.create(cluster.path(names.PRETRAIN, life.namespace), manifest)


async def running(life: Life, attempt: int) -> None:
    """Both pods of an attempt run and the status says so; nothing was counted."""

    def look() -> bool:
        told = life.told("phase", "attempt") == ("Running", attempt)
        return told and len(life.running()) == 2 and bool(life.witness.get("Job", life.namespace, f"{RUN}-pt-{attempt}"))

    await life.until(f"attempt {attempt} runs", look)
    assert life.told("restarts") == (0,)


async def says(life: Life, condition: str, *words: str) -> None:
    """A condition that is not True has these words."""
    await life.until(f"{condition}: {words}", lambda: all(word in life.message(condition) for word in words))


def pod_at(life: Life, index: int) -> Any:
    """The running pod of an index."""
    return next(p for p in life.running() if runs.index(p) == index)


def pod_of(life: Life, attempt: int) -> Any:
    """The pod template of an attempt without what tells attempts apart."""
    (container,) = life.job(attempt)["spec"]["template"]["spec"]["containers"]
    own = (names.ENV_ATTEMPT, names.ENV_RANK0_HOST)
    return life.job(attempt)["spec"]["template"]["spec"] | {
        "containers": [container | {"args": len(container["args"]), "env": [e for e in container["env"] if e["name"] not in own]}]
    }


async def end(life: Life, index: int) -> None:
    """An index is done."""
    name = pod_at(life, index)["metadata"]["name"]
    await life.end_pod(index, 0, {"reason": "Completed", "message": "done", "step": 10})
    await life.until(f"{name} is done", lambda: (life.witness.get("Pod", life.namespace, name) or GONE)["status"]["phase"] == "Succeeded")


async def evict(life: Life, pod: Any) -> None:
    """As `kubectl drain` does; the Job controller may have ended it a moment before."""
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": life.namespace}}
    try:
        await life.admin.create(cluster.path("Pod", life.namespace, name, "eviction"), body)
    except admin.Failed as error:
        if " 404 " not in str(error):
            raise
