"""TP53: slides that carry a label, in our manifest (`url`, `patient`, `label`; csv or parquet). The task of arXiv 2404.15217 whose data
are private and which kaiko-eva does not have: its numbers compare with nobody else's.

A row without a label is no part of the task, so that one manifest can serve training, which leaves the labelled slides out by a column of
theirs (`slides.excludeColumn`). All slides of a patient are in one split: of each class three fifths of the patients train, one fifth
each validates and tests. Patches are streamed by the engine of the training; each carries the label of its slide.
"""

from collections.abc import Callable, Sequence

from patho_api import pretrain
from patho_api.evaluate import Task
from patho_trainer import distributed, errors
from patho_trainer.data import catalog as catalogs
from patho_trainer.data import index, storage
from patho_trainer.evaluation.datasets import dataset
from patho_trainer.evaluation.datasets.dataset import LabelledSlide, LabelledSlides

DEALT = ("train", "val", "test", "train", "train")  # to the patients of a class in turn


def read(
    task: Task, bucket: storage.Bucket, *, patches: pretrain.Patches, index_url: str, world: distributed.World, barrier: Callable[[], None]
) -> LabelledSlides:
    """Index the slides (all processes together), and deal them out. Raises DataNotFound and InvalidConfiguration."""
    built = index.build(
        [task.data],
        index_url,
        patches=patches,
        bucket=bucket,
        rank=world.rank,
        world_size=world.size,
        barrier=barrier,
        agree=lambda version: distributed.of_first(world, version),
        builder="evaluation",
    )
    usable = built.only(lambda slide: bool(slide.label) and not slide.rejected and bool(catalogs.offers(slide, patches)))
    classes = tuple(sorted({slide.label for slide in usable.slides}))
    splits = deal(usable.slides, dataset.name(task))
    samples = [LabelledSlide(i, classes.index(s.label), splits[s.patient]) for i, s in enumerate(usable.slides)]
    if not samples:
        raise errors.DataNotFound(f"task {dataset.name(task)}: too few samples: no usable slide of {task.data} has a label")
    return dataset.checked(LabelledSlides(dataset.name(task), classes, tuple(samples), usable))


def deal(slides: Sequence[catalogs.Slide], task: str) -> dict[str, str]:
    """The split of each patient. Raises InvalidConfiguration for a slide without a patient and for a patient with two labels."""
    labels: dict[str, str] = {}
    for slide in slides:
        if not slide.patient:
            raise errors.InvalidConfiguration(f"task {task}: {slide.url} has no patient: splits are by patient, so fill that column")
        if labels.setdefault(slide.patient, slide.label) != slide.label:
            raise errors.InvalidConfiguration(
                f"task {task}: patient {slide.patient} has the labels {labels[slide.patient]} and {slide.label}: "
                "give all slides of a patient one"
            )
    splits: dict[str, str] = {}
    for label in sorted(set(labels.values())):
        patients = sorted((p for p in labels if labels[p] == label), key=catalogs.hash_of)
        splits |= {patient: DEALT[i % len(DEALT)] for i, patient in enumerate(patients)}
    return splits
