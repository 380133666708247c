"""The impatient operator on a machine whose clock is wrong by SKEW_SECONDS: every Python clock that shows a date is."""

import datetime
import os
import time

SKEW_SECONDS = float(os.environ["SKEW_SECONDS"])
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
