"""What can be known to be wrong before anything starts, said in one sentence within seconds."""

import torch

from patho_api import evaluate, pretrain, support
from patho_trainer import config, distributed, errors, task
from patho_trainer.data import sampler, storage, urls
from patho_trainer.methods import rounds
from patho_trainer.models import vit

PROBE = ".writable"


def check(todo: task.Task, spec: pretrain.PretrainSpec) -> None:
    """Raises InvalidConfiguration or DataNotFound. Every pod looks at itself; what all share, pod 0 looks at alone."""
    refuse(spec)
    distributed.choose_device(spec.compute, torch.cuda.device_count())
    if todo.node_rank == 0:
        check_writable(spec.checkpoints.url, task.checkpoints_bucket(spec), "spec.checkpoints.url")
        check_readable(spec, task.slides_bucket(spec.slides.storage))


def check_manifest(spec: pretrain.PretrainSpec | evaluate.EvalSpec) -> None:
    """Raises InvalidConfiguration for what is wrong wherever it runs; looks at no bucket and no device."""
    refuse(spec)
    if isinstance(spec, pretrain.PretrainSpec):
        vit.check_crops(spec.model.architecture, spec.training.crops)


def check_evaluation(spec: evaluate.EvalSpec, bucket: storage.Bucket) -> None:
    """Raises InvalidConfiguration for what this release cannot do, and for a folder of results that cannot be written."""
    refuse(spec)
    check_writable(spec.results, bucket, "spec.results")


def refuse(spec: pretrain.PretrainSpec | evaluate.EvalSpec) -> None:
    """Raises InvalidConfiguration for what this release cannot do, and for a batch that cannot be shared out."""
    found = support.refusals(spec)
    if found:
        raise errors.InvalidConfiguration("\n".join(found))
    if isinstance(spec, pretrain.PretrainSpec):
        processes = spec.compute.nodes * spec.compute.processes_per_node
        sampler.rank_slots(spec.training.batch_size, sampler.loss_groups(spec), 0, processes)
        rounds.check(config.resolved(spec), processes)


def check_writable(url: str, bucket: storage.Bucket, field: str) -> None:
    """Raises InvalidConfiguration where nothing can be written to the folder `url`, which `field` names.

    A server that does not answer may do so later (Transient); a disk that refuses will go on refusing.
    """
    probe = urls.join(url, PROBE)
    try:
        bucket.write(probe, b"")
        bucket.delete([probe])
    except errors.PathoError as error:
        if isinstance(error, storage.Transient) and urls.parse(url).scheme != "file":
            raise
        raise errors.InvalidConfiguration(f"{field}: {error}") from error


def check_readable(spec: pretrain.PretrainSpec, bucket: storage.Bucket) -> None:
    """Raises InvalidConfiguration where the bucket of the slides or of their index does not exist or does not let us in."""
    for field, url in (("source", spec.slides.source), ("index", spec.slides.index)):
        try:
            bucket.check(url)
        except errors.InvalidConfiguration as error:
            raise errors.InvalidConfiguration(f"spec.slides.{field}: {error}") from error
