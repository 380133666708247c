"""Every few minutes, and after a watch has expired, one complete list of each kind: finds what watches missed, and what they remember
although it is gone.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Sequence

from patho_api import names
from patho_operator import errors, observed, policies, watch
from patho_operator.cluster import Cluster, Json
from patho_operator.handlers import Indexes
from patho_operator.observed import Key
from patho_operator.policies import Peers
from patho_operator.queue import Queue

log = logging.getLogger(__name__)

ARRIVAL_SECONDS = 2.0  # for the rest of the list that kopf makes when a watch has expired
RETRY_SECONDS = 15.0  # after a list that failed: an API server that comes back has enough to do
KINDS = (*names.PLURALS, "Job", "Pod")


@dataclasses.dataclass
class Relist:
    """Compares the indexes with complete lists."""

    cluster: Cluster
    indexes: Indexes
    queue: Queue
    suspect: set[Key]
    namespaces: Sequence[str]
    listed: Callable[[], None]  # called after each complete round
    metrics_from: Peers | None = None  # as in settings.Settings

    async def run(self, every_seconds: float) -> None:
        """For ever; a round that fails is tried again soon."""
        if self.metrics_from is not None:
            await policies.refresh(self.cluster, self.namespaces, self.metrics_from)  # settings may have changed
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_seconds):
                    await self.indexes.relisted.wait()
                    await asyncio.sleep(ARRIVAL_SECONDS)
            self.indexes.relisted.clear()
            try:
                await self.once()
            except errors.ApiError as error:
                log.warning("complete list: %s", error)
                await asyncio.sleep(max(RETRY_SECONDS, error.retry_after_seconds or 0.0))
                self.indexes.relisted.set()

    async def once(self) -> None:
        """One round."""
        ghosts: set[str] = set()
        newer: dict[Key, dict[str, int]] = {}
        for kind in KINDS:
            known = self.indexes.versions(kind)  # first: what appears meanwhile is not missed, only looked at once more
            found = await self._list(kind)
            ghosts |= known.keys() - found.keys()
            for uid, metadata in found.items():
                key, version = _key(kind, metadata), int(metadata.get("resourceVersion", 1))
                if key.kind in names.PLURALS and known.get(uid, 0) < version:
                    newer.setdefault(key, {})[uid] = version
        self.indexes.ghosts, self.indexes.newer = ghosts, newer
        for key in newer:
            self._missed(key)
        for key in self.indexes.known():
            self.queue.add(key)
        self.listed()
        if self.metrics_from is not None:
            await policies.refresh(self.cluster, self.namespaces, self.metrics_from)

    async def _list(self, kind: str) -> dict[str, Json]:
        selector = "" if kind in names.PLURALS else watch.SELECTOR
        found: dict[str, Json] = {}
        for namespace in self.namespaces or ("",):
            found |= await self.cluster.uids(kind, namespace, selector)
        return found

    def _missed(self, key: Key) -> None:
        self.suspect.add(key)
        self.queue.add(key)


def _key(kind: str, metadata: Json) -> Key:
    """The resource that an object belongs to, or is."""
    if kind in names.PLURALS:
        return Key(kind, metadata["namespace"], metadata["name"])
    return observed.run_key(metadata)
