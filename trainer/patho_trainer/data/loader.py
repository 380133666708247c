"""The stream as a torch data set, for training loops of one's own."""

from collections.abc import Iterator
from typing import Any

import torch

from patho_api import pretrain
from patho_trainer import errors
from patho_trainer.data import catalog, storage, stream


class Patches(torch.utils.data.IterableDataset[stream.Batch]):
    """Batches of one rank, for ever. Use it as it is, or in a `StatefulDataLoader(patches, batch_size=None)`: the batches are made.

    Its state is the next step, so that resuming reads nothing twice and skips nothing.
    """

    def __init__(
        self,
        catalog: catalog.Catalog,
        spec: pretrain.PretrainSpec,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        bucket: storage.Bucket | None = None,
    ) -> None:
        """As `stream.batches`."""
        super().__init__()
        self._catalog = catalog
        self._spec = spec
        self._options: dict[str, Any] = {"seed": seed, "rank": rank, "world_size": world_size, "bucket": bucket}
        self._step = 0

    def __iter__(self) -> Iterator[stream.Batch]:
        """Go on from the state. Raises InvalidConfiguration in a worker process: the stream has threads of its own."""
        if torch.utils.data.get_worker_info() is not None:
            raise errors.InvalidConfiguration("num_workers: the stream has threads of its own and no use for worker processes: set it to 0")
        with stream.batches(self._catalog, self._spec, start_step=self._step, **self._options) as batches:
            for batch in batches:
                self._step = batch.step + 1
                yield batch

    def state_dict(self) -> dict[str, int]:
        """The step of the batch that comes next."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on from a step; takes effect with the next `iter`."""
        self._step = state["step"]
