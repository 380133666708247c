"""What a proxy does to lists and watches: events lost, late, twice; streams cut, expired (410), started from an old list."""

import asyncio
import dataclasses
import json
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from aiohttp import web

Kind = Literal["lost", "late", "twice", "cut", "expired", "old list"]
End = Literal["", "Cut", "Closed"]  # a cut may swallow what was written before it
KINDS: tuple[Kind, ...] = ("lost", "late", "twice", "cut", "expired", "old list")
EXPIRED = {
    "type": "ERROR",
    "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "message": "too old", "code": 410},
}


@dataclasses.dataclass
class Fault:
    """What happens to event `at` (from 1) of a resource in a namespace, and to each `every`-th after it."""

    kind: Kind
    resource: str  # plural
    at: int
    every: int
    late_seconds: float = 2.0
    relist: asyncio.Event | None = None  # "expired": the next list waits for it, so that things can happen in the gap
    held: bool = False
    seen: int = 0  # events of its namespace so far
    hits: int = 0


class Watches:
    """The faults of all watches."""

    def __init__(self) -> None:
        self.faults: dict[str, Fault] = {}  # by namespace
        self._first: dict[str, tuple[int, bytes]] = {}  # lists by request, as they were answered first
        self._gates: dict[str, asyncio.Event] = {}  # by resource
        self._old: set[str] = set()  # resources whose next list is an old one
        self._late: set[asyncio.Task[None]] = set()

    async def listed(self, request: str, resource: str, ask: Callable[[], Awaitable[web.Response]]) -> web.Response:
        """A list from which a watch goes on, kopf's or the operator's own: the present one, or the first that was ever answered."""
        if gate := self._gates.pop(resource, None):
            await gate.wait()
        if resource in self._old and request in self._first:
            self._old.discard(resource)
            status, body = self._first[request]
            return web.Response(status=status, body=body, content_type="application/json")
        answer = await ask()
        if answer.status == 200 and isinstance(answer.body, bytes):
            self._first.setdefault(request, (answer.status, answer.body))
        return answer

    async def passed(self, line: bytes, resource: str, response: web.StreamResponse) -> End:
        """Pass one event on, or do what befalls it; how the stream ends, if it does."""
        event = json.loads(line)
        fault = self._due(event, resource)
        if fault is None:
            await response.write(line)
            return ""
        fault.hits += 1
        return await self._befall(fault, line, response)

    def _due(self, event: Any, resource: str) -> Fault | None:
        namespace = event["object"].get("metadata", {}).get("namespace", "")
        fault = self.faults.get(namespace)
        if fault is None or fault.resource != resource or event["type"] == "BOOKMARK":
            return None
        fault.seen += 1
        due = fault.seen >= fault.at and (fault.seen - fault.at) % fault.every == 0
        fault.held = fault.kind == "late" and (fault.held or due)  # none may overtake it
        return fault if due or fault.held else None

    async def _befall(self, fault: Fault, line: bytes, response: web.StreamResponse) -> End:
        match fault.kind:
            case "lost":
                return ""
            case "late":
                self._later(fault.late_seconds, line, response)
                return ""
            case "twice":
                await response.write(line + line)
                return ""
            case "cut":
                return "Cut"
            case "old list":
                self._old.add(fault.resource)
        if fault.relist:
            self._gates[fault.resource] = fault.relist
        await response.write(json.dumps(EXPIRED).encode() + b"\n")
        return "Closed"

    def _later(self, seconds: float, line: bytes, response: web.StreamResponse) -> None:
        async def write() -> None:
            await asyncio.sleep(seconds)
            try:
                await response.write(line)
            except ConnectionError:
                return  # the watch has ended: its successor starts where the client got to

        task = asyncio.create_task(write())
        self._late.add(task)
        task.add_done_callback(self._late.discard)
