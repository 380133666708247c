"""A control plane that counts: every write by whom, CPU seconds of each process; and a client that is quick enough not to matter."""

import asyncio
import contextlib
import dataclasses
import json
import os
import pathlib
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from typing import Any, Literal

import aiohttp

from patho_operator.cluster import NO_BODY
from tests.bench import rival
from tests.cluster import controlplane, kwok, node, release
from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import Processes

Manifest = dict[str, Any]
Party = Literal["ours", "floor", "rival"]
NAMESPACE = "bench"
PLANE = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
AT_ONCE = 32  # requests of the client
QUIET_SECONDS = 12.0  # without a write: everything has settled, late statuses too
AFTERMATH_SECONDS = 1.0  # what a write costs those who watch
PODS_A_NODE = 100
# Endpoints refuse addresses of the loopback, which the other tests give to fake pods so that nothing leaves the machine: here nobody
# is asked anything
PODS_CIDR = "10.99.0.1/16"
NO_QUESTIONS = {"PATHO_PROGRESS_SECONDS": "86400"}
TICKS = os.sysconf("SC_CLK_TCK")
AUDIT = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived", "ResponseStarted"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "Metadata"},
    ],
}
PATHS = {
    "Job": "/apis/batch/v1/namespaces/bench/jobs",
    "Service": "/api/v1/namespaces/bench/services",
    "ConfigMap": "/api/v1/namespaces/bench/configmaps",
    "PathoPretrain": "/apis/pathoscale.dev/v1alpha1/namespaces/bench/pathopretrains",
    "TrainJob": "/apis/trainer.kubeflow.org/v1alpha1/namespaces/bench/trainjobs",
}
PODS = "/api/v1/namespaces/bench/pods"


@dataclasses.dataclass(frozen=True)
class Settled:
    """When nothing was written any more."""

    audited: int  # bytes of the audit log
    written: float  # when the last write was seen, by the monotonic clock
    cpu: dict[str, float]  # CPU seconds soon after it: what an idle control plane uses while one waits for a late word is nobody's


@dataclasses.dataclass
class Bench:
    """The control plane, the operator, and their accounts."""

    plane: ControlPlane
    operator: release.Operator
    audit: pathlib.Path
    trainer: rival.Rival | None = None  # with JobSet

    def only(self, who: Party) -> None:
        """Start anew what makes pods of its objects, and nobody else: an operator that has nothing to do still reads what others write."""
        self.plane.processes.stop("operator")
        if self.trainer:
            self.trainer.stop()
        if who == "ours":
            self.operator.start()
        elif who == "rival":
            assert self.trainer
            self.trainer.start()

    def cpu_seconds(self) -> dict[str, float]:
        """User and system time of each process so far: of the control plane and of the operators that run."""
        pids = {name: self.plane.processes.pid(name) for name in (*PLANE, "operator", *rival.PROCESSES)}
        return {name: _cpu(pid) for name, pid in pids.items() if pid}

    def rss_mib(self, name: str) -> float:
        """Resident memory of a process now."""
        status = pathlib.Path(f"/proc/{self.plane.processes.pid(name)}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def writes(self, offset: int) -> Counter[tuple[str, str, str]]:
        """Writes in the bench's namespace since `offset` of the audit log: (user, verb, resource)."""
        found: Counter[tuple[str, str, str]] = Counter()
        with self.audit.open() as file:
            file.seek(offset)
            for entry in map(json.loads, file):
                about = entry.get("objectRef") or {}
                if about.get("namespace") == NAMESPACE:
                    resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
                    found[entry["user"]["username"].rpartition(":")[2], entry["verb"], resource] += 1
        return found

    async def settle(self) -> Settled:
        """Wait until nothing has been written for a while."""
        size, written, cpu = self.audit.stat().st_size, time.monotonic(), self.cpu_seconds()
        while (quiet := time.monotonic() - written) < QUIET_SECONDS:
            await asyncio.sleep(0.2)
            if (now := self.audit.stat().st_size) != size:
                size, written = now, time.monotonic()
            if quiet < AFTERMATH_SECONDS:
                cpu = self.cpu_seconds()
        return Settled(size, written, cpu)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator["Client"]:
        """A client with the rights of an administrator."""
        pki = self.plane.authority.folder
        context = ssl.create_default_context(cafile=str(self.plane.authority.file))
        context.load_cert_chain(pki / "admin.crt", pki / "admin.key")
        connector = aiohttp.TCPConnector(ssl=context, limit=2 * AT_ONCE)
        async with aiohttp.ClientSession(f"https://127.0.0.1:{self.plane.port}", connector=connector, timeout=NEVER) as session:
            yield Client(session)


NEVER = aiohttp.ClientTimeout(total=None)


@dataclasses.dataclass
class Client:
    """Raw requests."""

    session: aiohttp.ClientSession

    async def call(self, verb: str, path: str, body: Any = None, content_type: str = "application/json") -> Manifest:
        """One request that must succeed."""
        async with self.session.request(verb, path, data=json.dumps(body), headers={"Content-Type": content_type}) as answer:
            found: Manifest = await answer.json()
            assert answer.status < 300, f"{verb} {path}: {found.get('message')}"
            return found

    async def create(self, manifests: Iterable[Manifest]) -> None:
        """Make objects, many at a time."""
        gate = asyncio.Semaphore(AT_ONCE)

        async def one(manifest: Manifest) -> None:
            async with gate:
                await self.call("POST", PATHS[manifest["kind"]], manifest)

        await asyncio.gather(*map(one, manifests))

    async def running(self, number: int, without: Iterable[str] = ()) -> set[str]:
        """Uids of the pods once `number` of them run, not counting those in `without`; by watches, which an API server may end early. They
        show metadata of running pods alone: whoever measures should cost little."""
        found: set[str] = set()
        version = "0"
        while True:
            query = {"watch": "1", "fieldSelector": "status.phase=Running", "resourceVersion": version}
            async with self.session.get(PODS, params=query, headers={"Accept": NO_BODY}) as answer:
                async for event in _events(answer):
                    assert event["type"] != "ERROR", event
                    version = event["object"]["metadata"]["resourceVersion"]
                    _follow(found, event)
                    if len(found.difference(without)) >= number:
                        if answer.connection and answer.connection.transport:
                            answer.connection.transport.abort()  # a polite end would wait half a minute for the server's
                        return found

    async def clean(self, *, rivals: bool) -> None:
        """Delete everything in the namespace and wait until it is gone."""
        options = {"propagationPolicy": "Background"}
        for kind in (*(["TrainJob"] if rivals else []), "PathoPretrain", "Job", "Service", "ConfigMap"):
            await self.call("DELETE", PATHS[kind], options)
        for path in (PATHS["PathoPretrain"], PATHS["Job"], PODS):
            while (await self.call("GET", f"{path}?limit=1"))["items"]:
                await asyncio.sleep(0.5)


def start(folder: pathlib.Path, nodes: int, *, rival_pod: Manifest | None = None) -> Bench:
    """Everything up, `nodes` fake nodes for 100 pods each. A busy machine must not lose them: leases and grace are long.

    `rival_pod`: Trainer and JobSet as well, with a runtime that has pods of this specification.
    """
    processes = Processes(folder)
    policy, audit = folder / "audit-policy.json", folder / "audit.log"
    policy.write_text(json.dumps(AUDIT))
    audit.touch()
    flags = {
        "kube-apiserver": [f"--audit-policy-file={policy}", f"--audit-log-path={audit}", "--audit-log-maxsize=10000"],  # MB: in one file
        "kube-controller-manager": ["--node-monitor-grace-period=300s"],
    }
    plane = controlplane.start(processes, flags=flags)
    kwok.start(processes, plane.cluster.kubeconfig, lease_seconds=120, cidr=PODS_CIDR)
    kwok.add_nodes(plane.cluster, nodes, pods=PODS_A_NODE)
    release.install(plane.cluster, {"nodeSelector": node.SELECTOR})
    plane.cluster.kubectl("create", "namespace", NAMESPACE)
    operator = release.Operator(processes, plane.cluster, settings=NO_QUESTIONS)
    operator.start()
    return Bench(plane, operator, audit, rival.install(plane, rival_pod) if rival_pod else None)


async def _events(answer: aiohttp.ClientResponse) -> AsyncIterator[Manifest]:
    buffer = b""
    async for piece in answer.content.iter_any():
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            yield json.loads(line)


def _cpu(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _follow(running: set[str], event: Manifest) -> None:
    """Keep the set of running pods up to date, by a watch of these alone."""
    metadata = event["object"]["metadata"]
    uid = metadata.get("uid", "")
    alive = event["type"] != "DELETED" and "deletionTimestamp" not in metadata
    (running.add if alive else running.discard)(uid)
