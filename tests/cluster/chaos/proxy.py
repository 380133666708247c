"""A proxy between the operator and the API server that does what networks, servers and crashes do, at a chosen call.

Calls are counted by namespace, so that many runs can be led at the same time, each with a fault of its own. Only the operator's own
client is counted (kopf and the operator's watch read by lists and watches: `watches.py`). It also notes which rights were used, and refuses
any DELETE that could hit the wrong object or orphan its children.
"""

import asyncio
import collections
import contextlib
import dataclasses
import json
import re
import socket
import ssl
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiohttp
from aiohttp import web

from tests.cluster.chaos import watches

AGENT = "patho-operator"
PASSED_ON = ("Authorization", "Content-Type", "Accept", "User-Agent")
LONGEST_LINE = 2**22  # bytes of one event
RESOURCE = re.compile(r"^/(?:api|apis/(?P<group>[^/]+))/[^/]+(?:/namespaces/(?P<namespace>[^/]+))?/(?P<words>[^/]+(?:/[^/]+)*)$")
Right = tuple[str, str, str]  # (group, resource or resource/subresource, verb), as RBAC names them


@dataclasses.dataclass(frozen=True)
class Target:
    """What a request is about."""

    verb: str  # as RBAC names it
    group: str
    resource: str  # with its subresource
    namespace: str
    name: str


@dataclasses.dataclass
class Fault:
    """What happens to call `at` (from 1) of a namespace, and to each `every`-th after it."""

    kind: str  # one of FAULTS
    at: int
    every: int
    kill: Callable[[], None] = lambda: None  # the operator, for faults that do
    hits: list[str] = dataclasses.field(default_factory=list)  # the calls that it befell


class Proxy:
    """Plain HTTP in front of the API server."""

    def __init__(self, upstream: str, tls: ssl.SSLContext) -> None:
        self._upstream, self._tls = upstream, tls
        self.faults: dict[str, Fault] = {}  # by namespace
        self.calls: collections.Counter[str] = collections.Counter()  # by namespace
        self.rights: set[Right] = set()  # that were used
        self.missing: set[Right] = set()  # that were used and not granted
        self.malformed: list[str] = []  # deletes that were refused
        self.watches = watches.Watches()
        self._down = False  # the API server does not answer at all
        self._open: list[web.Request] = []  # watches
        self.url = ""

    async def __aenter__(self) -> "Proxy":
        connector = aiohttp.TCPConnector(limit=0, ssl=self._tls)
        self._session = aiohttp.ClientSession(connector=connector, read_bufsize=LONGEST_LINE, timeout=aiohttp.ClientTimeout())
        app = web.Application(client_max_size=LONGEST_LINE)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        target = read(request.method, request.path, dict(request.query))
        if self._down:
            return _abort(request)
        if target:
            self.rights.add((target.group, target.resource, target.verb))
            if target.verb == "delete" and (wrong := _malformed(body)):
                self.malformed.append(f"DELETE {request.path}: {wrong}")
                return _status(400, "BadRequest", wrong)
        if "watch" in request.query:
            return await self._watch(request, target)
        fault = self._due(request, target)
        return await FAULTS[fault.kind](self, request, body, fault) if fault else await self._answer(request, body, target)

    async def outage(self, seconds: float) -> None:
        """The API server is away for a while: what was open is cut, and what is asked gets no answer. Everybody else goes on."""
        self._down = True
        for request in [*self._open]:
            _reset(request)
        await asyncio.sleep(seconds)
        self._down = False

    def _due(self, request: web.Request, target: Target | None) -> Fault | None:
        """The fault of this very call."""
        if not target or not target.namespace or target.resource == "leases" or request.headers.get("User-Agent") != AGENT:
            return None
        self.calls[target.namespace] += 1
        number, fault = self.calls[target.namespace], self.faults.get(target.namespace)
        if fault is None or number < fault.at or (number - fault.at) % fault.every:
            return None
        fault.hits.append(f"{number} {target.verb} {target.resource} {target.name}".strip())
        return fault

    async def forward(self, request: web.Request, body: bytes) -> web.Response:
        """The API server's answer."""
        async with self._session.request(request.method, self._url(request), data=body or None, headers=_headers(request)) as answer:
            content = await answer.read()
            target = read(request.method, request.path, dict(request.query))
            if target and answer.status == 403 and b" cannot " in content:
                self.missing.add((target.group, target.resource, target.verb))
            kept = {name: answer.headers[name] for name in ("Content-Type", "Retry-After") if name in answer.headers}
            return web.Response(status=answer.status, body=content, headers=kept)

    async def _answer(self, request: web.Request, body: bytes, target: Target | None) -> web.Response:
        if target and target.verb == "list" and request.headers.get("User-Agent") != AGENT:
            return await self.watches.listed(request.path_qs, target.resource, lambda: self.forward(request, body))
        return await self.forward(request, body)

    async def _watch(self, request: web.Request, target: Target | None) -> web.StreamResponse:
        """Events as they come, except for what `watches` does to them."""
        async with self._session.get(self._url(request), headers=_headers(request)) as answer:
            response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})
            with self._kept(request), contextlib.suppress(ConnectionError):  # the operator is gone
                await response.prepare(request)
                async for line in answer.content:
                    end = await self.watches.passed(line, target.resource if target else "", response)
                    if end == "Cut":
                        _reset(request)
                    if end:
                        break
            return response

    @contextlib.contextmanager
    def _kept(self, request: web.Request) -> Iterator[None]:
        self._open.append(request)
        try:
            yield
        finally:
            self._open.remove(request)

    def _url(self, request: web.Request) -> str:
        return self._upstream + request.path_qs


def read(method: str, path: str, query: dict[str, str]) -> Target | None:
    """What a request is about, in RBAC's words; None for paths that are no resource."""
    match = RESOURCE.match(path)
    if not match:
        return None
    resource, name, *sub = [*match["words"].split("/"), ""]
    subresource = sub[0] if name and sub else ""
    verbs = {"GET": ("watch" if "watch" in query else "get" if name else "list"), "POST": "create", "PUT": "update"}
    verb = verbs.get(method, method.lower())
    full = f"{resource}/{subresource}" if subresource else resource
    return Target(verb, match["group"] or "", full, match["namespace"] or "", name)


def _malformed(body: bytes) -> str:
    """What a DELETE lacks; empty if nothing."""
    options = json.loads(body) if body else {}
    lacking = [] if options.get("propagationPolicy") else ["propagationPolicy"]
    lacking += [] if (options.get("preconditions") or {}).get("uid") else ["preconditions.uid"]
    return f"a delete without {' and '.join(lacking)}" if lacking else ""


def _headers(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in PASSED_ON if name in request.headers} | {"Accept-Encoding": "identity"}


def _status(code: int, reason: str, message: str, **headers: str) -> web.Response:
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message, "code": code}
    return web.json_response(body, status=code, headers=headers)


def _reset(request: web.Request) -> None:
    """Close the connection with RST, as a crashed peer does."""
    if request.transport is not None:
        raw: Any = request.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


def _abort(request: web.Request) -> web.Response:
    _reset(request)
    return web.Response()  # goes nowhere


async def _refuse(code: int, reason: str, request: web.Request, **headers: str) -> web.Response:
    return _status(code, reason, f"{request.method} {request.path}: a fault of the test", **headers)


async def _killed_before(_: Proxy, request: web.Request, __: bytes, fault: Fault) -> web.Response:
    fault.kill()
    return _abort(request)


async def _killed_after(proxy: Proxy, request: web.Request, body: bytes, fault: Fault) -> web.Response:
    await proxy.forward(request, body)
    fault.kill()
    return _abort(request)


async def _reset_before(_: Proxy, request: web.Request, __: bytes, ___: Fault) -> web.Response:
    return _abort(request)


async def _reset_after(proxy: Proxy, request: web.Request, body: bytes, _: Fault) -> web.Response:
    await proxy.forward(request, body)
    return _abort(request)


async def _silent_after(proxy: Proxy, request: web.Request, body: bytes, _: Fault) -> web.Response:
    """The commit is made; the answer never comes: the client gives up by itself, which cancels this."""
    await proxy.forward(request, body)
    await asyncio.sleep(600)
    return _abort(request)


Effect = Callable[[Proxy, web.Request, bytes, Fault], Awaitable[web.StreamResponse]]
KILLS: dict[str, Effect] = {"killed before": _killed_before, "killed after": _killed_after}
ERRORS: dict[str, Effect] = {
    "409": lambda p, r, b, f: _refuse(409, "Conflict", r),
    "429": lambda p, r, b, f: _refuse(429, "TooManyRequests", r, **{"Retry-After": "1"}),
    "500": lambda p, r, b, f: _refuse(500, "InternalError", r),
    "503": lambda p, r, b, f: _refuse(503, "ServiceUnavailable", r),
    "reset": _reset_before,
    "reset after commit": _reset_after,
    "time-out after commit": _silent_after,
}
FAULTS = KILLS | ERRORS
