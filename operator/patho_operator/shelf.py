"""What is known of children: small values by the resource they belong to. Filled by `watch`, read by `handlers.Indexes`."""

from collections.abc import Collection, Iterator, Mapping
from typing import Generic, TypeVar

from patho_operator.observed import Job, Key, Pod

Child = TypeVar("Child", Job, Pod)


class Shelf(Mapping[Key, Collection[Child]], Generic[Child]):
    """Children by the key of their resource. Each is there once, as it was last seen."""

    def __init__(self) -> None:
        self._children: dict[Key, dict[str, Child]] = {}  # by uid
        self._keys: dict[str, Key] = {}  # by uid: a label can be edited

    def __getitem__(self, key: Key) -> Collection[Child]:
        return self._children[key].values()

    def __iter__(self) -> Iterator[Key]:
        return iter(self._children)

    def __len__(self) -> int:
        return len(self._children)

    def put(self, key: Key, child: Child) -> list[Key]:
        """Take a child as it is now; the resources for which that is news. Neither an older version is, nor one that decides nothing."""
        before = self._keys.get(child.uid)
        known = self._children[before][child.uid] if before else None
        if known and known.version > child.version:
            return []
        moved: list[Key] = [self._remove(child.uid)] if before and before != key else []
        self._keys[child.uid] = key
        self._children.setdefault(key, {})[child.uid] = child
        return [] if known == child and not moved else [key, *moved]

    def drop(self, uid: str) -> list[Key]:
        """Forget a child; the resources for which that is news."""
        return [self._remove(uid)] if uid in self._keys else []

    def keep(self, uids: Collection[str], version: int, namespace: str) -> list[Key]:
        """Forget all that a complete list of that namespace (empty: of all) and version does not show, but not what is newer."""
        known = [child for key, children in self._children.items() if namespace in ("", key.namespace) for child in children.values()]
        return [self._remove(child.uid) for child in known if child.uid not in uids and child.version <= version]

    def _remove(self, uid: str) -> Key:
        key = self._keys.pop(uid)
        children = self._children[key]
        del children[uid]
        if not children:
            del self._children[key]
        return key
