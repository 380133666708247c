"""Sees everything that happens to runs, straight from the API server: what the checker judges and what a life waits for."""

import asyncio
import collections
from collections.abc import Callable
from typing import Any, TypeVar

from patho_api import names
from patho_operator import cluster
from tests.cluster.chaos.admin import Admin
from tests.cluster.chaos.invariants import Checker

Json = dict[str, Any]
T = TypeVar("T")
KINDS = (*names.PLURALS, "Job", "Pod", "Service")
OURS = f"{names.LABEL_MANAGED_BY}={names.MANAGED_BY}"


class Witness:
    """The newest form of every object of ours in the namespaces that it follows, by (kind, namespace, name)."""

    def __init__(self, admin: Admin, checker: Checker) -> None:
        self._admin, self._checker = admin, checker
        self.objects: dict[tuple[str, str, str], Json] = {}
        self.namespaces: set[str] = set()
        self._changed: collections.defaultdict[str, asyncio.Condition] = collections.defaultdict(asyncio.Condition)

    async def run(self) -> None:
        """Watch for ever."""
        async with asyncio.TaskGroup() as group:
            for kind in KINDS:
                group.create_task(self._watch(kind))

    async def _watch(self, kind: str) -> None:
        async for change, body in self._admin.events(cluster.path(kind), "" if kind in names.PLURALS else OURS):
            namespace = body["metadata"]["namespace"]
            if namespace not in self.namespaces:
                continue
            key = kind, namespace, body["metadata"]["name"]
            if change == "DELETED":
                self.objects.pop(key, None)
            else:
                self.objects[key] = body
            self._checker.see(change, body)
            async with self._changed[namespace]:
                self._changed[namespace].notify_all()

    def follow(self, namespace: str) -> None:
        """See what happens in a namespace in which nothing of ours is yet."""
        self.namespaces.add(namespace)

    def get(self, kind: str, namespace: str, name: str) -> Json | None:
        """One object; None if there is none."""
        return self.objects.get((kind, namespace, name))

    def all(self, kind: str, namespace: str, run: str = "") -> list[Json]:
        """Objects of a kind in a namespace; of one run if it is named."""
        found = [body for (of, where, _), body in self.objects.items() if (of, where) == (kind, namespace)]
        return [b for b in found if not run or (b["metadata"].get("labels") or {}).get(names.LABEL_RUN) == run]

    async def until(self, namespace: str, what: str, look: Callable[[], T], seconds: float) -> T:
        """The first true value of `look`, which is asked after every change in the namespace. Raises TimeoutError."""
        changed = self._changed[namespace]
        try:
            async with asyncio.timeout(seconds), changed:
                while not (found := look()):
                    await changed.wait()
                return found
        except TimeoutError:
            raise TimeoutError(f"{namespace}: {what}: not within {seconds:.0f} s; {self._told(namespace)}") from None

    def _told(self, namespace: str) -> str:
        """What can be seen in a namespace, in short."""
        phases = [f"{b['metadata']['name']}={(b.get('status') or {}).get('phase')}" for b in self.all(names.PRETRAIN, namespace)]
        phases += [f"{b['metadata']['name']}={(b.get('status') or {}).get('phase')}" for b in self.all(names.EVAL, namespace)]
        jobs = [b["metadata"]["name"] for b in self.all("Job", namespace)]
        pods = [f"{b['metadata']['name']}={(b.get('status') or {}).get('phase')}" for b in self.all("Pod", namespace)]
        return f"resources {phases}, Jobs {jobs}, pods {pods}"
