"""How tests share the processors: by file, a worker a core; what shares a control plane or the real node stays together.

pytest-xdist's own `loadgroup` does nothing with pytest 9.2 (it writes the group into an attribute that is no longer read).
"""

import functools
import pathlib

import pytest
from xdist.scheduler import LoadScopeScheduling

SHARED = ("node", "cluster")  # markers of files whose tests share what is costly to start; these begin first, since they take longest


class ByFile(LoadScopeScheduling):
    """Gives a worker all tests of a group at once."""

    def _split_scope(self, nodeid: str) -> str:
        return _group(nodeid.split("::")[0])


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByFile:
    """Tests of a group run on one worker, in order."""
    return ByFile(config, log)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what takes long first. The order within a group stays: some files are about a cluster on which no operator acts yet."""
    slow = {item.location[0] for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (_rank(item.location[0]), not _mark(item.location[0]) and item.location[0] not in slow))


@functools.cache
def _mark(file: str) -> str:
    text = (pathlib.Path(__file__).parents[1] / file).read_text()
    return next((mark for mark in SHARED if f"pytest.mark.{mark}" in text), "")


def _group(file: str) -> str:
    """The costly thing that a file's tests share, a folder has one of each; else the file."""
    return f"{pathlib.Path(file).parent} {_mark(file)}" if _mark(file) else file


def _rank(file: str) -> int:
    return SHARED.index(_mark(file)) if _mark(file) else len(SHARED)
