"""Progress of running attempts: rank 0 is asked for it, and what it says is believed only after validation."""

import asyncio
import dataclasses
import datetime
import ipaddress
import logging
from collections.abc import Callable, Iterable

import aiohttp
import pydantic

from patho_api import names, report
from patho_operator import times
from patho_operator.observed import SIGHT_SECONDS, Key, Seen

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 2.0
QUESTIONS_PER_SECOND = 50.0
WRITES_PER_SECOND = 20.0
AT_ONCE = 32
Time = datetime.datetime


@dataclasses.dataclass(frozen=True)
class Target:
    """Rank 0 of a running attempt."""

    key: Key
    run_id: str
    pod_uid: str
    ip: str


@dataclasses.dataclass(frozen=True)
class Heard:
    """What one pod has told so far."""

    pod_uid: str
    newest: report.ProgressReport
    heard: Time  # when it answered last
    still_seconds: float  # how long its step was seen to be the same
    published: report.ProgressReport
    published_at: Time


class Board:
    """The newest report of each run, and the one that status may show: values change faster than status should be written."""

    def __init__(self) -> None:
        self._heard: dict[Key, Heard] = {}

    def note(self, target: Target, found: report.ProgressReport, now: Time, publish_seconds: float) -> bool:
        """Remember a report; True if status should show it now."""
        before = self._heard.get(target.key)
        if before is None or before.pod_uid != target.pod_uid:
            self._heard[target.key] = Heard(target.pod_uid, found, now, 0.0, found, now)
            return True
        moved = (found.stage, found.step) != (before.newest.stage, before.newest.step)
        still = before.still_seconds + min(SIGHT_SECONDS, times.seconds_between(before.heard, now))
        heard = dataclasses.replace(before, newest=found, heard=now, still_seconds=0.0 if moved else still)
        due = _shown(found) != _shown(before.published) and times.seconds_between(before.published_at, now) >= publish_seconds
        publish = due or _notable(found) != _notable(before.published)
        self._heard[target.key] = dataclasses.replace(heard, published=found, published_at=now) if publish else heard
        return publish

    def seen(self, key: Key, pod_uid: str) -> Seen | None:
        """What a decision may know; None if this pod has not been heard."""
        heard = self._heard.get(key)
        return Seen(heard.published, heard.heard, heard.still_seconds) if heard and heard.pod_uid == pod_uid else None

    def forget(self, key: Key) -> None:
        """The resource is gone."""
        self._heard.pop(key, None)


def _shown(found: report.ProgressReport) -> report.ProgressReport:
    """The report without what changes although nothing happens."""
    return found.model_copy(update={"time": ""})


def _notable(found: report.ProgressReport) -> tuple[object, ...]:
    """What status shows at once."""
    return found.stage, found.checkpoint, found.restarts, found.collapsed


def parse(body: bytes, run_id: str) -> report.ProgressReport | None:
    """A report out of an untrusted body; None if it is malformed or of another run."""
    try:
        found = report.ProgressReport.model_validate_json(body)
    except pydantic.ValidationError:
        return None
    return found if found.run_id == run_id else None


def url(ip: str) -> str:
    """Where a pod tells its progress."""
    host = f"[{ip}]" if ipaddress.ip_address(ip).version == 6 else ip
    return f"http://{host}:{names.PORT_METRICS}/progress"


def session(seconds: float = TIMEOUT_SECONDS) -> aiohttp.ClientSession:
    """How pods are asked: within a time for the whole answer, by no proxy, and what is packed is not unpacked."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=seconds), trust_env=False, auto_decompress=False)


async def ask(session: aiohttp.ClientSession, target: Target) -> report.ProgressReport | None:
    """What rank 0 says; None if it does not answer in time or talks nonsense."""
    try:
        async with session.get(url(target.ip), allow_redirects=False) as answer:
            if answer.status != 200:
                return None
            body = await _read(answer)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        log.debug("%s %s/%s: no progress from %s: %s", *target.key, target.ip, error)
        return None
    return parse(body, target.run_id)


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    """The body; ValueError if it is larger than a report may be."""
    body = b""
    async for piece in answer.content.iter_chunked(16 * 1024):
        body += piece
        if len(body) > report.MAX_PROGRESS_BYTES:
            raise ValueError("more than a report may be")
    return body


async def run(
    board: Board,
    targets: Callable[[], Iterable[Target]],
    notify: Callable[[Key], None],
    every: float,
    publish: float,
    now: Callable[[], Time],
) -> None:
    """Ask for ever. `every` and `publish` are seconds, stretched when there are many runs."""
    async with session() as asking:
        while True:
            found = list(targets())
            await _round(asking, board, found, notify, max(publish, len(found) / WRITES_PER_SECOND), now)
            await asyncio.sleep(max(every, len(found) / QUESTIONS_PER_SECOND))


async def _round(
    session: aiohttp.ClientSession,
    board: Board,
    targets: list[Target],
    notify: Callable[[Key], None],
    publish: float,
    now: Callable[[], Time],
) -> None:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(target: Target) -> None:
        async with gate:
            found = await ask(session, target)
        if found and board.note(target, found, now(), publish):
            notify(target.key)

    await asyncio.gather(*(one(target) for target in targets))
