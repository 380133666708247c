"""Prometheus and promtool: those on the path, or those that tests/prepare.sh unpacked into the cache of the tests' tools."""

import os
import pathlib
import shutil

import pytest

PROGRAMS = ("prometheus", "promtool")


def folder() -> pathlib.Path:
    """Where they are unpacked to."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(cache).expanduser() / "pathoscale" / "tools" / "prometheus"


def path(name: str) -> str:
    """The program; skips the test, with the way out, where there is none."""
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), str(folder())]))
    if not found:
        pytest.skip(f"NOT RUN: {name} is not installed: tests/prepare.sh unpacks it on Debian and Ubuntu")
    return found


if __name__ == "__main__":  # for tests/prepare.sh: where to unpack them; nothing if they are there
    known = os.pathsep.join([os.environ.get("PATH", ""), str(folder())])
    print("" if all(shutil.which(name, path=known) for name in PROGRAMS) else folder())
