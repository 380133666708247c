"""Runs that have begun and have no status yet. While many runs begin at once, to begin the others comes before telling of those that run.

A status costs the API server 9 ms of the 60 that a run costs the control plane until it runs (`tests/bench/RESULTS.md`), and a machine
without its work costs more than a late word.
"""

import collections
import dataclasses
import time
from collections.abc import Callable, Hashable

from patho_operator.observed import Key, Time

FIRST_STATUS_SECONDS = 3.0  # most runs run by then: one status says it all
LOOK_SECONDS = 3.0  # between looks at a run whose status waits
MOST_PATIENCE_SECONDS = 30.0  # in a rush: of a thousand runs that begin at once the last needs that long
COALESCE_SECONDS, COALESCE_IN_RUSH_SECONDS = 0.5, 3.0  # the news of a Job and its pods come in bursts: made, placed, started
RUSH_STARTS, RUSH_SECONDS = 20, 3.0  # so many times within so long a time a run was begun, or seen to run for the first time


@dataclasses.dataclass
class Start:
    """One run, since its Job was made."""

    uid: str
    ran: Time | None = None  # when its pods were first seen to run
    glance: Hashable = None  # what there was to see when there was nothing to do but wait
    until: float = 0.0  # how long this holds if nothing else is seen


@dataclasses.dataclass
class Starts:
    """Those runs; `clock` is monotonic, in seconds."""

    clock: Callable[[], float] = time.monotonic
    _runs: dict[Key, Start] = dataclasses.field(default_factory=dict)
    _moments: collections.deque[float] = dataclasses.field(default_factory=lambda: collections.deque(maxlen=RUSH_STARTS))

    def starting_patience(self) -> float:
        """Seconds that the status of a run may wait for its pods: longer while any other begins or gets to run."""
        busy = self._moments and self.clock() - self._moments[-1] < RUSH_SECONDS
        return MOST_PATIENCE_SECONDS if busy else FIRST_STATUS_SECONDS

    def running_patience(self) -> float:
        """Seconds that it may wait although the pods run: only in a rush."""
        return MOST_PATIENCE_SECONDS if self._rush() else 0.0

    def coalesce_seconds(self, key: Key) -> float:
        """How long to wait for more news of a Job or its pods before a look at the run: longer in a rush, of a run without a status."""
        return COALESCE_IN_RUSH_SECONDS if key in self._runs and self._rush() else COALESCE_SECONDS

    def has_begun(self, key: Key, uid: str) -> bool:
        """Whether this operator has dealt with a run without writing a status: its Job may have been made."""
        return key in self._runs and self._runs[key].uid == uid

    def __contains__(self, key: Key) -> bool:
        return key in self._runs

    def waits(self, key: Key, uid: str, *, began: bool, ran: Time | None, glance: Hashable, seconds: float) -> None:
        """A turn wrote no first status: it made the Job, saw when its pods ran, and may sleep for some seconds while `glance` stays."""
        run = self._runs[key] = self._runs[key] if self.has_begun(key, uid) else Start(uid)
        if began or (ran and not run.ran):
            self._moments.append(self.clock())
        run.ran = run.ran or ran
        run.glance, run.until = glance, self.clock() + seconds

    def rests_seconds(self, key: Key, glance: Hashable) -> float:
        """Seconds until the next look, where a turn would find what the last one found, and wait again; else 0."""
        run = self._runs.get(key)
        if run is None or run.glance != glance or not self._rush():
            return 0.0
        return max(0.0, min(LOOK_SECONDS, run.until - self.clock()))

    def told(self, key: Key) -> Start | None:
        """Its status is written, or it is gone."""
        return self._runs.pop(key, None)

    def ran(self) -> None:
        """A run was told at once to run."""
        self._moments.append(self.clock())

    def _rush(self) -> bool:
        return len(self._moments) == RUSH_STARTS and self.clock() - self._moments[0] < RUSH_SECONDS
