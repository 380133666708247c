"""Byte ranges of one object as a store is asked for them: without empty ones, which stores refuse, and what has to come back. Pure."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from patho_trainer.data import faults

Buffer = memoryview
CHUNK_BYTES = 16 * 2**20  # of a download


class Stretch(NamedTuple):
    """Ranges `part` of a list, which touch or overlap: one request for the bytes from `start` to before `end`."""

    part: slice
    start: int
    end: int


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
        """How many requests these are: those that touch are joined."""
        return len(self.stretches)

    @functools.cached_property
    def stretches(self) -> list[Stretch]:
        """The ranges' unions without a gap, in the order of the object."""
        found: list[Stretch] = []
        begin, end = 0, -1
        for k, (start, size) in enumerate(zip(self.starts, self.sizes, strict=True)):
            if start > end and k:
                found.append(Stretch(slice(begin, k), self.starts[begin], end))
                begin = k
            end = max(end, start + size)
        return [*found, Stretch(slice(begin, len(self.starts)), self.starts[begin], end)] if self.starts else []

    def split(self) -> tuple["Ranges", "Ranges"]:
        """The ranges at the beginning that touch each other, and the rest."""
        count = self.stretches[0].part.stop
        return self._part(slice(0, count)), self._part(slice(count, None))

    def _part(self, part: slice) -> "Ranges":
        return Ranges(self.url, self.starts[part], self.sizes[part], self.places[part])

    def checked(self, found: Sequence[Any]) -> list[Buffer]:
        """Stores hand back less where a connection ends early: Transient, to be retried."""
        for size, buffer in zip(self.sizes, found, strict=True):
            if len(buffer) != size:
                raise self._short(len(buffer), size)
        return [memoryview(buffer) for buffer in found]

    def cut(self, found: Sequence[Any]) -> list[Buffer]:
        """The bytes of each range out of those of the stretches. Raises Transient where they are fewer."""
        buffers: list[Buffer] = []
        for stretch, data in zip(self.stretches, found, strict=True):
            if len(data) != stretch.end - stretch.start:
                raise self._short(len(data), stretch.end - stretch.start)
            buffers += self._cut(stretch, memoryview(data))
        return buffers

    def _cut(self, stretch: Stretch, view: Buffer) -> list[Buffer]:
        if stretch.part.stop - stretch.part.start == 1:
            return [view]
        starts, sizes = self.starts[stretch.part], self.sizes[stretch.part]
        return [view[start - stretch.start : start - stretch.start + size] for start, size in zip(starts, sizes, strict=True)]

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


def chunks(size: int) -> Iterator[list[tuple[int, int]]]:
    """(start, bytes) of a download, four at a time."""
    starts = range(0, size, CHUNK_BYTES)
    for i in range(0, len(starts), 4):
        yield [(start, min(CHUNK_BYTES, size - start)) for start in starts[i : i + 4]]
