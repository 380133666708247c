"""What a stream counts while it works."""

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator

from patho_trainer.data import storage


@dataclasses.dataclass
class Stats:
    """Totals since the stream began; metrics and `patho bench` read them. Written under a lock, read without.

    `bytes` by store and `requests` by (store, outcome) are the bucket's own; `seconds` by stage add up over threads and requests in
    flight, but for `wait`, the consumer's; `buffered` is patches ready or in work; `replaced` counts by reason, `redrawn` places that
    were drawn again because a patch was too pale; `quarantined` maps the id of a slide that could not be read to the reason.
    """

    patches: int = 0
    buffered: int = 0
    bytes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    requests: collections.Counter[tuple[str, str]] = dataclasses.field(default_factory=collections.Counter)
    seconds: dict[str, float] = dataclasses.field(default_factory=lambda: {"fetch": 0.0, "decode": 0.0, "resize": 0.0, "wait": 0.0})
    replaced: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    redrawn: int = 0
    quarantined: dict[str, str] = dataclasses.field(default_factory=dict)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock, repr=False)

    def spend(self, stage: str, seconds: float) -> None:
        """Add time to a stage."""
        with self._lock:
            self.seconds[stage] += seconds

    @contextlib.contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.spend(stage, time.perf_counter() - start)

    def replace(self, reason: str, slide_id: str) -> None:
        """Count a patch that was replaced because of a slide."""
        with self._lock:
            self.replaced[reason] += 1
            self.quarantined.setdefault(slide_id, reason)

    def redraw(self) -> None:
        """Count a place that was drawn again."""
        with self._lock:
            self.redrawn += 1

    def deliver(self, patches: int, buffered: int, bucket: storage.Bucket) -> None:
        """Count a batch that was handed out."""
        with self._lock:
            self.patches += patches
            self.buffered = buffered
            self.bytes = collections.Counter(bucket.received)
            self.requests = collections.Counter(bucket.requests)
