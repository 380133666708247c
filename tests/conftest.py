"""How tests share the processors: by file, on as many workers as there are cores, a control plane for each worker that needs one.

Fixtures of a file are made once; everything on the cluster of fake nodes runs on one worker, everything on the real node on another.
"""

import pytest

SHARED = ("node", "cluster")  # markers of tests that share what is costly to start; these begin first, since they take longest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the group that each test stays with, and put the long groups first."""
    slow = {_group(item) for item in items if item.get_closest_marker("slow")}
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    items.sort(key=lambda item: (*(_group(item) != group for group in SHARED), _group(item) not in slow))


def _group(item: pytest.Item) -> str:
    """The costly thing that a test shares, else its file."""
    return next((mark for mark in SHARED if item.get_closest_marker(mark)), item.path.name)
