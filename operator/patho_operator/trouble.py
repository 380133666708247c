"""Why pods do not run, in the API's own words. Pure."""

from patho_operator import attempts, incidents, times
from patho_operator.situation import Situation

Aspect = tuple[str, str, str]


def quota(s: Situation) -> str:
    """The words of a quota that keeps pods from being made; empty if none."""
    return next((w for w in s.observed.warnings if "exceeded quota" in w), "")


def not_running(s: Situation, count: str) -> Aspect:
    """The condition Running=False while an attempt is not whole: (status, reason, message)."""
    waiting = [p for p in s.pods if p.live and p.trouble]
    if waiting:
        first = min(waiting, key=lambda p: p.created)
        placed = sum(p.live and p.scheduled for p in s.pods)
        lasting = times.short(times.seconds_between(first.created, s.now))
        return "False", first.trouble_reason, f"{placed} of {s.compute.nodes} nodes placed for {lasting}: {first.trouble}"
    if s.observed.warnings:
        return "False", "NotStarting", f"{count}: {s.observed.warnings[0]}"
    failed = incidents.faulty(s.pods)
    if failed:
        return "False", "Restarting", f"{count}; the last failure: {attempts.describe(failed[-1])}"
    if s.current.suspended:
        return "False", "Queued", "admission is awaited"
    return "False", "Starting", count
