"""The impatient operator on machines whose clocks are wrong: with each start the next of SKEW_SECONDS (a list with commas) is added to
every Python clock that shows a date.
"""

import datetime
import os
import time

SKEWS = os.environ["SKEW_SECONDS"].split(",")
SKEW_SECONDS = float(SKEWS[int(os.environ["START"]) % len(SKEWS)])
_time = time.time


class Shifted(datetime.datetime):
    """A datetime whose `now` is wrong."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "Shifted":
        """The time by the wrong clock."""
        return cls.fromtimestamp(_time() + SKEW_SECONDS, tz)


datetime.datetime = Shifted  # type: ignore[misc]
time.time = lambda: _time() + SKEW_SECONDS

from tests.cluster.chaos import impatient  # noqa: E402  # its modules must find the wrong clocks

if __name__ == "__main__":
    impatient.run()
