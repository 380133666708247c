"""A bad network never shows: the same bytes at every step, whatever breaks, on any number of ranks, transports and after any kill."""

import hashlib
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from patho_api import common
from patho_trainer.data import fetching, index, storage, stream
from tests.trainer.data import sets
from tests.trainer.data.values import make_spec

SHARE = 0.05  # of requests that go wrong
RANKS = ("native", "fsspec")
CORE = fetching.core
FAULTS = (503, 429, "reset", "slow", "short")
STEPS = 6
ENDLESS = 10_000  # steps: more lines than a pipe holds, so that whoever tells them is alive when it is killed
PATCHES = {"sizePx": 96, "windowSteps": 4, "magnifications": [{"mpp": 0.5}, {"mpp": 1.0}]}
SPEC = make_spec(8, PATCHES, crops={"globalSizePx": 64, "localSizePx": 32})


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    sets.write_slides(folder, 4)
    return folder


@pytest.fixture
def served(slides, web):
    """A catalog whose slides lie on a web server, and that server."""
    for path in slides.glob("*.tif"):
        (web.folder / path.name).symlink_to(path)
    manifest = web.folder / "slides.csv"
    manifest.write_text("id,url\n" + "".join(f"{p.stem},{web.url}{p.name}\n" for p in sorted(slides.glob("*.tif"))))
    return sets.build(SPEC, manifest, web.folder / "index"), web


def told(catalog, *, start=0, stop=STEPS, rank=0, world_size=1, transport="obstore", stats=None):
    """((step, slot), hash of the pixels), as they come."""
    fetching.core = CORE if transport == "native" else None
    bucket = storage.Bucket(common.Storage(options={"transport": transport} if transport == "fsspec" else {}))
    options = {"seed": 3, "start_step": start, "stop_step": stop, "rank": rank, "world_size": world_size, "stats": stats}
    with stream.batches(catalog, SPEC, bucket=bucket, threads=2, **options) as batches:
        for b in batches:
            for slot, image in zip(b.slots, b.images, strict=True):
                yield (b.step, slot), hashlib.sha256(image.numpy()).hexdigest()


@pytest.fixture(autouse=True)
def _restored(monkeypatch):
    monkeypatch.setattr(fetching, "core", CORE)  # `told` sets it


def digests(catalog, **options):
    """(step, slot) -> hash of the pixels"""
    return dict(told(catalog, **options))


def chaos(seed, happened):
    """Request number -> what goes wrong with it: the same every time; added to `happened`."""

    def fault(number):
        draw = random.Random(f"{seed}/{number}")
        if draw.random() >= SHARE:
            return None
        happened.append(draw.choice(FAULTS))
        return happened[-1]

    return fault


@pytest.mark.slow
@pytest.mark.parametrize(("transport", "world_size"), [("native", 1), ("native", 2), ("native", 4), ("obstore", 1), ("fsspec", 1)])
def test_one_request_in_twenty_may_fail_and_every_byte_is_the_same(served, transport, world_size):
    catalog, web = served
    calm, happened = digests(catalog), []
    web.chaos = chaos(world_size, happened)
    stats = [stream.Stats() for _ in range(world_size)]
    parts = [digests(catalog, rank=k, world_size=world_size, transport=transport, stats=stats[k]) for k in range(world_size)]
    assert {key: value for part in parts for key, value in part.items()} == calm
    assert happened
    assert all(not each.replaced for each in stats)


@pytest.mark.parametrize("transport", ["native", "obstore"])
def test_wrong_credentials_end_a_stream_within_seconds_with_one_sentence(served, transport):
    catalog, web = served
    web.access_key = "another"
    started = time.monotonic()
    with pytest.raises(storage.AccessDenied, match=r"access to http.* was denied \(403\): check the keys of storage.secretName"):
        digests(catalog, transport=transport)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("transport", ["native", "obstore"])
def test_an_object_that_changes_while_it_is_read_is_noticed_and_replaced(served, slides, transport):
    catalog, web = served
    path = web.folder / "slide-1.tif"
    path.unlink()
    path.write_bytes((slides / "slide-1.tif").read_bytes())  # the same bytes under another etag
    stats = stream.Stats()
    after = digests(catalog, stats=stats, transport=transport)
    assert set(stats.replaced) == {"Changed"}
    assert len(after) == STEPS * 8


STORY = """
import sys
from patho_trainer.data import index
from tests.trainer.data import test_stream_faults as t
url, start, stop, rank, transport = sys.argv[1:]
steps = {"start": int(start), "stop": int(stop)}
for (step, slot), digest in t.told(index.load(url), **steps, rank=int(rank), world_size=2, transport=transport):
    print(step, slot, digest, flush=True)
"""


def tell(url, start, stop, rank, transport):
    command = [sys.executable, "-c", STORY, url, str(start), str(stop), str(rank), transport]
    root = pathlib.Path(__file__).parents[3]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=root)


@pytest.mark.slow
def test_two_ranks_killed_at_any_moment_go_on_with_the_same_bytes_whatever_the_network_does(served):
    """One of them fetches by the native core where it is built, the other by fsspec."""
    _, web = served
    url, calm, happened = str(web.folder / "index"), digests(index.load(str(web.folder / "index"))), []
    web.chaos = chaos(7, happened)
    first = [tell(url, 0, ENDLESS, rank, transport) for rank, transport in enumerate(RANKS)]
    lines = [each.stdout.readline() for each in first for _ in range(4 * 2 + 2)]  # in the middle of step 2
    for each in first:
        each.send_signal(signal.SIGKILL)
        each.communicate()
    rest = [tell(url, 2, STEPS, rank, transport) for rank, transport in enumerate(RANKS)]
    lines += [line for each in rest for line in each.communicate()[0].splitlines()]
    found = {(int(step), int(slot)): value for step, slot, value in map(str.split, lines)}
    assert [each.returncode for each in first] == [-signal.SIGKILL] * 2
    assert happened
    assert found == calm
