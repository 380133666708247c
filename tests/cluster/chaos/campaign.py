"""Many lives, each with one fault: which cases ran, and what they broke."""

import asyncio
import contextlib
import dataclasses
import itertools
import json
import pathlib
import uuid
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

from patho_api import names
from patho_operator import cluster
from tests.cluster import controlplane, release
from tests.cluster.chaos import admin, invariants, lanes, proxy, watches
from tests.cluster.chaos.life import Life
from tests.cluster.chaos.witness import Witness

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{release.NAMESPACE}/leases/pathoscale-operator"
IMPATIENT = "tests.cluster.chaos.impatient"
WATCHED = ("pathopretrains", "pathoevals", "jobs", "pods")
# complete lists find what watches lost: in seconds here, in minutes in production
ENVIRONMENT = {"PATHO_RELIST_SECONDS": "5", "PATHO_PROGRESS_SECONDS": "5", "PATHO_LOG_LEVEL": "debug"}
# A fault befalls call or event `at` of a life and each so-manieth after it: far enough apart for the run to recover in between,
# so that as many lives as this have it at every call
CALLS_APART, EVENTS_APART = 12, 6


@dataclasses.dataclass(frozen=True)
class Arena:
    """A control plane with fake nodes and the chart's rights."""

    folder: pathlib.Path
    admin_kubeconfig: pathlib.Path
    operator_kubeconfig: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Case:
    """One fault in one life: at calls of the operator's client, or at events of a watched resource."""

    kind: str
    at: int
    resource: str = ""  # of a watch fault

    def __str__(self) -> str:
        return f"{self.kind} from {f'event {self.at} of {self.resource}' if self.resource else f'call {self.at}'} on"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of a case."""

    case: Case
    namespace: str
    befell: int  # calls or events
    wrong: tuple[str, ...]


class World:
    """Everything that lives share."""

    def __init__(self, arena: Arena, api: admin.Admin, between: proxy.Proxy) -> None:
        self.arena, self.admin, self.proxy = arena, api, between
        self.checker = invariants.Checker()
        self.witness = Witness(api, self.checker)

    async def namespace(self) -> str:
        """A new one, in which the operator may also keep a Lease."""
        name = f"life-{uuid.uuid4().hex[:8]}"
        await self.admin.create("/api/v1/namespaces", {"metadata": {"name": name, "labels": RESTRICTED}})
        rights = "/apis/rbac.authorization.k8s.io/v1/namespaces/" + name
        rules = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]}]
        await self.admin.create(f"{rights}/roles", {"metadata": {"name": "leader"}, "rules": rules})
        account = {"kind": "ServiceAccount", "name": release.NAME, "namespace": release.NAMESPACE}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "leader"}
        await self.admin.create(f"{rights}/rolebindings", {"metadata": {"name": "leader"}, "roleRef": role, "subjects": [account]})
        return name

    def lane(
        self, name: str, *, watch: str = "", credentials: pathlib.Path | None = None, module: str = IMPATIENT, **environment: str
    ) -> lanes.Lane:
        """An operator behind the proxy; with `watch` it sees this namespace alone and keeps its Lease there."""
        kubeconfig = self.arena.folder / f"{name}-behind-proxy.kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(json.dumps(self._behind_proxy(credentials or self.arena.operator_kubeconfig)))
        known = {
            "POD_NAMESPACE": watch or release.NAMESPACE,
            "POD_NAME": name,
            "PATHO_PORT": str(controlplane.free_port()),
            "PATHO_WATCH_NAMESPACES": watch,
        }
        return lanes.Lane(self.arena.folder, name, kubeconfig, module, ENVIRONMENT | known | environment)

    async def clear(self) -> None:
        """Delete the resources that are left: the next world's operator would lead them."""
        for kind, namespace in itertools.product(names.PLURALS, self.witness.namespaces):
            await self.admin.delete(cluster.path(kind, namespace))

    async def live(self, namespace: str) -> list[str]:
        """One life."""
        return await Life(self.admin, self.witness, self.checker, namespace).live()

    def _behind_proxy(self, credentials: pathlib.Path) -> Any:
        config = json.loads(credentials.read_text())
        for each in config["clusters"]:
            each["cluster"] = {"server": self.proxy.url}
        return config


@contextlib.asynccontextmanager
async def world(arena: Arena) -> AsyncIterator[World]:
    """A proxy and a witness."""
    async with await admin.connect(arena.admin_kubeconfig) as api, proxy.Proxy(api.host, api.tls) as between:
        made = World(arena, api, between)
        await api.delete(LEASE)  # of an earlier world's operator, which was killed: nobody has to wait until it is over
        async with asyncio.TaskGroup() as group:  # a witness that fails ends everything
            watching = group.create_task(made.witness.run())
            yield made
            watching.cancel()
        await made.clear()


async def side_by_side(made: World, cases: Iterable[Case], at_once: int) -> list[Outcome]:
    """Lives led by one operator at the same time, each with its own fault."""
    gate = asyncio.Semaphore(at_once)

    async def one(case: Case) -> Outcome:
        async with gate:
            namespace = await made.namespace()
            _arm(made, case, namespace, None)
            wrong = await made.live(namespace)
            return _outcome(made, case, namespace, wrong)

    return list(await asyncio.gather(*map(one, cases)))


async def each_with_an_operator(made: World, cases: Iterable[Case], at_once: int) -> list[Outcome]:
    """Lives whose own operator is killed: the others' go on."""
    gate = asyncio.Semaphore(at_once)

    async def one(case: Case) -> Outcome:
        async with gate:
            namespace = await made.namespace()
            async with made.lane(namespace, watch=namespace) as lane:
                _arm(made, case, namespace, lane)
                wrong = await made.live(namespace)
            wrong += [f"{namespace}: the operator ended by itself: {lane.crashes}"] if lane.crashes else []
            return _outcome(made, case, namespace, wrong)

    return list(await asyncio.gather(*map(one, cases)))


def _arm(made: World, case: Case, namespace: str, lane: lanes.Lane | None) -> None:
    if case.resource:
        kind: Any = case.kind
        made.proxy.watches.faults[namespace] = watches.Fault(kind, case.resource, case.at, EVENTS_APART)
    elif case.kind:
        made.proxy.faults[namespace] = proxy.Fault(case.kind, case.at, CALLS_APART, lane.kill if lane else lambda: None)


def _outcome(made: World, case: Case, namespace: str, wrong: Sequence[str]) -> Outcome:
    call, event = made.proxy.faults.get(namespace), made.proxy.watches.faults.get(namespace)
    befell = len(call.hits) if call else event.hits if event else 0
    seen = [v for v in made.checker.violations if v.startswith(f"{namespace}/")]
    refused = [m for m in made.proxy.malformed if f"/{namespace}/" in m]
    return Outcome(case, namespace, befell, (*wrong, *seen, *refused))


def calls(kinds: Iterable[str]) -> list[Case]:
    """Each of these faults at each call of a life."""
    return [Case(kind, at) for kind in kinds for at in range(1, CALLS_APART + 1)]


def events(kinds: Iterable[str]) -> list[Case]:
    """Each of these faults of watches at each event of each watched resource."""
    return [Case(kind, at, resource) for kind in kinds for resource in WATCHED for at in range(1, EVENTS_APART + 1)]


def told(outcomes: Sequence[Outcome]) -> str:
    """Counts by kind of fault, and each violation."""
    lines = []
    for kind in dict.fromkeys(o.case.kind for o in outcomes):
        ran = [o for o in outcomes if o.case.kind == kind]
        what = "events" if any(o.case.resource for o in ran) else "calls"
        lines.append(
            f"{kind:24}{sum(o.befell for o in ran):5} {what} in {len(ran)} lives, {sum(bool(o.wrong) for o in ran)} lives violated"
        )
    lines += [f"{o.case} in {o.namespace}: {sentence}" for o in outcomes for sentence in o.wrong]
    return "\n".join(lines)
