"""What cannot be run though every field is valid, said in sentences: nothing that a user writes is ignored in silence.

A *refusal* stops the run before anything starts (exit code 40, condition Failed); a *note* says that a field has no effect
(condition FullySupported=False).
"""

from patho_api import pretrain
from patho_api.evaluate import EvalSpec, EvalTemplate
from patho_api.pretrain import PretrainSpec
from patho_api.training import Training

DINOV2_ONLY = (
    "koleoWeight",
    "kdeWeight",
    "kdeConcentration",
    "ibotWeight",
    "ibotSeparateHead",
    "ibotPrototypes",
    "ibotHeadBottleneckWidth",
    "maskProbability",
    "maskRatio",
    "centering",
)
MASKED_TASKS = ("CoNSeP", "PatchSegmentation")


def refusals(spec: PretrainSpec | EvalSpec) -> list[str]:
    """Why this specification cannot be run; empty if it can."""
    return _pretrain_refusals(spec) if isinstance(spec, PretrainSpec) else []


def notes(spec: PretrainSpec | EvalSpec) -> list[str]:
    """Fields that were set and have no effect in this release."""
    return _pretrain_notes(spec) if isinstance(spec, PretrainSpec) else _eval_notes(spec)


def _pretrain_notes(spec: PretrainSpec) -> list[str]:
    found = []
    for evaluation in spec.evaluations:
        found += [f"spec.evaluations[{evaluation.name}].template: {why}" for why in _eval_notes(evaluation.template)]
    if spec.method == "DINO":
        defaults, set_here = Training().dump(), spec.training.dump()
        strange = [name for name in DINOV2_ONLY if set_here[name] != defaults[name]]
        found += [f"spec.training.{name} has no effect with method DINO: remove it" for name in strange]
    return found


def _pretrain_refusals(spec: PretrainSpec) -> list[str]:
    training, processes = spec.training, spec.compute.nodes * spec.compute.processes_per_node
    size = pretrain.loss_group_size(spec)
    groups = training.batch_size // size
    candidates = [
        (
            processes > groups,
            f"spec.compute: {processes} processes share {groups} loss groups of {size} patches, and a process takes whole groups: lower "
            "nodes or processesPerNode, or lower spec.training.lossGroupSize",
        ),
        (
            spec.method == "DINOv2" and size == 1 and training.koleo_weight > 0,
            "spec.training.koleoWeight: KoLeo needs a neighbour, and a loss group has one patch: set lossGroupSize to 2 or more (batchSize "
            "must be a multiple of it), or koleoWeight to 0",
        ),
    ]
    return [sentence for applies, sentence in candidates if applies]


def _eval_notes(spec: EvalTemplate) -> list[str]:
    masked = [task.name for task in spec.tasks if task.name in MASKED_TASKS]
    if spec.protocol != "Paper" or not masked:
        return []
    return [f"spec.protocol Paper has no effect on {' and '.join(masked)}: the paper states no training of a decoder, so Eva's is used"]
