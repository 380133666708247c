"""How fast the loader alone is, and what limits it: what a GPU would have to wait for."""

import dataclasses
import time

from patho_api import pretrain
from patho_trainer import cores
from patho_trainer.data import catalog as catalogs
from patho_trainer.data import fetching, native, reader, storage, stream

# patches/s that one H100 takes in training, at most (estimates from FLOPs at usual utilisation)
DEMAND = {"S/16": 2700, "B/16": 690, "L/14": 148, "g/14": 40}
WARM_UP_PATCHES = reader.PATCHES_AHEAD  # afterwards, as much is fetched as is used


@dataclasses.dataclass(frozen=True)
class Result:
    """One measurement. Seconds by stage add up over threads; `cpu_seconds` are the whole process's."""

    patches: int
    wall_seconds: float
    cpu_seconds: float
    requests: int
    bytes: int
    threads: int
    seconds: dict[str, float]

    @property
    def patches_per_second(self) -> float:
        """Of wall time."""
        return self.patches / self.wall_seconds

    @property
    def patches_per_cpu_second(self) -> float:
        """Of CPU time of the process: divide a GPU's demand by it to get the cores that the loader needs."""
        return self.patches / self.cpu_seconds

    @property
    def limit(self) -> str:
        """The stage that holds the loader up: `decode` or `resize` where the threads are busy, else `fetch`."""
        painting = self.seconds["decode"] + self.seconds["resize"]
        if painting < 0.7 * self.threads * self.wall_seconds and self.cpu_seconds < 0.7 * self.threads * self.wall_seconds:
            return "fetch"
        return max(("decode", "resize"), key=lambda stage: self.seconds[stage])

    def lines(self) -> list[str]:
        """The result for a terminal."""
        million, cores = 1e6 / self.patches, 1000 / self.patches_per_cpu_second
        needed = ", ".join(f"{model} {demand * cores / 1000:.1f}" for model, demand in DEMAND.items())
        return [
            f"{self.patches_per_second:,.0f} patches/s with {self.threads} decoding threads, limited by {self.limit}",
            f"{self.patches_per_cpu_second:,.0f} patches per CPU-second: {cores:.1f} cores for 1,000 patches/s",
            f"{self.requests / self.wall_seconds:,.0f} requests/s, {self.bytes / self.wall_seconds / 1e6:,.1f} MB/s",
            f"{self.requests * million / 1e6:,.2f} million requests and {self.bytes * million / 1e9:,.1f} GB for a million patches",
            f"cores that keep one H100 busy: {needed}",
            f"tiles decoded by: {native.name()}",
            f"ranges fetched by: {fetching.name()}",
        ]


def measure(
    catalog: catalogs.Catalog, spec: pretrain.PretrainSpec, *, steps: int, bucket: storage.Bucket, threads: int | None = None
) -> Result:
    """Read `steps` global batches and throw them away. Raises as `stream.batches`."""
    stats = stream.Stats()
    threads = threads or cores.here(spec.compute)
    with stream.batches(catalog, spec, seed=spec.training.seed, bucket=bucket, stats=stats, threads=threads) as batches:
        for _ in range(1 + -(-WARM_UP_PATCHES // spec.training.batch_size)):
            next(batches)
        before = _totals(stats)
        for _ in range(steps):
            next(batches)
        after = _totals(stats)
    delta = {name: after[name] - before[name] for name in after}
    return Result(
        patches=steps * spec.training.batch_size,
        wall_seconds=delta["wall"],
        cpu_seconds=delta["cpu"],
        requests=int(delta["requests"]),
        bytes=int(delta["bytes"]),
        threads=threads,
        seconds={stage: delta[stage] for stage in stats.seconds},
    )


def _totals(stats: stream.Stats) -> dict[str, float]:
    return {
        "wall": time.perf_counter(),
        "cpu": time.process_time(),
        "requests": sum(count for (_, outcome), count in stats.requests.items() if outcome == "ok"),
        "bytes": sum(stats.bytes.values()),
        **stats.seconds,
    }
