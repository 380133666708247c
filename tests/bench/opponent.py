"""Patches by another reader, in an environment of its own: python opponent.py READER JOB.json. Imports nothing of the project.

The job: {"slides": {name: url or path}, "patches": [[name, x, y, edge], ...], "threads": n}, all at level 0. Prints patches a second of
CPU time (children included) and of wall time.
"""

import concurrent.futures
import functools
import json
import resource
import sys
import threading
import time

import numpy as np


def openslide_reader():
    import openslide

    return openslide.OpenSlide, lambda s, x, y, n: np.asarray(s.read_region((x, y), 0, (n, n)).convert("RGB"))


def tiffslide_reader():
    import fsspec
    import tiffslide

    def opened(url):
        if "://" not in url:
            return tiffslide.TiffSlide(url)
        return tiffslide.TiffSlide(fsspec.filesystem("http").open(url, block_size=16 * 1024))  # its best, by readers measured before

    return opened, lambda s, x, y, n: s.read_region((x, y), 0, (n, n), as_array=True)


def cucim_reader():
    from cucim import CuImage

    return CuImage, lambda s, x, y, n: np.asarray(s.read_region((x, y), (n, n), 0))


READERS = {"openslide": openslide_reader, "tiffslide": tiffslide_reader, "cucim": cucim_reader}


def cpu() -> float:
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def run(reader: str, job: dict) -> int:
    """All patches, in threads; each thread with handles of its own."""
    opened, read = READERS[reader]()
    local = threading.local()

    def one(patch) -> int:
        name, x, y, edge = patch
        if not hasattr(local, "open"):
            local.open = functools.cache(lambda name: opened(job["slides"][name]))
        pixels = read(local.open(name), x, y, edge)
        assert pixels.shape == (edge, edge, 3)
        return int(pixels[0, 0, 0])

    with concurrent.futures.ThreadPoolExecutor(job["threads"]) as pool:
        return sum(pool.map(one, job["patches"]))


def part(arguments) -> int:
    return run(*arguments)


def main(reader: str, job: dict) -> None:
    run(reader, {**job, "patches": job["patches"][:8]})  # imports and first tables
    before, start = cpu(), time.perf_counter()
    if job.get("processes", 1) == 1:
        run(reader, job)
    else:
        shares = [(reader, {**job, "patches": job["patches"][k :: job["processes"]]}) for k in range(job["processes"])]
        with concurrent.futures.ProcessPoolExecutor(job["processes"]) as pool:
            list(pool.map(part, shares))
    n = len(job["patches"])
    print(json.dumps({"cpu": n / (cpu() - before), "wall": n / (time.perf_counter() - start)}))


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        main(sys.argv[1], json.load(file))
