"""The stream in a process of its own: the same batches, the same errors, and nothing left behind."""

import os
import select
import signal
import subprocess
import sys

import pytest

from patho_trainer import errors
from patho_trainer.data import child, storage, stream
from tests.trainer.data import sets
from tests.trainer.data.values import make_spec

pytestmark = pytest.mark.slow

PATCHES = {"sizePx": 96, "windowSteps": 4, "magnifications": [{"mpp": 0.5}, {"mpp": 1.0}]}
SPEC = make_spec(8, PATCHES, crops={"globalSizePx": 64, "localSizePx": 32})


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    return sets.build(SPEC, sets.write_slides(folder / "slides", 4), folder / "index")


def test_batches_are_the_same_as_in_this_process(catalog):
    options = {"seed": 5, "start_step": 2, "stop_step": 14, "rank": 1, "world_size": 2, "bucket": storage.Bucket()}
    with stream.batches(catalog, SPEC, **options) as batches:
        wanted = [(b.step, b.slots, b.images.numpy().tobytes(), repr(b.requests)) for b in batches]
    stats = stream.Stats()
    with child.batches(catalog, SPEC, stats=stats, **options) as batches:
        kept = list(batches)  # all of them at once: memory that comes back too early would show
    assert [(b.step, b.slots, b.images.numpy().tobytes(), repr(b.requests)) for b in kept] == wanted
    assert (stats.patches, stats.requests["file", "ok"] > 0, len(kept[0].requests)) == (12 * 4, True, 4)


def test_an_error_of_the_process_is_raised_here(catalog, tmp_path):
    broken = sets.build(SPEC, sets.write_slides(tmp_path / "slides", 4), tmp_path / "index")
    for path in (tmp_path / "slides").glob("*.tif"):
        path.unlink()
    with (
        pytest.raises(errors.DataNotFound, match="cannot be read"),
        child.batches(broken, SPEC, seed=0, bucket=storage.Bucket()) as batches,
    ):
        next(batches)


def test_a_killed_process_is_told_in_a_sentence(catalog):
    with child.batches(catalog, SPEC, seed=0, bucket=storage.Bucket()) as batches:
        next(batches)
        batches._process.kill()
        with pytest.raises(errors.PathoError, match=r"has died \(exit code -9\): give the pod more memory"):
            list(batches)


def test_a_process_that_is_killed_while_a_place_goes_back_is_told_too(catalog):
    with child.batches(catalog, SPEC, seed=0, bucket=storage.Bucket()) as batches:
        kept = next(batches)
        batches._process.kill()
        batches._process.wait()
        del kept
        with pytest.raises(errors.PathoError, match="has died"):
            list(batches)


def test_a_batch_is_used_where_it_lies_until_nothing_uses_it(catalog):
    with child.batches(catalog, SPEC, seed=0, bucket=storage.Bucket()) as batches:
        shared = {array.ctypes.data for array in batches._shared}
        assert all(next(batches).images.data_ptr() in shared for _ in range(3 * len(shared)))
        part = next(batches).images[1:]
        assert len(batches._lent) == 1
        del part
        assert not batches._lent


def test_a_consumer_that_keeps_many_batches_gets_copies(catalog):
    with child.batches(catalog, SPEC, seed=0, bucket=storage.Bucket()) as batches:
        shared = {array.ctypes.data for array in batches._shared}
        kept = [next(batches) for _ in range(2 * child.HELD)]
    assert [batch.images.data_ptr() in shared for batch in kept] == [True] * child.HELD + [False] * child.HELD


class Work:
    """Work of a device on a batch: done when somebody waits for it, or says so."""

    def __init__(self):
        self.done, self.waited = False, 0

    def query(self):
        return self.done

    def synchronize(self):
        self.done, self.waited = True, self.waited + 1


def with_work(batches, monkeypatch):
    """Every batch that is let go of leaves work behind, as on a GPU: the list of all of it."""
    left = []
    monkeypatch.setattr(batches, "_marking", lambda: lambda: left.append(Work()) or left[-1])
    return left


def test_a_place_goes_back_when_the_device_has_done_its_work(catalog, monkeypatch):
    with child.batches(catalog, SPEC, seed=0, bucket=storage.Bucket()) as batches:
        left = with_work(batches, monkeypatch)
        for _ in range(2):
            next(batches)
        assert len(batches._free) == 2
        for work in left:
            work.done = True
        next(batches)
        assert len(batches._free) == 1  # its own
    assert not any(work.waited for work in left)


def test_work_is_waited_for_only_where_the_process_has_no_place_left(catalog, monkeypatch):
    with stream.batches(catalog, SPEC, seed=0, stop_step=24, bucket=storage.Bucket()) as batches:
        wanted = [b.images.numpy().tobytes() for b in batches]
    with child.batches(catalog, SPEC, seed=0, stop_step=24, bucket=storage.Bucket()) as batches:
        left = with_work(batches, monkeypatch)
        assert [batch.images.numpy().tobytes() for batch in batches] == wanted
    assert sum(work.waited for work in left) == 24 + 1 - (child.SENT + child.HELD)  # the last message says that there is no more


def test_a_place_is_counted_while_it_goes_back_and_where_it_is_lent_again_meanwhile(catalog):
    seen = []

    class Late(set):
        def discard(self, loan):
            seen.append((len(batches._free), batches._pixels(0)))
            super().discard(loan)

    with child.batches(catalog, SPEC, seed=0, bucket=storage.Bucket()) as batches:
        batches._lent = Late()
        batches._pixels(0)
        assert (len(batches._lent), seen[0][0]) == (1, 1)
        batches._lent = set()


STORY = """
import sys, time
from patho_trainer.data import child, index, storage
from tests.trainer.data import test_child
batches = child.batches(index.load(sys.argv[1]), test_child.SPEC, seed=0, bucket=storage.Bucket())
next(batches)
print(batches._process.pid, flush=True)
time.sleep(600)
"""


def test_the_process_ends_with_its_parent(catalog):
    parent = subprocess.Popen([sys.executable, "-c", STORY, catalog.url], stdout=subprocess.PIPE, text=True, cwd=os.getcwd())
    pid = int(parent.stdout.readline())
    watched = os.pidfd_open(pid)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()

    assert select.select([watched], [], [], 30)[0]
    os.close(watched)
