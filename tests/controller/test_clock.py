"""Decisions are made by the API server's clock, however wrong the operator's own is."""

import datetime
import email.utils

import pytest

from patho_api import names
from patho_operator import clock, handlers, metrics, observed, progress, times, worker
from patho_operator.cluster import path
from patho_operator.handlers import Indexes
from patho_operator.observed import Key
from tests.controller.builders import NOW, after, at, make_job, make_pod, make_pretrain, plan_for, started

KEY = Key(names.PRETRAIN, "lab", "vits16")
PODS = path("Pod", "lab")


@pytest.mark.parametrize(
    ("stamped", "sent", "now"),  # seconds; the own clock shows 0
    [(-600, 0, -600), (600, 0, 600), (-3, 0, 0), (3, 0, 0), (-30, -60, 0), (-600, -60, -540)],
)
def test_a_clock_that_is_minutes_off_is_set_right(stamped, sent, now):
    found = clock.Clock(lambda: NOW)
    found.heard(email.utils.format_datetime(at(stamped), usegmt=True), at(sent))
    assert found.now() == at(now)


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_an_answer_without_a_date_changes_nothing(date):
    found = clock.Clock(lambda: NOW)
    found.heard(date, NOW)
    assert found.now() == NOW


@pytest.mark.parametrize(("minutes", "left_seconds", "buried"), [(10, 100, False), (-10, 100, False), (-10, -100, True), (10, -100, True)])
async def test_a_pod_is_overdue_by_the_servers_clock(cluster, api, fake, minutes, left_seconds, buried):
    """A pod that saves must not be removed by force because the operator's clock is ahead, nor stay for ever because it is behind."""
    api.clock.machine = lambda: clock.local() + datetime.timedelta(minutes=minutes)
    body = started(make_pretrain())
    pod = make_pod(body, uid="p", created=clock.local())
    pod["metadata"]["deletionTimestamp"] = times.write(clock.local() + datetime.timedelta(seconds=left_seconds))
    resource = path(names.PRETRAIN, "lab", "vits16")
    fake.answers["GET", resource] = fake.answers["PATCH", f"{resource}/status"] = 200, after(body, plan_for(body, [make_job(body)]))
    fake.answers["GET", path("Job", "lab")] = 200, {"items": [make_job(body)]}
    fake.answers["GET", PODS] = 200, {"items": [pod]}
    indexes = Indexes(pods={KEY: [observed.pod(pod)]}, resources={KEY: [handlers.compact(body)]})
    await cluster.get(KEY)
    await worker.Worker(cluster, indexes, progress.Board(), metrics.Metrics("1"), "trainer:1", set())(KEY)
    assert (("PATCH", f"{PODS}/p/status") in [(r.verb, r.path) for r in fake.requests]) == buried
