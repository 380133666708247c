"""The loader's own measurement."""

import pytest

from patho_trainer.data import bench, fetching, native, storage
from tests.trainer.data import sets
from tests.trainer.data.values import make_spec


def make_result(**changes):
    values = {"patches": 1000, "wall_seconds": 2.0, "cpu_seconds": 3.6, "requests": 500, "bytes": 10**7, "threads": 2}
    return bench.Result(**values | {"seconds": {"fetch": 9.0, "decode": 3.0, "resize": 0.4, "wait": 1.9}} | changes)


@pytest.mark.parametrize(
    ("cpu_seconds", "decode", "resize", "limit"),
    [(3.6, 3.0, 0.4, "decode"), (3.6, 1.0, 2.4, "resize"), (0.5, 0.3, 0.1, "fetch")],
)
def test_the_limiting_stage_is_named(cpu_seconds, decode, resize, limit):
    seconds = {"fetch": 9.0, "decode": decode, "resize": resize, "wait": 1.9}
    assert make_result(cpu_seconds=cpu_seconds, seconds=seconds).limit == limit


def test_the_result_is_told_in_cores_requests_and_bytes():
    assert make_result().lines() == [
        "500 patches/s with 2 decoding threads, limited by decode",
        "278 patches per CPU-second: 3.6 cores for 1,000 patches/s",
        "250 requests/s, 5.0 MB/s",
        "0.50 million requests and 10.0 GB for a million patches",
        "cores that keep one H100 busy: S/16 9.7, B/16 2.5, L/14 0.5, g/14 0.1",
        f"tiles decoded by: {native.name()}",
        f"ranges fetched by: {fetching.name()}",
    ]


def test_a_measurement_counts_the_patches_after_the_warm_up(tmp_path):
    spec = make_spec(4, {"sizePx": 96, "magnifications": [{"mpp": 0.5}]}, crops={"globalSizePx": 64, "localSizePx": 32})
    catalog = sets.build(spec, sets.write_slides(tmp_path / "slides", 2), tmp_path / "index")
    result = bench.measure(catalog, spec, steps=20, bucket=storage.Bucket(), threads=1)
    assert result.patches == 80
    assert result.patches_per_cpu_second > 0
    assert result.requests > 0  # as much is fetched as is used: not all of it was read ahead
