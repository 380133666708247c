"""A catalog of many slides, and a child process that samples from it: `python -m tests.trainer.data.scale FOLDER` prints what it took."""

import json
import pathlib
import resource
import sys
import time

import numpy as np

from patho_trainer.data import catalog, columns, index, record, sampler, storage, table, urls
from tests.trainer.data.values import MAGNIFICATIONS, make_spec

SLIDES = 30_000
RECORDS = 8  # different ones; slides share them
EDGE = 312 * 256  # px: 20 mm at 40x
BATCH, WINDOW = 256, 16
STEPS = 64  # 1,280 slides are opened: the caches are full long before


def tiles(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Offsets and sizes as a scanner writes them: back to back, 14.6 kB on average."""
    sizes = np.random.default_rng(seed).normal(14_600, 3_500, (rows, rows)).clip(900).astype(np.int64)
    return 4_096 + np.concatenate([[0], np.cumsum(sizes.ravel())[:-1]]).reshape(rows, rows), sizes


def make_record(seed: int) -> bytes:
    """100,000 tiles in three levels, and a mask of 6 million pixels with tissue in two fifths of it."""
    mask = np.zeros((2500, 2500), dtype=bool)
    mask[300 + seed : 1900, 400:2000] = True
    mask[::97, 400:2000] = seed % 2 == 0
    return record.encode([tiles(312, seed), tiles(78, seed + 1), tiles(20, seed + 2)], mask)


def make_slide(number: int, place: catalog.Place) -> catalog.Slide:
    """As long a row as real ones: a TCGA name, shared tables, four magnifications."""
    mpp = 0.25 + number % 7 * 0.0005
    encoding = catalog.Encoding(7, 6, jpeg_tables=bytes([number % 50]) * 289)
    return catalog.Slide(
        id=f"TCGA-{number:05d}",
        url=f"gs://tcga-open/slides/{number % 97:02d}/TCGA-{number:05d}-01Z-00-DX1.{number:032x}.svs",
        size=10**9 + number,
        etag=f'"{number:032x}"',
        mpp=mpp,
        levels=tuple(catalog.Level(EDGE // f, EDGE // f, float(f), mpp * f, 256, 256, encoding) for f in (1, 4, 16)),
        accepted=tuple(catalog.Accepted(each, 256, 10**6 + number) for each in MAGNIFICATIONS),
        patient=f"TCGA-{number // 3:05d}",
        place=place,
    )


def write_index(folder: pathlib.Path, count: int = SLIDES) -> None:
    """An index as `index.build` leaves it."""
    records = [make_record(seed) for seed in range(RECORDS)]
    (folder / "tiles-00000.bin").write_bytes(b"".join(records))
    starts = np.cumsum([0, *map(len, records)]).tolist()
    places = [catalog.Place("tiles-00000.bin", start, len(data)) for start, data in zip(starts, records, strict=False)]
    rows = [table.Row(make_slide(n, places[n % RECORDS]), f"{n:016x}") for n in range(count)]
    (folder / "catalog.parquet").write_bytes(table.write(rows, {"version": "v1", "wanted": {"format": index.FORMAT}, "columns": []}))


def rss_mib() -> float:
    """Memory of this process now."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def measure(folder: pathlib.Path) -> dict[str, float]:
    """MiB above what the imports take, and CPU-seconds."""
    before, began = rss_mib(), time.process_time()
    bucket = storage.Bucket()
    plan = sampler.plan(index.load(urls.join(str(folder)), bucket=bucket), make_spec(batch_size=BATCH, patches={"windowSteps": WINDOW}), 0)
    started, loaded = rss_mib(), time.process_time()
    columns.ahead(plan, 0, range(BATCH), None, 2**40)
    opened = time.process_time()
    peak = rss_mib()
    for step in range(1, STEPS):
        due = [slot for slot in range(BATCH) if plan.steps_left(step, slot) == WINDOW]
        columns.ahead(plan, step, due, None, 2**40)
        peak = max(peak, rss_mib())
    return {
        "catalog_mib": started - before,
        "peak_mib": peak - before,
        "start_cpu_seconds": loaded - began,
        "first_step_cpu_seconds": opened - loaded,
        "step_cpu_seconds": (time.process_time() - opened) / (STEPS - 1),
    }


if __name__ == "__main__":
    print(json.dumps({name: round(value, 3) for name, value in measure(pathlib.Path(sys.argv[1])).items()}))
