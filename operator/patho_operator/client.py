"""Raw JSON to and from the API server, over the official asynchronous client: its connection, its credentials, none of its models."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
from kubernetes.aio import client, config
from kubernetes.aio.client import exceptions

from patho_operator import clock, errors

TIMEOUT_SECONDS = 30.0
CONNECTIONS = 64
BUFFER_BYTES = 2**21  # a list of a gang's pods is read in few pieces; as in the client's own session
IN_CLUSTER = "KUBERNETES_SERVICE_HOST"
Json = dict[str, Any]
Count = Callable[[str, int], None]  # (verb, HTTP status; 0: no answer)


class Client:
    """One connection pool to one API server."""

    def __init__(self, configuration: client.Configuration, count: Count) -> None:
        configuration.connection_pool_maxsize = CONNECTIONS
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
    ) -> Json:
        """The decoded answer. Raises ApiError or one of its kinds."""
        headers = {"Content-Type": content_type, "Accept": accept, "User-Agent": "patho-operator"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"])
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
        found: Json = json.loads(answer.data)
        return found

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


def _without_netrc(pool: aiohttp.ClientSession) -> aiohttp.ClientSession:
    """The same connections. The client's own session trusts the environment, and so looks for ~/.netrc in a thread at each request."""
    session = aiohttp.ClientSession(connector=pool.connector, trust_env=False, read_bufsize=BUFFER_BYTES)
    pool.detach()
    return session


def _translated(error: exceptions.ApiException) -> errors.ApiError:
    try:
        status = json.loads(error.body)
    except (TypeError, ValueError):
        status = {}
    after = (error.headers or {}).get("Retry-After", "")
    message = status.get("message") or str(error.reason or "")
    return errors.from_response(error.status, status.get("reason", ""), message, float(after) if after.isdigit() else None)
