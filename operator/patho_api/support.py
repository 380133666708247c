"""What this release does not do yet, said in sentences: nothing that a user writes is ignored in silence.

A *refusal* stops the run before anything starts (exit code 40, condition Failed); a *note* says that a field has no effect
(condition FullySupported=False).
"""

from patho_api.evaluate import EvalSpec, EvalTemplate
from patho_api.pretrain import PretrainSpec, Training

DINOV2_ONLY = ("koleoWeight", "ibotWeight", "maskProbability", "maskRatio", "centering")
TASKS = ("MHIST", "PatchClassification")


def refusals(spec: PretrainSpec | EvalSpec) -> list[str]:
    """Why this specification cannot be run by this release; empty if it can."""
    return _pretrain_refusals(spec) if isinstance(spec, PretrainSpec) else _eval_refusals(spec)


def notes(spec: PretrainSpec | EvalSpec) -> list[str]:
    """Fields that were set and have no effect in this release."""
    return _pretrain_notes(spec) if isinstance(spec, PretrainSpec) else []


def _pretrain_notes(spec: PretrainSpec) -> list[str]:
    found = []
    for evaluation in spec.evaluations:
        found += [f"spec.evaluations[{evaluation.name}].template: {why}" for why in _eval_refusals(evaluation.template)]
    if spec.method == "DINO":
        defaults, set_here = Training().dump(), spec.training.dump()
        strange = [name for name in DINOV2_ONLY if set_here[name] != defaults[name]]
        found += [f"spec.training.{name} has no effect with method DINO: remove it" for name in strange]
    return found


def _pretrain_refusals(spec: PretrainSpec) -> list[str]:
    extras = spec.training.augmentation
    candidates = [
        (spec.method == "DINOv2", "spec.method DINOv2 is not implemented yet: use DINO"),
        (extras.hed, "spec.training.augmentation.hed is not implemented yet: leave it false"),
        (extras.rotate90, "spec.training.augmentation.rotate90 is not implemented yet: leave it false"),
        (extras.hsv_filter, "spec.training.augmentation.hsvFilter is not implemented yet: leave it false"),
    ]
    return [sentence for applies, sentence in candidates if applies]


def _eval_refusals(spec: EvalTemplate) -> list[str]:
    found = [f"spec.tasks: {task.name} is not implemented yet: use {' or '.join(TASKS)}" for task in spec.tasks if task.name not in TASKS]
    if spec.compute.nodes * spec.compute.processes_per_node > 1:
        found.append("spec.compute: a PathoEval runs in one process yet: set nodes and processesPerNode to 1")
    return found
