"""Byte ranges of one object as a store is asked for them: without empty ones, which stores refuse, and what has to come back. Pure."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

from patho_trainer.data import faults

Buffer = memoryview


@dataclasses.dataclass(frozen=True)
class Ranges:
    """`sizes[k]` bytes from `starts[k]`, in the order of the object; each is wanted at `places[k]` of a list. None is empty."""

    url: str
    starts: Sequence[int]
    sizes: Sequence[int]
    places: Sequence[int]

    @property
    def arguments(self) -> dict[str, Any]:
        """Of obstore's `get_ranges`."""
        return {"starts": self.starts, "lengths": self.sizes, "coalesce": 0}

    @property
    def requests(self) -> int:
        """How many requests these are: obstore joins those that touch."""
        return len(self._runs)

    @property
    def span(self) -> tuple[int, int]:
        """(first byte, byte after the last) of all together."""
        return self.starts[0], max(start + size for start, size in zip(self.starts, self.sizes, strict=True))

    def split(self) -> tuple["Ranges", "Ranges"]:
        """The ranges at the beginning that touch each other, and the rest."""
        count = self._runs[0]
        return self._part(slice(0, count)), self._part(slice(count, None))

    @functools.cached_property
    def _runs(self) -> list[int]:
        """After how many ranges each stretch without a gap ends."""
        ends: list[int] = []
        end = self.starts[0] if self.starts else 0
        for k, (start, size) in enumerate(zip(self.starts, self.sizes, strict=True)):
            if start > end:
                ends.append(k)
            end = max(end, start + size)
        return [*ends, len(self.starts)] if self.starts else []

    def _part(self, part: slice) -> "Ranges":
        return Ranges(self.url, self.starts[part], self.sizes[part], self.places[part])

    def checked(self, found: Sequence[Any]) -> list[Buffer]:
        """Stores hand back less where a connection ends early: Transient, to be retried."""
        for size, buffer in zip(self.sizes, found, strict=True):
            if len(buffer) != size:
                raise self._short(len(buffer), size)
        return [memoryview(buffer) for buffer in found]

    def cut(self, whole: Any) -> list[Buffer]:
        """The bytes of each range out of those of the span. Raises Transient where they are fewer."""
        first, end = self.span
        if len(whole) != end - first:
            raise self._short(len(whole), end - first)
        view = memoryview(whole)
        return [view[start - first : start - first + size] for start, size in zip(self.starts, self.sizes, strict=True)]

    def _short(self, found: int, wanted: int) -> faults.Transient:
        return faults.Transient(f"{self.url}: a body of {found} bytes where {wanted} were asked for")


def ranges(url: str, starts: Sequence[int], sizes: Sequence[int]) -> Ranges:
    """Ranges in any order, of which some may be empty."""
    wanted = sorted((int(start), int(size), i) for i, (start, size) in enumerate(zip(starts, sizes, strict=True)) if size)
    return Ranges(url, [w[0] for w in wanted], [w[1] for w in wanted], [w[2] for w in wanted])


def placed(wanted: Ranges, found: Sequence[Buffer], count: int) -> list[Buffer]:
    """What came back, in the order that was asked for; empty where nothing was wanted."""
    buffers = [memoryview(b"")] * count
    for i, buffer in zip(wanted.places, found, strict=True):
        buffers[i] = buffer
    return buffers
