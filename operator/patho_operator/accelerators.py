"""What a run has used: accelerators times seconds of running pods. Pure."""

from patho_operator import times
from patho_operator.observed import Pod, Time
from patho_operator.situation import Situation


def seconds(s: Situation) -> float:
    """Accelerator seconds of all attempts so far, by the devices that each attempt's pods had; 0 for a run on CPUs."""
    if s.job is None:
        return s.subject.status.accelerator_seconds
    used = sum(_running_seconds(pod, s.now) for pod in s.pods)
    return round(s.job.before.accelerator_seconds + used * s.job.accelerators, 1)


def _running_seconds(pod: Pod, now: Time) -> float:
    if pod.started is None:
        return 0.0
    return times.seconds_between(pod.started, pod.finished or now)
