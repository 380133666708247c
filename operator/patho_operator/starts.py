"""Runs that have begun and have no status yet. While many runs begin at once, to begin the others comes before telling of those that run.

A status costs the control plane a fifth of what the start of a run costs it, and a machine without its work costs more than a late word.
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
RUSH_RUNS, RUSH_SECONDS = 10, 3.0  # so many runs begun, or seen to run for the first time, within so long a time


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
    _moments: collections.deque[float] = dataclasses.field(default_factory=lambda: collections.deque(maxlen=RUSH_RUNS))

    def starting_patience(self) -> float:
        """Seconds that the status of a run may wait for its pods: longer while any other begins or gets to run."""
        busy = self._moments and self.clock() - self._moments[-1] < RUSH_SECONDS
        return MOST_PATIENCE_SECONDS if busy else FIRST_STATUS_SECONDS

    def running_patience(self) -> float:
        """Seconds that it may wait although the pods run: only in a rush."""
        return MOST_PATIENCE_SECONDS if self._rush() else 0.0

    def coalesce_seconds(self) -> float:
        """How long to wait for more news of a Job or its pods before a look at the run."""
        return COALESCE_IN_RUSH_SECONDS if self._rush() else COALESCE_SECONDS

    def has_begun(self, key: Key, uid: str) -> bool:
        """Whether this operator has made the Job of a run without writing a status."""
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

    def still_waits(self, key: Key, glance: Hashable) -> bool:
        """Whether a turn would find what the last one found, and wait again."""
        run = self._runs.get(key)
        return run is not None and run.glance == glance and self.clock() < run.until and self._rush()

    def told(self, key: Key) -> Start | None:
        """Its status is written, or it is gone."""
        return self._runs.pop(key, None)

    def ran(self) -> None:
        """A run was told at once to run."""
        self._moments.append(self.clock())

    def _rush(self) -> bool:
        return len(self._moments) == RUSH_RUNS and self.clock() - self._moments[0] < RUSH_SECONDS
