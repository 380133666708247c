"""The whole life of a run on fake nodes: queued, admitted, running, a pod fails, suspended, resumed, evaluated, done, gone."""

import datetime
import json
from typing import Any

from patho_api import names
from patho_operator import cluster, observed
from tests.cluster import kwok, runs
from tests.cluster.chaos import invariants
from tests.cluster.chaos.admin import Admin
from tests.cluster.chaos.witness import Witness

Json = dict[str, Any]
IMAGE = "pathoscale/trainer:latest"  # what the operator uses by default
RUN, PROBE = "life", "probe"
LONG_SECONDS = 1800  # deadline and time to live: much longer than a life, and shorter than a clock may be wrong
STEP_SECONDS = 240.0  # for each thing that is waited for; the machine may be busy
CHECKPOINT = {"step": 10, "url": "gs://work/life/step-00000010", "time": "2030-01-01T00:00:00Z"}
SCORE = {"task": "PatchClassification", "metric": "balancedAccuracy", "mean": 0.875, "std": 0.0125, "runs": 5, "samples": 40}


class Life:
    """One life in one namespace."""

    def __init__(self, admin: Admin, witness: Witness, checker: invariants.Checker, namespace: str) -> None:
        self.admin, self.witness, self.checker, self.namespace = admin, witness, checker, namespace
        witness.follow(namespace)

    async def live(self) -> list[str]:
        """Live it; what was not as it must be, besides what the checker sees at every moment."""
        try:
            return await self._live()
        except TimeoutError as error:
            return [str(error)]

    async def _live(self) -> list[str]:
        await self.apply(runs.pretrain(RUN, nodes=2, activeDeadlineSeconds=LONG_SECONDS), queue="fast")
        await self._admit(1)
        await self.phase("Running")
        await self._fail_a_pod()
        await self.change({"runPolicy": {"suspend": True}})
        await self.until("Suspended", lambda: self.holds("Suspended"))
        await self.change({"runPolicy": {"suspend": False}})
        await self._admit(2)
        await self.phase("Running")
        await self._evaluate()
        await self.end_pod(0, 0, {"reason": "Completed", "message": "done", "step": 10, "checkpoint": CHECKPOINT})
        await self.until("Succeeded", lambda: self.holds("Succeeded"))
        wrong = await self._rest() + self._account()
        await self.change({"runPolicy": {"ttlSecondsAfterFinished": LONG_SECONDS}})
        await self.until("the time to live is seen", lambda: self.seen)
        await self.change({"runPolicy": {"ttlSecondsAfterFinished": 0}})
        await self.until("deletion after its time to live", lambda: not self.resource(names.PRETRAIN, RUN))
        await self.admin.delete(cluster.path(names.EVAL, self.namespace, PROBE), "Foreground")
        await self.until("no child left", lambda: not self.children())
        return wrong

    async def apply(self, manifest: Json, queue: str = "") -> None:
        manifest["spec"]["compute"]["queueName"] = queue
        await self.admin.create(cluster.path(manifest["kind"], self.namespace), manifest)

    async def _admit(self, attempt: int) -> None:
        """As Kueue does."""
        name = f"{RUN}-pt-{attempt}"
        await self.until(f"Job {name}", lambda: self.witness.get("Job", self.namespace, name))
        await self.until("Queued", lambda: self.status(names.PRETRAIN, RUN).get("phase") == "Queued")
        await self.admin.patch(cluster.path("Job", self.namespace, name), {"spec": {"suspend": False}})

    async def _fail_a_pod(self) -> None:
        """Index 1 fails with its last words; the Job controller replaces it."""
        await self.end_pod(1, 1, {"reason": "Crashed", "message": "CUDA error", "step": 10, "checkpoint": CHECKPOINT})
        await self.until("the incident is counted", lambda: self.status(names.PRETRAIN, RUN).get("restarts") == 1)
        await self.until("two pods again", lambda: len(self.running()) == 2)
        await self.phase("Running")

    async def _evaluate(self) -> None:
        annotations = runs.ends(0, run_for="0s", reason="Completed", message="done", results=[SCORE])
        manifest = runs.evaluation(PROBE, annotations)
        manifest["spec"]["model"] = {"pretrain": {"name": RUN}}
        await self.apply(manifest)
        await self.until("scores", lambda: self.holds("Succeeded", names.EVAL, PROBE))

    async def end_pod(self, index: int, code: int, words: Json) -> None:
        """The running pod of an index ends with an exit code and last words."""
        pod = next(p for p in self.running() if runs.index(p) == index)
        annotations = {kwok.EXIT_CODE: str(code), kwok.LAST_WORDS: json.dumps(words)}
        path = cluster.path("Pod", self.namespace, pod["metadata"]["name"])
        await self.admin.patch(path, {"metadata": {"annotations": annotations}})

    async def _rest(self) -> list[str]:
        """Nothing is left to do about either resource."""
        wrong: list[str] = []
        for kind, name in ((names.PRETRAIN, RUN), (names.EVAL, PROBE)):
            await self.until(f"rest of {name}", lambda kind=kind, name=name: not self.undone(kind, name))
            wrong += self.undone(kind, name)
        resources = [*self.witness.all(names.PRETRAIN, self.namespace), *self.witness.all(names.EVAL, self.namespace)]
        return wrong + invariants.orphans(resources, self.children(owned_by_resource=True))

    def undone(self, kind: str, name: str) -> list[str]:
        body, pretrain = self.resource(kind, name), self.resource(names.PRETRAIN, RUN)
        jobs, pods = (self.witness.all(child, self.namespace, name) for child in ("Job", "Pod"))
        now = datetime.datetime.now(datetime.UTC)
        return invariants.at_rest(body, jobs, pods, now, image=IMAGE, pretrain=pretrain) if body else [f"{name} is gone"]

    def _account(self) -> list[str]:
        """What the run says of itself, and which Jobs there ever were."""
        found, probe = self.status(names.PRETRAIN, RUN), self.status(names.EVAL, PROBE)
        told = {
            "attempt, restarts, disruptions": ((found["attempt"], found["restarts"], found["disruptions"]), (2, 1, 0)),
            "reasons of attempts": ([a["reason"] for a in found["attempts"]], ["Suspended", "Completed"]),
            "checkpoint": (found["checkpoint"]["latest"], CHECKPOINT),
            "attempts that had a Job": (self.checker.attempts(self.uid), [1, 2]),
            "attempts of the evaluation": ((probe["attempt"], probe["restarts"]), (1, 0)),
            "scores": (probe["results"], [SCORE]),
        }
        return [f"{self.namespace}: {what}: {is_} instead of {must}" for what, (is_, must) in told.items() if is_ != must]

    async def change(self, spec: Json) -> None:
        await self.admin.patch(cluster.path(names.PRETRAIN, self.namespace, RUN), {"spec": spec})

    async def phase(self, phase: str) -> None:
        await self.until(phase, lambda: self.status(names.PRETRAIN, RUN).get("phase") == phase)

    async def until(self, what: str, look: Any) -> None:
        await self.witness.until(self.namespace, what, look, STEP_SECONDS)

    def resource(self, kind: str, name: str) -> Json | None:
        return self.witness.get(kind, self.namespace, name)

    @property
    def uid(self) -> str:
        """The run's; empty if there is none."""
        return str((self.resource(names.PRETRAIN, RUN) or {"metadata": {"uid": ""}})["metadata"]["uid"])

    @property
    def seen(self) -> bool:
        """Whether the operator has seen the run's newest specification."""
        body = self.resource(names.PRETRAIN, RUN)
        return bool(body) and (body or {})["status"].get("observedGeneration") == (body or {})["metadata"]["generation"]

    def status(self, kind: str, name: str) -> Json:
        return (self.resource(kind, name) or {}).get("status") or {}

    def holds(self, condition: str, kind: str = names.PRETRAIN, name: str = RUN) -> bool:
        found = self.status(kind, name).get("conditions", [])
        return any(c["type"] == condition and c["status"] == "True" for c in found)

    def running(self) -> list[Json]:
        found = self.witness.all("Pod", self.namespace, RUN)
        return [p for p in found if observed.pod(p).running]

    def told(self, *fields: str) -> tuple[Any, ...]:
        """Fields of the run's status."""
        return tuple(self.status(names.PRETRAIN, RUN).get(field) for field in fields)

    def message(self, condition: str) -> str:
        """What a condition of the run says; empty if it is True and says that all is well."""
        found = self.status(names.PRETRAIN, RUN).get("conditions", [])
        return next((str(c["message"]) for c in found if c["type"] == condition), "")

    def job(self, attempt: int) -> Json:
        """The Job of an attempt, which exists."""
        return self.witness.objects["Job", self.namespace, f"{RUN}-pt-{attempt}"]

    async def set_state(self, pod: Json, phase: str, state: Json) -> None:
        """A pod as its kubelet would report it."""
        container = {"name": names.CONTAINER, "state": state, "image": "none", "imageID": "", "ready": False, "restartCount": 0}
        path = cluster.path("Pod", self.namespace, pod["metadata"]["name"], "status")
        await self.admin.patch(path, {"status": {"phase": phase, "containerStatuses": [container]}})

    def children(self, *, owned_by_resource: bool = False) -> list[Json]:
        kinds = ("Job", "Service") if owned_by_resource else ("Job", "Service", "Pod")
        return [child for kind in kinds for child in self.witness.all(kind, self.namespace)]
