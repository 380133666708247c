"""What a training process is given."""

import dataclasses
import threading

from patho_api import pretrain
from patho_trainer import checkpoint, distributed, errors, metrics, progress, workspace
from patho_trainer.data import storage


@dataclasses.dataclass(frozen=True)
class Context:
    """One process of one attempt: the specification, its place among the others, and where things lie."""

    spec: pretrain.PretrainSpec
    run_id: str
    attempt: int
    world: distributed.World
    space: workspace.Workspace
    slides: storage.Bucket
    place: checkpoint.Place
    reporter: progress.Reporter
    metrics: metrics.TrainMetrics
    stop: threading.Event
    """Set by SIGTERM and SIGINT."""
    restarts: int = 0
    """How often torchrun has started this pod's workers again; known to its first process."""

    def obey(self) -> None:
        """Between two pieces of work before training: raises Stopped when asked to. Nothing is lost, so nothing is saved."""
        if self.stop.is_set():
            raise errors.Stopped("stopped before training began: nothing was lost")
