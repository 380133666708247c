"""Damaged slides: no crash, no hang, no wrong pixel. `make fuzz` takes 1,000 of them, `make test` the first 96."""

import collections
import json
import os
import subprocess
import sys

import pytest

from tests.trainer.data import fuzz

COUNT = int(os.environ.get("FUZZ_SLIDES", "96"))  # 64 are each kind of damage to each slide once
CHUNK = 50  # slides of a child process
HANG_SECONDS = 240.0  # for a whole chunk, which takes about 15


def judged(folder, first, count):
    """(seed, what, outcome) of each slide; a crash or a hang is an outcome too, and ends only the child."""
    while count > 0:
        size = min(count, CHUNK)
        lines, ended = child(folder, first, size)
        found = [line for line in lines if "outcome" in line]
        yield from ((line["seed"], line["what"], line["outcome"]) for line in found)
        done = len(found)
        if done < size:
            yield first + done, lines[-1]["what"] if lines else "before the first", ended
            done += 1
        first, count = first + done, count - done


def child(folder, first, count):
    """The lines that a child process printed, and how it ended."""
    command = [sys.executable, "-X", "faulthandler", "-W", "error", "-m", "tests.trainer.data.fuzz", str(folder), str(first), str(count)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    with (folder / "lines").open("w+") as out, (folder / "errors").open("w+") as err:
        try:
            code = subprocess.run(command, stdout=out, stderr=err, env=environment, timeout=HANG_SECONDS, check=False).returncode
            ended = f"CRASH {code}"
        except subprocess.TimeoutExpired:
            ended = "HANG"
        for file in (out, err):
            file.seek(0)
        return [json.loads(line) for line in out], f"{ended}: {err.read()[-2000:]}"


def check(folder, first, count):
    for name, write in fuzz.bases().items():
        write(folder / name)
    results = list(judged(folder, first, count))
    bad = [result for result in results if result[2].startswith(("CRASH", "HANG")) or "WRONG" in result[2]]
    assert not bad, bad
    assert [seed for seed, _, _ in results] == list(range(first, first + count))
    return collections.Counter(kind for *_, kinds in results for kind in kinds.split("+"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_damaged_slides_are_rejected_or_read_right(tmp_path):
    found = check(tmp_path, 0, COUNT)
    print(*sorted(found.items()), sep="\n")
    assert {"Truncated", "Unreadable", "undecodable", "as undamaged", "as stored"} <= set(found)


def test_the_damage_is_noticed_by_this_test(tmp_path, monkeypatch):
    """The judge itself: pixels of neither the undamaged nor the damaged file are called wrong."""
    base = fuzz.bases()["deflate.tif"](tmp_path / "deflate.tif")
    read = fuzz.slide.Opened.read_level
    monkeypatch.setattr(fuzz, "_by_tifffile", lambda *_: None)
    monkeypatch.setattr(fuzz, "_by_openslide", lambda *_: None)
    opened = fuzz.slide.open(str(base))
    monkeypatch.setattr(fuzz.slide.Opened, "read_level", lambda self, *at: 255 - read(self, *at) if self is opened else read(self, *at))
    assert fuzz._judge(base, base, opened, 0, 10, 10, 30, 30) == "WRONG"
