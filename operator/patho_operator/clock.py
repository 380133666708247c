"""The time by the API server's clock: it stamps the objects that decisions compare with "now", and a node's clock may be minutes off.

Where the operator's clock was ahead, a pod that was still saving would seem overdue, and be removed by force.
"""

import datetime
import email.utils
import logging
from collections.abc import Callable

from patho_operator import times

log = logging.getLogger(__name__)

TOLERATED_SECONDS = 5.0  # Date counts whole seconds, and clocks that differ by less do no harm
Time = datetime.datetime


def local() -> Time:
    """The time by this machine's clock."""
    return datetime.datetime.now(times.UTC)


class Clock:
    """This machine's clock, set right by the answers of the API server."""

    def __init__(self, machine: Callable[[], Time] = local) -> None:
        self.machine = machine
        self._ahead = datetime.timedelta()  # of the API server's
        self._told = False

    def now(self) -> Time:
        """The time by the API server's clock, as far as it is known."""
        return self.machine() - self._ahead

    def heard(self, date: str, sent: Time) -> None:
        """An answer's Date header, and when its request was sent by this machine's clock."""
        try:
            stamped = email.utils.parsedate_to_datetime(date).astimezone(times.UTC)
        except ValueError:
            return
        self._ahead = _ahead(sent, stamped, self.machine())
        if self._ahead and not self._told:
            self._told = True
            log.warning("this clock is %.0f s ahead of the API server's, which is used instead", self._ahead.total_seconds())


def _ahead(sent: Time, stamped: Time, received: Time) -> datetime.timedelta:
    """How far a clock is ahead of the one that stamped an answer; 0 if little, or if the stamp lies between sending and receiving.

    An answer that took long, or lay unread in a paused process, tells of no difference.
    """
    ahead = sent - stamped if stamped < sent else min(received - stamped, datetime.timedelta())
    return ahead if abs(ahead.total_seconds()) > TOLERATED_SECONDS else datetime.timedelta()
