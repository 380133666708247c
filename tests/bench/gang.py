"""One large gang, and how long it takes until all of it runs again."""

import asyncio
import contextlib
import datetime
import time
from collections.abc import AsyncIterator

from aiohttp import web

from patho_api import names, report
from patho_operator import manifests, observed
from tests.bench import scale
from tests.bench.scale import Bench, Client, Manifest
from tests.cluster import release

LOOPBACK = "127.99.0.1"  # where rank 0 of a fake gang answers
FAILED = {"status": {"phase": "Failed"}}


async def stalled(bench: Bench, body: Manifest, pods: int) -> str:
    """Seconds of each act of our gang: start, a pod lost, no progress."""
    async with bench.client() as client:
        first, started = await _start(client, body, pods)
        begin = time.monotonic()
        await _fail_one(client, await _rank0(client))
        second = await client.running(1, without=first)
        replaced = time.monotonic() - begin
        await client.running(pods)
        uid = (await client.call("GET", f"{scale.PATHS['PathoPretrain']}/{body['metadata']['name']}"))["metadata"]["uid"]
        async with _standing_still(manifests.run_id(uid, 1)) as asked:
            await _move(client, await _rank0(client))
            await asyncio.wait_for(asked.wait(), 120)
            due = time.monotonic() + body["spec"]["runPolicy"]["stallTimeoutSeconds"]
            cpu, offset = bench.cpu_seconds(), bench.audit.stat().st_size
            course = asyncio.create_task(_course(client))
            await client.running(pods, without=first | second)
            again = time.monotonic()
            used, writes = _used(bench, cpu), _ours(bench, offset)
    acts = ", ".join(f"{what} after {when - due:.1f} s" for what, when in (await course).items())
    begun = f"all run after {started:.1f} s, a failed pod replaced after {replaced:.1f} s"
    return f"{begun}; from the stall's time-out: {acts}, all run after {again - due:.1f} s; CPU {used}; the operator wrote {writes}"


async def failed(bench: Bench, body: Manifest, pods: int) -> str:
    """Seconds of each act of another operator's gang: start, and from a failed pod until all of the next run."""
    async with bench.client() as client:
        first, started = await _start(client, body, pods)
        begin, cpu = time.monotonic(), bench.cpu_seconds()
        await _fail_one(client, (await client.call("GET", f"{scale.PODS}?limit=1"))["items"][0]["metadata"]["name"])
        await client.running(pods, without=first)
        seconds = time.monotonic() - begin
        return f"all run after {started:.1f} s, after a pod failed all of the next run after {seconds:.1f} s; CPU {_used(bench, cpu)}"


def _ours(bench: Bench, offset: int) -> str:
    """What the operator has written since then."""
    return ", ".join(f"{what} {n}" for (user, _, what), n in bench.writes(offset).items() if user == release.NAME)


def _used(bench: Bench, before: dict[str, float]) -> str:
    """CPU seconds since then, by process."""
    used = {name: seconds - before[name] for name, seconds in bench.cpu_seconds().items()}
    return f"{sum(used.values()):.1f} s (" + ", ".join(f"{name} {seconds:.1f}" for name, seconds in used.items()) + ")"


async def _start(client: Client, body: Manifest, pods: int) -> tuple[set[str], float]:
    begin = time.monotonic()
    await client.create([body])
    return await client.running(pods), time.monotonic() - begin


async def _rank0(client: Client) -> str:
    """Name of the running pod of index 0."""
    found = (await client.call("GET", f"{scale.PODS}?labelSelector={observed.COMPLETION_INDEX}%3D0"))["items"]
    return next(str(pod["metadata"]["name"]) for pod in found if pod["status"]["phase"] == "Running")


async def _fail_one(client: Client, pod: str) -> None:
    await client.call("PATCH", f"{scale.PODS}/{pod}/status", FAILED, "application/merge-patch+json")


async def _move(client: Client, pod: str) -> None:
    """Give a pod an address at which somebody answers."""
    status = {"status": {"podIP": LOOPBACK, "podIPs": [{"ip": LOOPBACK}]}}
    await client.call("PATCH", f"{scale.PODS}/{pod}/status", status, "application/merge-patch+json")


@contextlib.asynccontextmanager
async def _standing_still(run_id: str) -> AsyncIterator[asyncio.Event]:
    """Rank 0 that always reports the same step; the event is set when it was asked first."""
    asked, now = asyncio.Event(), datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = report.ProgressReport(run_id=run_id, stage="Training", step=100, total_steps=1000, time=now)
    text = found.model_dump_json(by_alias=True)

    async def answer(_: web.Request) -> web.Response:
        asked.set()
        return web.json_response(text=text)

    app = web.Application()
    app.router.add_get("/progress", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, LOOPBACK, names.PORT_METRICS).start()
    yield asked
    await runner.cleanup()


async def _course(client: Client) -> dict[str, float]:
    """When the Job's deletion began, when it was gone, and when the next one existed."""
    found: dict[str, float] = {}
    while "next Job" not in found:
        jobs = {j["metadata"]["name"]: j["metadata"] for j in (await client.call("GET", scale.PATHS["Job"]))["items"]}
        old = next((m for name, m in jobs.items() if name.endswith("-1")), None)
        now = time.monotonic()
        if old is None or "deletionTimestamp" in old:
            found.setdefault("Job deleted", now)
        if old is None:
            found.setdefault("its pods gone", now)
        if any(name.endswith("-2") for name in jobs):
            found.setdefault("next Job", now)
        await asyncio.sleep(0.2)
    return found
