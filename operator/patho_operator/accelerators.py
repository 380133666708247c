"""What a run has used: accelerators times seconds of running pods. Pure."""

from collections.abc import Sequence

from patho_operator import times
from patho_operator.observed import Job, Pod, Time
from patho_operator.situation import Situation


def seconds(s: Situation) -> float:
    """Accelerator seconds of all attempts so far, by the devices that each attempt's pods had; 0 for a run on CPUs."""
    if s.job is None:
        return s.subject.status.accelerator_seconds
    used = sum(_running_seconds(pod, s.now) for pod in s.pods) + _vanished_seconds(s.job, s.pods)
    return round(s.job.before.accelerator_seconds + used * s.job.accelerators, 1)


def _running_seconds(pod: Pod, now: Time) -> float:
    if pod.started is None:
        return 0.0
    return times.seconds_between(pod.started, pod.finished or now)


def _vanished_seconds(job: Job, pods: Sequence[Pod]) -> float:
    """Seconds of pods that are no longer shown (evicted ones go at once): from the Job's start to their replacement's creation.

    A little too much, by the back-off before the replacement; without it, days before an eviction would be forgotten.
    """
    oldest: dict[int, Pod] = {}
    for pod in pods:
        if pod.index not in oldest or pod.created < oldest[pod.index].created:
            oldest[pod.index] = pod
    return sum(times.seconds_between(job.started or job.created, pod.created) for pod in oldest.values() if pod.earlier_failures)
