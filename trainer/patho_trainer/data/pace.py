"""Not more than so many requests a second: what a shared bucket or a proxy allows one process."""

import random
import threading


class Pace:
    """Spreads requests evenly. Thread-safe; time is an argument."""

    def __init__(self, requests_per_second: float) -> None:
        """0: as fast as may be."""
        self._seconds = 1 / requests_per_second if requests_per_second else 0.0
        self._free = 0.0
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        """Whether there is a limit."""
        return self._seconds > 0

    def wait_seconds(self, requests: int, now: float) -> float:
        """How long to wait before sending some requests; they count as sent then. What was not used before `now` is lost."""
        with self._lock:
            start = max(self._free, now)
            self._free = start + requests * self._seconds
            return start - now


def pause_seconds(attempt: int) -> float:
    """Exponential backoff with jitter, so that a fleet does not come back at once."""
    return float(0.25 * 2**attempt * (0.5 + random.random()))
