"""Asking rank 0: what is believed, what is shown and how often."""

import asyncio
import contextlib
import gzip
import inspect

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from patho_api import names
from patho_operator import progress, progress_text
from patho_operator.observed import SIGHT_SECONDS, Key
from patho_operator.progress import Board, Target
from tests.controller.builders import UID, at, make_report

KEY = Key(names.PRETRAIN, "lab", "vits16")
TARGET = Target(KEY, f"{UID}-1", "pod-1", "127.0.0.1")
PUBLISH = 30.0


def text(**fields):
    return make_report(**fields).model_dump_json(by_alias=True).encode()


def test_a_good_report_is_believed():
    assert progress.parse(text(step=7), f"{UID}-1").step == 7


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b'{"step": 1}',
        text(attempt=2),
        text().replace(b'"step":10', b'"step":-1'),
        text().replace(b'"step":10', b'"step":1' + b"0" * 600),
        text().replace(b'"imagesPerSecond":null', b'"imagesPerSecond":1e300'),
        text().replace(b'"time":"2030', b'"time":"in 2030'),
        text().replace(b'"time":"2030-01-01', b'"time":"2030-13-01'),
        text().replace(b'"loss":null', b'"loss":NaN'),
        text().replace(b'"stage":"Training"', b'"stage":"' + b"x" * 100 + b'"'),
        text().replace(b'"step":10', b'"step":10,"command":"rm"'),
    ],
)
def test_nonsense_and_reports_of_other_attempts_are_not(body):
    assert progress.parse(body, f"{UID}-1") is None


def test_progress_is_shown_at_most_every_so_often():
    board = Board()
    shown = [board.note(TARGET, make_report(step), at(step), PUBLISH) for step in (1, 11, 21, 31, 41)]
    assert shown == [True, False, False, True, False]
    assert board.seen(KEY, "pod-1").report.step == 31


def test_a_new_stage_or_checkpoint_is_shown_at_once():
    board = Board()
    board.note(TARGET, make_report(1), at(0), PUBLISH)
    assert board.note(TARGET, make_report(2, stage="Saving"), at(1), PUBLISH)
    assert board.note(TARGET, make_report(2, stage="Saving", checkpoint={"step": 2, "url": "gs://c/2"}), at(2), PUBLISH)


def test_a_report_that_only_says_another_time_changes_nothing():
    board = Board()
    board.note(TARGET, make_report(1), at(0), PUBLISH)
    assert not board.note(TARGET, make_report(1, time="2030-01-01T13:00:00Z"), at(60), PUBLISH)
    assert board.seen(KEY, "pod-1").still_seconds == 60


def test_the_stall_clock_follows_every_report_not_only_those_shown():
    board = Board()
    board.note(TARGET, make_report(1), at(0), PUBLISH)
    board.note(TARGET, make_report(2), at(10), PUBLISH)
    assert board.seen(KEY, "pod-1").still_seconds == 0


def test_the_stall_clock_stands_while_the_operator_cannot_see():
    board = Board()
    for seconds in (0, 10, 20, 20_020, 20_030):
        board.note(TARGET, make_report(1), at(seconds), PUBLISH)
    assert board.seen(KEY, "pod-1").still_seconds == 20 + SIGHT_SECONDS + 10


def test_what_another_pod_said_is_not_this_pods_progress():
    board = Board()
    board.note(TARGET, make_report(1), at(0), PUBLISH)
    assert board.seen(KEY, "pod-2") is None
    board.forget(KEY)
    assert board.seen(KEY, "pod-1") is None


@pytest.mark.parametrize(("ip", "url"), [("10.0.0.1", "http://10.0.0.1:9400/progress"), ("fd00::1", "http://[fd00::1]:9400/progress")])
def test_pods_are_asked_by_their_address(ip, url):
    assert progress.url(ip) == url


def packed(request):
    """A kilobyte may be a gigabyte."""
    return web.Response(body=gzip.compress(text(step=5)), headers={"Content-Encoding": "gzip"})


async def drip(request):
    """A byte every now and then: no single wait is long."""
    response = web.StreamResponse()
    await response.prepare(request)
    with contextlib.suppress(ConnectionError):
        while True:
            await response.write(b" ")
            await asyncio.sleep(0.05)
    return response


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        (lambda r: web.Response(body=text(step=5)), 5),
        (lambda r: web.Response(body=b"x" * 70_000), None),
        (lambda r: web.Response(status=500), None),
        (lambda r: web.HTTPFound("http://169.254.169.254/"), None),
        (packed, None),
        (lambda r: web.Response(body=text(step=5), headers={"X": "x" * 100_000}), None),
        (lambda r: web.Response(body=b"[" * 60_000), None),
        (drip, None),
    ],
)
async def test_a_pod_cannot_flood_redirect_or_hold_up_the_operator(answer, step, monkeypatch):
    async def handle(request):
        found = answer(request)
        return await found if inspect.isawaitable(found) else found

    app = web.Application()
    app.router.add_get("/progress", handle)
    async with TestServer(app) as server, progress.session(seconds=0.5) as session:
        monkeypatch.setattr(names, "PORT_METRICS", server.port)
        found = await progress.ask(session, TARGET)
    assert (found.step if found else None) == step


async def test_a_pod_that_does_not_listen_is_no_error(monkeypatch, unused_tcp_port):
    monkeypatch.setattr(names, "PORT_METRICS", unused_tcp_port)
    async with progress.session() as session:
        assert await progress.ask(session, TARGET) is None


def test_a_run_at_rest_keeps_what_it_reached_and_loses_its_rates():
    last = progress_text.progress(make_report(500, images_per_second=100.0, eta_seconds=60, data_wait_percent=1.0))
    rest = progress_text.at_rest(last, 1000)
    assert (rest.display, rest.percent) == ("1,000/1,000 (100%)", 100)
    assert (rest.rate, rest.eta, rest.wait, rest.images_per_second) == ("", "", "", None)
