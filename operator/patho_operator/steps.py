"""The one thing to do next about a resource, as data."""

import dataclasses
from typing import Literal

Kind = Literal["Begin", "Keep", "Stop", "Hold", "Rest", "Refuse", "Succeed", "Fail"]
EVENTS = {"Stalled": "Stalled", "Suspended": "Suspended", "JobFailed": "AttemptFailed"}
END_EVENTS = {"Succeed": "Succeeded", "Fail": "Failed", "Refuse": "Refused"}


@dataclasses.dataclass(frozen=True)
class Step:
    """Begin a new attempt; keep the present one; stop it; hold until something changes; rest while suspended; refuse; or end."""

    kind: Kind
    reason: str = ""  # one CamelCase word
    message: str = ""  # one sentence
    counted: bool = False  # the stop is an incident
    seconds: float | None = None  # how long to hold

    @property
    def event(self) -> str:
        """The reason of the event that tells a user about it."""
        return END_EVENTS.get(self.kind) or EVENTS.get(self.reason, "Restarting")
