"""Storages for kopf that keep nothing: this operator decides by what the cluster shows, and stores no state in annotations.

kopf's own ones would copy and compare every object at every event, for handlers of changes that do not exist here: a fifth of the
operator's CPU time when kopf saw Jobs and pods too.
"""

from typing import Any

import kopf


class NoDiffBase(kopf.DiffBaseStorage):  # type: ignore[misc]  # kopf is untyped here
    """Remembers no earlier version of an object."""

    def build(self, **_: Any) -> Any:
        """Nothing of an object is of interest."""
        return {}

    def fetch(self, **_: Any) -> None:
        """Nothing was stored."""

    def store(self, **_: Any) -> None:
        """Nothing to store."""


class NoProgress(kopf.ProgressStorage):  # type: ignore[misc]
    """Remembers no progress of handlers."""

    def fetch(self, **_: Any) -> None:
        """Nothing was stored."""

    def store(self, **_: Any) -> None:
        """Nothing to store."""

    def purge(self, **_: Any) -> None:
        """Nothing to remove."""

    def touch(self, **_: Any) -> None:
        """Nothing to mark."""

    def clear(self, *, essence: Any) -> Any:
        """Nothing of kopf's is in it."""
        return essence
