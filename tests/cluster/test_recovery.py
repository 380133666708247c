"""What a run does beyond its pods, on fake nodes: evaluations of its checkpoints, nodes that die, queues that admit and evict."""

import pytest

from patho_api import names
from tests.cluster import runs, waiting
from tests.cluster.cluster import Cluster, Manifest

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("operator")]


def score(mean: float) -> dict:
    return {"task": "PatchClassification", "metric": "balancedAccuracy", "mean": mean, "std": 0.01, "runs": 5, "samples": 40}


def probe(name: str, every_steps: int, annotations: dict[str, str]) -> dict:
    """An entry of spec.evaluations whose fake pods carry `annotations`."""
    tasks = [{"name": "PatchClassification", "data": "gs://slides/patches"}]
    template = {"tasks": tasks, "compute": {"podTemplate": {"metadata": {"annotations": annotations}}}}
    return {"name": name, "everySteps": every_steps, "template": template}


def test_checkpoints_are_scored_and_the_best_is_named_while_a_failing_evaluation_changes_nothing(here: Cluster):
    saved = {"step": 20, "url": "gs://work/scored/step-00000020"}
    run = runs.pretrain("scored", nodes=1, annotations=runs.ends(0, reason="Completed", step=20, checkpoint=saved))
    run["spec"]["checkpoints"]["everySteps"] = 10
    good = probe("good", 20, runs.ends(0, reason="Completed", results=[score(0.875)]))
    bad = probe("bad", 10, runs.ends(names.EXIT_NO_DATA, reason="DataNotFound", message="gs://slides/patches is empty"))
    run["spec"]["evaluations"] = [good, bad]
    here.apply(run)
    runs.wait_for(here, "scored", "Succeeded")

    def told() -> Manifest | None:
        found = here.get("ppt", "scored")["status"]
        return found if found["checkpoint"].get("best") and found["evaluations"][1].get("message") else None

    status = waiting.until(told, what="scores of both evaluations")
    assert (status["checkpoint"]["best"]["step"], status["checkpoint"]["best"]["score"]) == (20, 0.875)
    assert status["evaluations"][0]["results"][0]["mean"] == 0.875
    assert "gs://slides/patches is empty" in status["evaluations"][1]["message"]
    assert status["phase"] == "Succeeded"
    children = here.list("pev", f"{names.LABEL_PRETRAIN}=scored")
    assert sorted(c["metadata"]["labels"][names.LABEL_EVALUATION] for c in children) == ["bad", "bad", "good"]
    here.apply(best_of("scored", "again"))
    assert waiting.until(lambda: here.get("pev", "again").get("status", {}).get("modelUrl"), what="a model") == saved["url"]
    here.kubectl("delete", "ppt", "scored")
    here.wait_gone("pev", f"{names.LABEL_PRETRAIN}=scored")


def best_of(run: str, name: str) -> Manifest:
    """A PathoEval of a run's best checkpoint."""
    manifest = runs.evaluation(name, {})
    manifest["spec"]["model"] = {"pretrain": {"name": run, "checkpoint": "Best"}}
    return manifest
