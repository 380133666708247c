"""/healthz, /readyz and /metrics on one port."""

import dataclasses
from collections.abc import Callable

from aiohttp import web

QUEUE_SILENT_SECONDS = 60.0  # workers look at the queue every second
UNREACHED_SECONDS = 30.0
LISTS_MISSED = 3


@dataclasses.dataclass
class Pulse:
    """When parts of the operator last showed life, in seconds of the loop's clock."""

    leading: bool = False
    renewed: float = 0.0  # the Lease
    reached: float = 0.0  # the API server
    turned: float = 0.0  # a worker looked at the queue
    listed: float = 0.0  # a complete list
    relist_seconds: float = 300.0


def problems(pulse: Pulse, now: float, lease_seconds: float) -> list[str]:
    """Why the process should be restarted; empty if it should not. A standby is healthy."""
    if not pulse.leading:
        return []
    found = []
    if now - pulse.renewed > lease_seconds:
        found.append(f"the Lease was not renewed for {now - pulse.renewed:.0f} s")
    if now - pulse.turned > QUEUE_SILENT_SECONDS:
        found.append(f"no worker looked at the queue for {now - pulse.turned:.0f} s")
    if now - pulse.listed > LISTS_MISSED * pulse.relist_seconds:
        found.append(f"no complete list for {now - pulse.listed:.0f} s")
    return found


def not_ready(pulse: Pulse, now: float) -> list[str]:
    """Why the operator cannot do its work now; a standby that sees the Lease is ready."""
    return [] if now - pulse.reached <= UNREACHED_SECONDS else ["the API server does not answer"]


async def serve(
    port: int, healthz: Callable[[], list[str]], readyz: Callable[[], list[str]], metrics: Callable[[], bytes]
) -> web.AppRunner:
    """Serve until the runner is cleaned up."""

    def answer(found: list[str]) -> web.Response:
        return web.Response(text="\n".join(found) or "ok", status=503 if found else 200)

    async def get_healthz(_: web.Request) -> web.Response:
        return answer(healthz())

    async def get_readyz(_: web.Request) -> web.Response:
        return answer(readyz())

    async def get_metrics(_: web.Request) -> web.Response:
        return web.Response(body=metrics(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    app = web.Application()
    app.add_routes([web.get("/healthz", get_healthz), web.get("/readyz", get_readyz), web.get("/metrics", get_metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
