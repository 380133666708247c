"""Memory for batches, used again and again: pages that are fresh from the system cost time, for every batch."""

import collections
import weakref
from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray


class Buffers:
    """uint8 tensors of one shape. The memory of a tensor comes back when nothing uses it any more, views included. Thread-safe."""

    def __init__(self, shape: tuple[int, ...], memory: Iterable[NDArray[np.uint8]] | None = None) -> None:
        """Takes no memory yet. `memory`, where given, is used alone: arrays of that shape, as many as are ever in use at once."""
        self._shape = shape
        self._free = collections.deque(memory or ())
        self._pinned = memory is None and torch.cuda.is_available()

    def take(self) -> torch.Tensor:
        """A tensor with arbitrary content; pinned where there is a CUDA device (torch then keeps and reuses the memory itself)."""
        if self._pinned:
            return torch.empty(self._shape, dtype=torch.uint8, pin_memory=True)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(self._shape, dtype=np.uint8)
        lent = memory.view()
        weakref.finalize(lent, self._free.append, memory)
        return torch.from_numpy(lent)
