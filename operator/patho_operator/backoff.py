"""How long to wait before the next attempt. Pure."""

import hashlib
from collections.abc import Sequence

from patho_api.status import Attempt
from patho_operator import times
from patho_operator.observed import Time

FIRST_SECONDS, MOST_SECONDS = 10.0, 300.0
# Attempts that ended for these reasons failed; others were asked for, or the cause is elsewhere
FAILURES = ("JobFailed", "Stalled", "IndexBackOff")
PLACEMENT = "PlacementTimeout"


def seconds_left(uid: str, attempts: Sequence[Attempt], now: Time) -> float:
    """Seconds until the next attempt may begin; 0 if it may now."""
    last = max(attempts, key=lambda a: a.number, default=None)
    end = times.parse(last.end) if last else None
    if last is None or end is None:
        return 0.0
    return max(0.0, _pause(uid, attempts, last) - times.seconds_between(end, now))


def _pause(uid: str, attempts: Sequence[Attempt], last: Attempt) -> float:
    """10 s x 2^n, at most 5 min, n failures in a row without a new checkpoint; a gang that was not placed waits with jitter."""
    if last.reason not in (*FAILURES, PLACEMENT):
        return 0.0
    fruitless = _fruitless(attempts)
    pause: float = min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** max(0, fruitless - 1))
    return pause * (1 + _share(f"{uid}-{last.number}")) if last.reason == PLACEMENT else pause


def _fruitless(attempts: Sequence[Attempt]) -> int:
    """Failed attempts in a row, newest first, that made no step beyond where they began."""
    count = 0
    for attempt in sorted(attempts, key=lambda a: a.number, reverse=True):
        progressed = attempt.to_step is not None and attempt.to_step > (attempt.from_step or 0)
        if progressed or attempt.reason not in (*FAILURES, PLACEMENT):
            break
        count += 1
    return count


def _share(text: str) -> float:
    """A number in 0..1 that depends on the text only: two gangs that collided must not meet again."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4]) / 2**32
