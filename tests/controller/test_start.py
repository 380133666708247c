"""The operator's start against a server whose lists of some kinds are slow: nothing is done before all that exists is known."""

import asyncio
import contextlib
import json
import os
import sys

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from patho_api import names
from patho_operator import evaluations
from patho_operator.cluster import path
from tests.controller.builders import COMPLETE, UID, after, make_eval, make_job, make_pod, make_pretrain, plan_for, started

LEASE = "/apis/coordination.k8s.io/v1/namespaces/default/leases/pathoscale-operator"
SOON_SECONDS = 1.5  # without waiting, the first turns come 0.5 s after the lists of Jobs and pods


PROBE = {"name": "probe", "everySteps": 200, "template": {"tasks": [{"name": "MHIST", "data": "gs://data/mhist"}]}}


def ended():
    """A run whose time to live has passed, and whose specification was edited since."""
    body = make_pretrain(evaluations=[PROBE], ttlSecondsAfterFinished=0)
    body["spec"]["checkpoints"] |= {"everySteps": 100, "keep": 3}
    body = started(body)
    body = after(body, plan_for(body, [make_job(body, conditions=[COMPLETE])], [make_pod(body, exit_code=0)]))
    return body | {"metadata": body["metadata"] | {"generation": 2}}


def unfinished():
    """The PathoEval of its last checkpoint."""
    body = make_eval(model={"pretrain": {"name": "vits16", "checkpoint": "200"}})
    return body | {"metadata": body["metadata"] | {"uid": "unfinished", "name": evaluations.name_of(UID, "probe", 200)}}


def job():
    """The run's Job: a change of it, or that it exists, is news of the run."""
    body = make_job(ended(), conditions=[COMPLETE])
    return body | {"kind": "Job", "metadata": body["metadata"] | {"namespace": "lab", "resourceVersion": "7"}}


class Server:
    """Discovery, lists and watches of a few objects; the list of PathoEvals waits for `open`."""

    def __init__(self, *bodies):
        self.bodies, self.requests, self.open, self.over = bodies, [], asyncio.Event(), asyncio.Event()

    async def handle(self, request):
        self.requests.append((request.method, request.path))
        if "watch" in request.query:
            await self.over.wait()
        if request.path.startswith(f"/apis/{names.API_VERSION}/") and request.path.endswith(names.PLURALS[names.EVAL]):
            await self.open.wait()
        return web.json_response(fixed(request.path) or self.found(request.path))

    def found(self, where):
        """A list, or the object of that name."""
        one = [body for body in self.bodies if where.removesuffix("/status") == path(body["kind"], "lab", body["metadata"]["name"])]
        kinds = [body for body in self.bodies if where in (path(body["kind"]), path(body["kind"], "lab"))]
        return one[0] if one else {"metadata": {"resourceVersion": "9"}, "items": kinds}


def fixed(where):
    """The Lease, and what kopf asks before it lists."""
    verbs = {"namespaced": True, "verbs": ["get", "list", "watch", "patch"]}
    kinds = [{"name": p, "singularName": k.lower(), "kind": k} | verbs for k, p in names.PLURALS.items()]
    core = [{"name": n, "singularName": k.lower(), "kind": k} | verbs for n, k in (("namespaces", "Namespace"), ("events", "Event"))]
    versions = [{"groupVersion": names.API_VERSION, "version": names.VERSION}]
    return {
        LEASE: {"metadata": {"resourceVersion": "1"}, "spec": {"holderIdentity": "me"}},
        "/api": {"versions": ["v1"]},
        "/api/v1": {"resources": core},
        "/apis": {"groups": [{"name": names.GROUP, "versions": versions, "preferredVersion": versions[0]}]},
        f"/apis/{names.API_VERSION}": {"resources": kinds},
    }.get(where)


def kubeconfig(url):
    cluster, user = {"name": "c", "cluster": {"server": url}}, {"name": "u", "user": {"token": "t"}}
    context = {"name": "x", "context": {"cluster": "c", "user": "u"}}
    return json.dumps({"current-context": "x", "clusters": [cluster], "users": [user], "contexts": [context]})


@contextlib.asynccontextmanager
async def leading(server, folder, namespaces):
    """An operator in a process of its own; leaves it killed."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.handle)
    async with TestServer(app) as running:
        (folder / "config").write_text(kubeconfig(str(running.make_url("")).rstrip("/")))
        own = {"KUBECONFIG": str(folder / "config"), "POD_NAME": "me", "PATHO_PORT": "0", "PATHO_WATCH_NAMESPACES": namespaces}
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "patho_operator", env=os.environ | own)
        try:
            async with asyncio.timeout(60):
                yield
        finally:
            process.kill()
            await process.wait()
            server.over.set()


async def seen(server, verb, where):
    """Wait until that was asked for."""
    while (verb, where) not in server.requests:
        await asyncio.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("namespaces", ["", "lab,empty"])
async def test_an_ended_run_outlives_a_start_whose_list_of_evaluations_is_slow(tmp_path, namespaces):
    server, one = Server(ended(), unfinished(), job()), namespaces.partition(",")[0]
    async with leading(server, tmp_path, namespaces):
        await seen(server, "GET", path(names.PRETRAIN, one))
        await asyncio.sleep(SOON_SECONDS)
        early = [each for each in server.requests if each[0] != "GET" and each[1] != LEASE]
        server.open.set()
        await seen(server, "PATCH", path(names.PRETRAIN, "lab", "vits16", "status"))
    assert not early
    assert ("DELETE", path(names.PRETRAIN, "lab", "vits16")) not in server.requests
