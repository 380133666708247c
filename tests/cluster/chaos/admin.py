"""The API server as its administrator, asynchronously: many runs are driven and watched at the same time."""

import asyncio
import json
import pathlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
from kubernetes.aio import client, config

from patho_api import names

Json = dict[str, Any]
MERGE_PATCH = "application/merge-patch+json"
SECURITY = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True}
RESTRICTED_POD = {
    "containers": [{"name": names.CONTAINER, "image": "none", "securityContext": SECURITY}],
    "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
    "restartPolicy": "Never",
}


class Failed(RuntimeError):
    """The API server refused; the message is what it said."""


class Admin:
    """One connection pool; raw JSON."""

    def __init__(self, configuration: client.Configuration) -> None:
        self._api = client.ApiClient(configuration)
        self.host = configuration.host
        self.tls = ssl.create_default_context(cafile=configuration.ssl_ca_cert)  # without the administrator's certificate

    async def __aenter__(self) -> "Admin":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.close()

    async def request(self, verb: str, path: str, body: Any = None, content_type: str = "application/json") -> Json:
        """The decoded answer. Raises Failed."""
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"])
        data = None if body is None else json.dumps(body)
        async with self._session.request(verb, self.host + path, data=data, headers=headers) as answer:
            found: Json = await answer.json()
        if answer.status >= 400:
            raise Failed(f"{verb} {path}: {answer.status} {found.get('message')}")
        return found

    async def create(self, path: str, body: Json) -> Json:
        """POST."""
        return await self.request("POST", path, body)

    async def patch(self, path: str, body: Json) -> Json:
        """A merge patch."""
        return await self.request("PATCH", path, body, MERGE_PATCH)

    async def delete(self, path: str, propagation: str = "Background") -> None:
        """DELETE; what is gone already is no failure."""
        try:
            await self.request("DELETE", path, {"propagationPolicy": propagation})
        except Failed as error:
            if " 404 " not in str(error):
                raise

    async def create_quota(self, namespace: str, name: str, hard: Json) -> str:
        """A ResourceQuota that is enforced; its path."""
        path = f"/api/v1/namespaces/{namespace}/resourcequotas"
        await self.create(path, {"metadata": {"name": name}, "spec": {"hard": hard}})
        async with asyncio.timeout(120):
            while not (await self.request("GET", f"{path}/{name}")).get("status", {}).get("hard"):
                await asyncio.sleep(0.2)
        return f"{path}/{name}"

    async def create_denial(self, namespace: str, group: str, resource: str, words: str) -> str:
        """A policy by which the API server makes no such objects in a namespace; the path of what binds it there."""
        base, name = "/apis/admissionregistration.k8s.io/v1", f"{namespace}-{resource}"
        rule = {"apiGroups": [group], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": [resource]}
        spec = {"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false", "message": words}]}
        await self.create(f"{base}/validatingadmissionpolicies", {"metadata": {"name": name}, "spec": spec})
        there = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
        binding = {"policyName": name, "validationActions": ["Deny"], "matchResources": there}
        await self.create(f"{base}/validatingadmissionpolicybindings", {"metadata": {"name": name}, "spec": binding})
        await self._until_denied(namespace, group, resource, words)
        return f"{base}/validatingadmissionpolicybindings/{name}"

    async def _until_denied(self, namespace: str, group: str, resource: str, words: str) -> None:
        """Policies take effect a little after they are made."""
        path = f"/{f'apis/{group}' if group else 'api'}/v1/namespaces/{namespace}/{resource}?dryRun=All"
        spec = RESTRICTED_POD if resource == "pods" else {"template": {"spec": RESTRICTED_POD}}
        async with asyncio.timeout(120):
            while True:
                try:
                    await self.create(path, {"metadata": {"name": "probe"}, "spec": spec})
                except Failed as error:
                    if words in str(error):
                        return
                await asyncio.sleep(0.2)

    async def events(self, path: str, selector: str = "") -> AsyncIterator[tuple[str, Json]]:
        """(ADDED, MODIFIED or DELETED, object) of everything from now on, for ever."""
        headers: dict[str, str] = {"Accept": "application/json"}
        await self._api.update_params_for_auth(headers, [], ["BearerToken"])
        query = f"?watch=true&timeoutSeconds=3600&labelSelector={selector}"
        timeout = aiohttp.ClientTimeout()
        async with self._session.get(self.host + path + query, headers=headers, timeout=timeout) as answer:
            answer.raise_for_status()
            async for line in answer.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    raise Failed(f"watch of {path}: {event['object']}")
                yield event["type"], event["object"]

    @property
    def _session(self) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = self._api.rest_client.pool_manager
        return session


async def read(kubeconfig: pathlib.Path) -> client.Configuration:
    """Server and credentials of a kubeconfig."""
    configuration = client.Configuration()
    await config.load_kube_config(config_file=str(kubeconfig), client_configuration=configuration)
    return configuration


async def connect(kubeconfig: pathlib.Path) -> Admin:
    """An administrator by a kubeconfig."""
    return Admin(await read(kubeconfig))
