"""A server that answers like the API server where the rim is tested without one: it records requests and gives prepared answers."""

import dataclasses
import json
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio import client as official

from patho_operator import client
from patho_operator.cluster import Cluster


@dataclasses.dataclass
class Request:
    """One request as it came."""

    verb: str
    path: str
    query: dict[str, str]
    body: Any
    content_type: str


class FakeApi:
    """Prepared answers by (verb, path): (HTTP status, JSON body), or a list of them; everything else is 200 with an empty object."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], Any] = {}
        self.requests: list[Request] = []

    def refuse(self, verb: str, path: str, status: int, reason: str, message: str = "") -> None:
        """Answer with a Kubernetes Status."""
        self.answers[verb, path] = status, {"kind": "Status", "reason": reason, "message": message}

    async def handle(self, request: web.Request) -> web.Response:
        """Any request."""
        text = await request.text()
        body = json.loads(text) if text else None
        self.requests.append(Request(request.method, request.path, dict(request.query), body, request.content_type))
        prepared = self.answers.get((request.method, request.path), (200, {}))
        status, answer = prepared.pop(0) if isinstance(prepared, list) else prepared
        return web.json_response(answer, status=status)


@pytest.fixture
def fake() -> FakeApi:
    """The server's memory."""
    return FakeApi()


@pytest.fixture
async def api(fake):
    """A client of that server."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", fake.handle)
    async with TestServer(app) as server:
        configuration = official.Configuration()
        configuration.host = str(server.make_url("")).rstrip("/")
        connection = client.Client(configuration, lambda verb, code: None)
        yield connection
        await connection.close()


@pytest.fixture
def cluster(api):
    """The module under test, over that client."""
    return Cluster(api)
