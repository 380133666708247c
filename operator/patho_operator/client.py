"""Raw JSON to and from the API server, over the official asynchronous client: its connection, its credentials, none of its models."""

import json
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp
import pydantic_core
from kubernetes.aio import client, config
from kubernetes.aio.client import exceptions

from patho_operator import clock, errors

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 30.0
HTTP_OK = 200
NO_LIMIT = 0  # of connections: workers bound the requests, and each watch keeps one open
AGENT, WATCHER = "patho-operator", "patho-operator-watch"
BUFFER_BYTES = 2**21  # a list of a gang's pods is read in few pieces; as in the client's own session
IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
Json = dict[str, Any]
Count = Callable[[str, int], None]  # (verb, HTTP status; 0: no answer)


class Client:
    """One connection pool to one API server."""

    def __init__(self, configuration: client.Configuration, count: Count) -> None:
        configuration.connection_pool_maxsize = NO_LIMIT
        self._api = client.ApiClient(configuration)
        self._api.rest_client.pool_manager = _without_netrc(self._api.rest_client.pool_manager)
        self._host = configuration.host
        self._count = count
        self.clock = clock.Clock()

    async def request(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        agent: str = AGENT,
    ) -> Json:
        """The decoded answer. Raises ApiError or one of its kinds."""
        headers = await self._headers(agent) | {"Content-Type": content_type, "Accept": accept}
        sent = self.clock.machine()
        try:
            answer = await self._api.rest_client.request(
                verb,
                self._host + path,
                query_params=list((query or {}).items()),
                headers=headers,
                body=body,
                _request_timeout=TIMEOUT_SECONDS,
            )
        except exceptions.ApiException as error:
            self._count(verb, error.status)
            raise _translated(error) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._count(verb, 0)
            raise errors.ApiError(0, type(error).__name__, str(error) or "no answer") from error
        self._count(verb, answer.status)
        self.clock.heard(answer.getheader("Date", ""), sent)
        return decoded(answer.data)

    async def events(self, path: str, query: Mapping[str, str], seconds: float) -> AsyncGenerator[Json]:
        """Events of a watch until it ends: by the server, by its connection, or after `seconds`. Raises ApiError where it is refused."""
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=TIMEOUT_SECONDS)
        try:
            answer = await self._api.rest_client.request(
                "GET",
                self._host + path,
                query_params=list(query.items()),
                headers=await self._headers(WATCHER),
                _preload_content=False,
                _request_timeout=timeout,
            )
            self._count("GET", answer.status)
            async with answer:
                if answer.status != HTTP_OK:
                    raise _from_body(answer.status, answer.reason, await answer.read(), answer.headers.get("Retry-After", ""))
                async for line in _lines(answer.content):
                    yield decoded(line)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            log.info("watch of %s: %s", path, str(error) or type(error).__name__)

    async def _headers(self, agent: str) -> dict[str, str]:
        headers = {"User-Agent": agent}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"])
        return headers

    async def close(self) -> None:
        """Give the connections back."""
        await self._api.close()


async def connect(count: Count) -> Client:
    """A client for the cluster this runs in, or the one that KUBECONFIG names."""
    configuration = client.Configuration()
    if IN_CLUSTER in os.environ and not os.environ.get("KUBECONFIG"):
        config.load_incluster_config(client_configuration=configuration)
    else:
        await config.load_kube_config(client_configuration=configuration)
    return Client(configuration, count)


def decoded(data: bytes) -> Json:
    """An object from its JSON. pydantic's reader is the quicker one and gives up below 200 levels, which a user may write."""
    found: Json
    try:
        found = pydantic_core.from_json(data, cache_strings="keys")
    except ValueError:
        found = json.loads(data)
    return found


def _without_netrc(pool: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """The same connections. The client's own session trusts the environment, and so looks for ~/.netrc in a thread at each request."""
    session = aiohttp.ClientSession(connector=pool.connector, trust_env=False, read_bufsize=BUFFER_BYTES)
    pool.detach()
    return session


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines; what was not finished when the stream ended is none."""
    rest = b""
    async for piece in content.iter_any():
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line


def _translated(error: exceptions.ApiException) -> errors.ApiError:
    return _from_body(error.status, error.reason, error.body, (error.headers or {}).get("Retry-After", ""))


def _from_body(status: int, reason: str | None, body: str | bytes | None, after: str) -> errors.ApiError:
    """The error that a Kubernetes Status tells of, or whatever else a server answered."""
    try:
        told = json.loads(body or "")
    except ValueError:
        told = {}
    message = told.get("message") or str(reason or "")
    return errors.from_response(status, told.get("reason", ""), message, float(after) if after.isdigit() else None)
