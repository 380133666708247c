"""How measurements are taken: ratios inside one round, opponents in turn, medians with spread."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence


@dataclasses.dataclass(frozen=True)
class Rate:
    """Patches a second: of CPU time of this process, all its threads together, and of wall time."""

    cpu: float
    wall: float


def rate(patches: int, work: Callable[[], object]) -> Rate:
    """How fast some work makes so many patches."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Rate(patches / (time.process_time() - cpu), patches / (time.perf_counter() - wall))


def told(name: str, above: Sequence[float], below: Sequence[float]) -> float:
    """Print a ratio with its spread; the median."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    middle = statistics.median(ratios)
    print(
        f"\n{name}: {statistics.median(above):,.0f} / {statistics.median(below):,.0f} = {middle:.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} rounds)",
        flush=True,
    )
    return middle
