"""Jobs and pods as they change: a complete list, then a watch from there; anew when the watch has expired or the server refuses.

They are most of all events, and need nothing of what kopf does for its handlers: there each would cost several times as much CPU.
"""

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Generic

from patho_api import names
from patho_operator import client, cluster, errors, observed
from patho_operator.client import Json
from patho_operator.observed import Job, Key, Pod
from patho_operator.shelf import Child, Shelf

log = logging.getLogger(__name__)

SELECTOR = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY},{names.LABEL_RUN}"
# A server ends a watch after 5-10 min; a connection that died without a word must not outlive that by much.
WATCH_SECONDS, WATCH_CONNECTION_SECONDS = 600, 660
RECONNECT_SECONDS, REFUSED_SECONDS = 0.5, 2.0  # a server that refuses is asked less often


@dataclasses.dataclass
class Watch(Generic[Child]):
    """All children of one kind in one namespace (empty: in all of them)."""

    api: client.Client
    kind: str
    namespace: str
    read: Callable[[Json], Child]
    shelf: Shelf[Child]
    changed: Callable[[Key], None]  # told of each resource one of whose children has changed
    listed: asyncio.Event = dataclasses.field(default_factory=asyncio.Event)  # what exists is known

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                version = await self._list()
                self.listed.set()
                await self._follow(version)
            except errors.ApiError as error:
                log.warning("watch of %ss: %s", self.kind, error)
                await asyncio.sleep(max(REFUSED_SECONDS, error.retry_after_seconds or 0.0))
            else:
                await asyncio.sleep(RECONNECT_SECONDS)

    async def _list(self) -> str:
        """Know everything that exists, and nothing else; the version of the list."""
        uids, version = set[str](), ""
        async for page in cluster.pages(self.api, self.kind, self.namespace, SELECTOR, agent=client.WATCHER):
            for body in page["items"] or []:
                uids.add(body["metadata"]["uid"])
                self._put(body)
            version = page["metadata"]["resourceVersion"]
        self._tell(self.shelf.keep(uids, int(version), self.namespace))
        return version

    async def _follow(self, version: str) -> None:
        """Take events until the server says that what came after `version` is no longer known."""
        fixed = {"watch": "true", "allowWatchBookmarks": "true", "labelSelector": SELECTOR, "timeoutSeconds": str(WATCH_SECONDS)}
        while True:
            query = fixed | {"resourceVersion": version}
            async with contextlib.aclosing(self.api.events(self._path, query, WATCH_CONNECTION_SECONDS)) as events:
                async for event in events:
                    if event["type"] == "ERROR":
                        log.info("watch of %ss: %s", self.kind, event["object"].get("message"))
                        return
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._take(event["type"], event["object"])
            await asyncio.sleep(RECONNECT_SECONDS)

    def _take(self, event: str, body: Json) -> None:
        if event == "DELETED":
            self._tell(self.shelf.drop(body["metadata"]["uid"]))
        elif event != "BOOKMARK":
            self._put(body)

    def _put(self, body: Json) -> None:
        """No object may stop the watch of all others."""
        try:
            child = self.read(body)
        except Exception:
            log.exception("%s %s: a bug in the operator", self.kind, body["metadata"]["name"])
            return
        self._tell(self.shelf.put(observed.run_key(body["metadata"]), child))

    def _tell(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if key.kind in names.PLURALS:  # anybody may put our labels on a pod
                self.changed(key)

    @property
    def _path(self) -> str:
        return cluster.path(self.kind, self.namespace)


def both(
    api: client.Client, namespaces: Sequence[str], jobs: Shelf[Job], pods: Shelf[Pod], changed: Callable[[Key], None]
) -> list[Watch[Job] | Watch[Pod]]:
    """The watches of Jobs and pods in these namespaces; none: in the whole cluster."""
    where = namespaces or ("",)
    return [
        *(Watch(api, "Job", each, observed.job, jobs, changed) for each in where),
        *(Watch(api, "Pod", each, observed.pod, pods, changed) for each in where),
    ]
