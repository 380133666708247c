"""Builds of one index that are killed, or that several runs do at the same time."""

import concurrent.futures
import io
import os
import pathlib
import signal
import subprocess
import sys
import threading

import pyarrow.parquet
import pytest

from tests.trainer.data.test_index import build, looks, write_slides  # noqa: F401  # a fixture

KILLED_AFTER = 4
CHILD = f"""
import os, signal, sys
from patho_trainer.data import index
from tests.trainer.data.test_index import build

index.FLUSH_SLIDES, index.WORKERS = 2, 1
build(sys.argv[1], sys.argv[2], progress=lambda done, total: done == {KILLED_AFTER} and os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_build_killed_by_the_kernel_goes_on_where_it_was(tmp_path, looks):  # noqa: F811
    write_slides(tmp_path / "s", 7)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.run([sys.executable, "-c", CHILD, f"{tmp_path}/s/", f"{tmp_path}/i"], env=environment, check=False)
    assert child.returncode == -signal.SIGKILL
    assert not (tmp_path / "i" / "catalog.parquet").exists()
    built = build(f"{tmp_path}/s/", tmp_path / "i")
    assert len(built) == 7
    assert sum(looks.values()) == 7 - KILLED_AFTER
    assert built.version == build(f"{tmp_path}/s/", tmp_path / "other").version


@pytest.mark.parametrize("builders", [("run-a", "run-b"), ("run-a", "run-a")], ids=["two runs", "a run and its own next attempt"])
def test_several_builders_of_one_index_end_with_one_catalog(tmp_path, builders):
    write_slides(tmp_path / "s", 6)
    barriers = [threading.Barrier(2) for _ in builders]

    def rank(number, of):
        return build(f"{tmp_path}/s/", tmp_path / "i", rank=number, world_size=2, builder=builders[of], barrier=barriers[of].wait)

    together = [(number, of) for of in range(2) for number in range(2)] if builders[0] != builders[1] else [(0, 0), (1, 0)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        built = list(pool.map(rank, *zip(*together, strict=True)))
    if builders[0] == builders[1]:
        built.append(build(f"{tmp_path}/s/", tmp_path / "i", builder=builders[1]))
    assert len({found.version for found in built}) == 1
    assert [len(found) for found in built] == [6] * len(built)
    for found in built:
        assert all(record.mask.any() for record in found.records(range(6)))
    assert list((tmp_path / "i" / "parts").rglob("*.parquet")) == []


def test_a_build_that_ends_meanwhile_gives_no_rank_another_version(tmp_path):
    write_slides(tmp_path / "s", 3)
    source, folder, ranks = f"{tmp_path}/s/", tmp_path / "i", {"world_size": 2, "builder": "run-a"}
    met, said, last = threading.Barrier(2), concurrent.futures.Future(), iter([False, True])

    def linger():
        met.wait()
        if next(last):  # between rank 0's look at the version and rank 1's
            said.result(60)
            write_slides(tmp_path / "s", 4)
            build(source, folder, builder="run-b")

    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(build, source, folder, rank=0, barrier=met.wait, agree=lambda v: said.set_result(v) or v, **ranks)
        other = build(source, folder, rank=1, barrier=linger, agree=lambda _: said.result(), **ranks)
    assert (other.version, len(other)) == (first.result().version, 3)


def test_the_catalog_is_a_plain_parquet_table_with_one_row_a_slide(tmp_path):
    write_slides(tmp_path / "s", 2)
    (tmp_path / "s" / "bad.svs").write_bytes(b"nothing")
    build(f"{tmp_path}/s/", tmp_path / "i")
    frame = pyarrow.parquet.read_table(io.BytesIO(pathlib.Path(tmp_path / "i" / "catalog.parquet").read_bytes())).to_pydict()
    assert sorted(map(bool, frame["rejected"])) == [False, False, True]
    assert [len(levels) for levels, reason in zip(frame["levels"], frame["rejected"], strict=True) if not reason] == [2, 2]
