"""Resources, Jobs, pods and reports as the API server would give them, with only the interesting part spelled out."""

import datetime
import json
import math

from patho_api import names, report
from patho_operator import handlers, manifests, metrics, observed, progress, subject, times, worker
from patho_operator.observed import Observed, Seen
from patho_operator.plan import Plan
from patho_operator.reconcile import reconcile

NOW = datetime.datetime(2030, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)
IMAGE = "trainer:1"
UID = "11111111-2222-3333-4444-555555555555"
CHECKPOINTS = "gs://me/runs/vits16"


def at(seconds):
    """The time `seconds` after NOW."""
    return NOW + datetime.timedelta(seconds=seconds)


def make_pretrain(*, status=None, compute=None, evaluations=(), generation=1, uid=UID, **policy):
    """A PathoPretrain; keyword arguments in camelCase go to runPolicy."""
    spec = {
        "slides": {"source": "gs://tcga/", "index": "gs://me/index"},
        "training": {"steps": 1000},
        "checkpoints": {"url": CHECKPOINTS},
        "compute": compute or {},
        "runPolicy": policy,
        "evaluations": list(evaluations),
    }
    return _body(names.PRETRAIN, "vits16", spec, status, generation, uid)


def make_eval(*, model=None, status=None, storage=None, **policy):
    """A PathoEval of the newest checkpoint of `vits16`."""
    spec = {
        "model": model or {"pretrain": {"name": "vits16"}},
        "tasks": [{"name": "MHIST", "data": "gs://data/mhist"}],
        "results": "gs://me/evals/vits16",
        "storage": storage or {},
        "runPolicy": policy,
    }
    return _body(names.EVAL, "vits16-eval", spec, status, 1, UID)


def _body(kind, name, spec, status, generation, uid):
    metadata = {"name": name, "namespace": "lab", "uid": uid, "generation": generation, "resourceVersion": "7"}
    return {"apiVersion": names.API_VERSION, "kind": kind, "metadata": metadata, "spec": spec, "status": status or {}}


def make_job(body, attempt=1, *, created=NOW, conditions=(), deleting=False, suspend=None, parallelism=None, before=None):
    """The Job that the operator made for an attempt, as the API server shows it later."""
    found = subject.parse(body).resource
    made = manifests.job(
        manifests.with_model(found, f"{CHECKPOINTS}/step-00000100"),
        attempt=attempt,
        image=IMAGE,
        before=before or observed.Before(),
        reason="Started",
        wanted_hash=manifests.spec_hash(found),
    )
    made["metadata"] |= {"uid": f"job-{attempt}", "creationTimestamp": times.write(created)}
    if deleting:
        made["metadata"]["deletionTimestamp"] = times.write(NOW)
    if suspend is not None:
        made["spec"]["suspend"] = suspend
    if parallelism is not None:
        made["spec"]["parallelism"] = parallelism
    made["status"] = {"conditions": [{"status": "True", **condition} for condition in conditions]}
    return made


COMPLETE = {"type": "Complete", "reason": "SuccessPolicy"}
FAILED = {
    "type": "Failed",
    "reason": "PodFailurePolicy",
    "message": "Container trainer for pod lab/x failed with exit code 42 matching FailJob",
}


def make_pod(body, index=0, attempt=1, *, uid="", exit_code=None, ended=None, created=NOW, started=None, words="", ip="", **shape):
    """A pod: running if neither `exit_code` nor `pending` is given. `words` is the termination message, a text or a dict of LastWords.

    shape: pending, unschedulable, waiting (reason, message), disrupted, deleting, failures (of the index, before), oom.
    """
    labels = {names.LABEL_ATTEMPT: str(attempt), names.LABEL_UID: body["metadata"]["uid"]}
    annotations = {observed.COMPLETION_INDEX: str(index), observed.FAILURE_COUNTS[0]: str(shape.get("failures", 0))}
    name = uid or f"{body['metadata']['name']}-{attempt}-{index}-{times.write(created)[-9:-1]}"
    metadata = {"name": name, "uid": name, "labels": labels, "annotations": annotations, "creationTimestamp": times.write(created)}
    if shape.get("deleting"):
        metadata["deletionTimestamp"] = times.write(NOW)
    return {"metadata": metadata, "status": _pod_status(exit_code, ended or created, started or created, words, ip, shape)}


def _pod_status(exit_code, ended, started, words, ip, shape):
    conditions = [{"type": "PodScheduled", "status": "True"}]
    if shape.get("disrupted"):
        conditions.append({"type": "DisruptionTarget", "status": "True", "reason": "PreemptionByScheduler"})
    if shape.get("unschedulable"):
        conditions = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": shape["unschedulable"]}]
        return {"phase": "Pending", "conditions": conditions}
    if exit_code is not None:
        text = json.dumps(words) if isinstance(words, dict) else words
        state = {
            "terminated": {"exitCode": exit_code, "startedAt": times.write(started), "finishedAt": times.write(ended), "message": text}
        }
        state["terminated"] |= {"reason": "OOMKilled"} if shape.get("oom") else {}
        phase = "Failed" if exit_code else "Succeeded"
    elif "waiting" in shape:
        reason, message = shape["waiting"]
        state, phase = {"waiting": {"reason": reason, "message": message}}, "Pending"
    elif shape.get("pending"):
        state, phase = {"waiting": {"reason": "ContainerCreating"}}, "Pending"
    else:
        state, phase = {"running": {"startedAt": times.write(started)}}, "Running"
    return {"phase": phase, "podIP": ip, "conditions": conditions, "containerStatuses": [{"name": names.CONTAINER, "state": state}]}


def make_report(step=10, *, attempt=1, stage="Training", **fields):
    """What rank 0 tells of a run of 1000 steps."""
    known = {"run_id": f"{UID}-{attempt}", "stage": stage, "step": step, "total_steps": 1000, "time": times.write(NOW)}
    return report.ProgressReport(**(known | fields))


def see(jobs=(), pods=(), *, report=None, still=0.0, heard=NOW, pretrain=None, evaluations=(), warnings=(), problem=None):
    """What the operator sees."""
    return Observed(
        jobs=tuple(observed.job(j) for j in jobs),
        pods=tuple(observed.pod(p) for p in pods),
        seen=Seen(report, heard, still) if report else None,
        pretrain=pretrain,
        evaluations=tuple(observed.evaluation(e) for e in evaluations),
        warnings=tuple(warnings),
        problem=problem,
    )


def plan_for(body, jobs=(), pods=(), *, now=NOW, patience=0.0, rush=0.0, silence=math.inf, metrics_from=None, **seen) -> Plan:
    """The plan for a resource. A report has stood still since NOW unless told otherwise; the first status waits for `patience` seconds
    while the run starts and for `rush` seconds while it runs, and the last one was written `silence` seconds ago."""
    sight = {"still": (now - NOW).total_seconds(), "heard": now}
    view = see(jobs, pods, **(sight | seen))
    timing = {"starting_patience_seconds": patience, "running_patience_seconds": rush, "silence_seconds": silence}
    return reconcile(subject.parse(body), view, now, image=IMAGE, metrics_from=metrics_from, **timing)


def after(body, plan):
    """The resource with the plan's status written."""
    return body | {"status": _patched(body["status"], plan.status or {})}


def _patched(old, patch):
    kept = {k: v for k, v in old.items() if k not in patch}
    changed = {
        k: _patched(old.get(k) or {}, v) if isinstance(v, dict) and isinstance(old.get(k, {}), dict) else v
        for k, v in patch.items()
        if v is not None
    }
    return kept | changed


def started(body, **seen):
    """The resource after its first attempt was made."""
    return after(body, plan_for(body, **seen))


def condition(body, kind):
    """(status, reason, message) of a condition in the resource's status."""
    found = next(c for c in body["status"]["conditions"] if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


def created(plan, kind="Job"):
    """The one object of a kind that a plan creates; None if none."""
    return next((m for m in plan.creates if m["kind"] == kind), None)


class Hand:
    """A clock that a test sets."""

    seconds = 1000.0

    def __call__(self):
        return self.seconds


def stored(body, version="7"):
    """The resource as the index keeps it."""
    return [handlers.compact({**body, "metadata": body["metadata"] | {"resourceVersion": version}})]


def make_worker(cluster, indexes):
    """What takes turns on resources, with nothing known but what the indexes show."""
    return worker.Worker(cluster, indexes, progress.Board(), metrics.Metrics("1"), "trainer:1", set())


def at_present(cluster):
    """The API server's time, to the second."""
    return cluster.now().replace(microsecond=0)
