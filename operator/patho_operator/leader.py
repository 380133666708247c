"""One leader among several operators: a Lease of our own (kopf has priorities without fencing, the client has no Lease lock).

The leader stops before another can start: it gives up `RENEW_DEADLINE_SECONDS` after its last renewal, others wait
`LEASE_SECONDS` after they saw the last one. Both measure with their own clock; nobody compares clocks.
"""

import asyncio
import dataclasses
import datetime
import logging
from typing import Any, Literal

from patho_operator import client, errors, times

log = logging.getLogger(__name__)

LEASE_SECONDS, RENEW_DEADLINE_SECONDS, RETRY_SECONDS = 15.0, 10.0, 2.0
Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Sighting:
    """The last change of the Lease that was seen, and when, by the loop's clock."""

    version: str = ""
    time: float = 0.0


def decide(lease: Json | None, identity: str, sighting: Sighting, now: float) -> Literal["Create", "Take", "Renew", "Wait"]:
    """What to do about a Lease. `sighting` is of this very version."""
    if lease is None:
        return "Create"
    holder = lease["spec"].get("holderIdentity")
    if holder == identity:
        return "Renew"
    return "Take" if not holder or now - sighting.time >= LEASE_SECONDS else "Wait"


def held(lease: Json, identity: str, wall: datetime.datetime) -> Json:
    """The Lease as held by `identity`."""
    spec = lease.get("spec") or {}
    now = wall.astimezone(times.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    ours = spec.get("holderIdentity") == identity
    changes = {
        "holderIdentity": identity,
        "leaseDurationSeconds": int(LEASE_SECONDS),
        "renewTime": now,
        "acquireTime": spec.get("acquireTime", now) if ours else now,
        "leaseTransitions": spec.get("leaseTransitions", 0) + (not ours),
    }
    return lease | {"spec": spec | changes}


class Elector:
    """Gets the Lease, keeps it, gives it back."""

    def __init__(self, api: client.Client, namespace: str, name: str, identity: str) -> None:
        self._api, self._namespace, self._name, self._identity = api, namespace, name, identity
        self._sighting = Sighting()
        self.renewed: float | None = None  # loop time of the last renewal; None while somebody else leads
        self.reached: float = 0.0  # loop time at which the API server last answered

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        while not await self._try():
            await asyncio.sleep(RETRY_SECONDS)
        log.info("leading as %s", self._identity)

    async def keep(self) -> None:
        """Renew for ever. Raises LeadershipLost."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(RETRY_SECONDS)
            assert self.renewed is not None
            left = RENEW_DEADLINE_SECONDS - (loop.time() - self.renewed)
            try:
                async with asyncio.timeout(max(0.0, left)):
                    ours = await self._try()
            except TimeoutError:
                ours = False
            if not ours and loop.time() - self.renewed >= RENEW_DEADLINE_SECONDS:
                raise errors.LeadershipLost(f"the Lease {self._name} could not be renewed for {RENEW_DEADLINE_SECONDS:.0f} s")

    def fence(self) -> None:
        """Raises ApiError when the last renewal is too old to act on: a process that was paused finds out before it writes."""
        now = asyncio.get_running_loop().time()
        if self.renewed is None or now - self.renewed >= RENEW_DEADLINE_SECONDS:
            raise errors.ApiError(0, "NotLeading", f"the Lease {self._name} was not renewed in time: nothing is written")

    async def release(self) -> None:
        """Let another start at once; only after everything that acts has stopped."""
        lease = await self._read()
        if lease and lease["spec"].get("holderIdentity") == self._identity:
            await self._api.request("PUT", self._path(self._name), body=lease | {"spec": lease["spec"] | {"holderIdentity": ""}})
            self.renewed = None

    async def _try(self) -> bool:
        """One round: whether the Lease is ours after it."""
        loop = asyncio.get_running_loop()
        asked = loop.time()
        try:
            lease = await self._read()
            self.reached = loop.time()
            action = decide(lease, self._identity, self._sighting, loop.time())
            if action == "Wait":
                return False
            await self._write(lease, action)
        except errors.ApiError as error:
            log.warning("the Lease %s: %s", self._name, error)
            return False
        self.renewed = asked
        return True

    async def _read(self) -> Json | None:
        try:
            lease = await self._api.request("GET", self._path(self._name))
        except errors.NotFound:
            return None
        version = lease["metadata"]["resourceVersion"]
        if version != self._sighting.version:
            self._sighting = Sighting(version, asyncio.get_running_loop().time())
        return lease

    async def _write(self, lease: Json | None, action: str) -> None:
        """The resourceVersion in the body is the fence: of two that take it, one gets a conflict."""
        wall = datetime.datetime.now(times.UTC)
        if action == "Create" or lease is None:
            metadata = {"name": self._name, "namespace": self._namespace}
            new = held({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}, self._identity, wall)
            await self._api.request("POST", self._path(), body=new)
        else:
            await self._api.request("PUT", self._path(self._name), body=held(lease, self._identity, wall))

    def _path(self, name: str = "") -> str:
        base = f"/apis/coordination.k8s.io/v1/namespaces/{self._namespace}/leases"
        return f"{base}/{name}" if name else base
