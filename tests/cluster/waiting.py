"""Waiting that fails: every wait has a deadline and says what it last saw."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
INTERVAL_SECONDS = 0.2


def until(look: Callable[[], T], *, what: str, seconds: float = 60, interval_seconds: float = INTERVAL_SECONDS) -> T:
    """The first true value that `look` returns. Raises TimeoutError that says what was expected and what was seen last."""
    deadline = time.monotonic() + seconds
    while True:
        if seen := look():
            return seen
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s; last seen: {seen!r}")
        time.sleep(interval_seconds)
