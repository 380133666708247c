"""Patches by another reader, in an environment of its own: python opponent.py READER JOB.json. Imports nothing of the project.

The job: {"slides": {name: url or path}, "patches": [[name, x, y, level, edge], ...], "size": n, "threads": n, "processes": n}; (x, y) in
level-0 px, regions of `edge` px are averaged to `size`. Slides are opened, and one patch of each is read, before the clock starts.
Prints patches a second of CPU time (all processes together) and of wall time.
"""

import concurrent.futures
import functools
import json
import multiprocessing
import sys
import time

import numpy as np


def openslide_reader():
    import openslide

    return openslide.OpenSlide, lambda s, x, y, level, n: np.asarray(s.read_region((x, y), level, (n, n)).convert("RGB"))


def tiffslide_reader():
    import fsspec
    import tiffslide

    def opened(url):
        if "://" not in url:
            return tiffslide.TiffSlide(url)
        return tiffslide.TiffSlide(fsspec.filesystem("http").open(url, block_size=16 * 1024))  # its best, by readers measured before

    return opened, lambda s, x, y, level, n: s.read_region((x, y), level, (n, n), as_array=True)


def cucim_reader():
    from cucim import CuImage

    return CuImage, lambda s, x, y, level, n: np.asarray(s.read_region((x, y), (n, n), level))


READERS = {"openslide": openslide_reader, "tiffslide": tiffslide_reader, "cucim": cucim_reader}


def by_reader(reader: str, job: dict):
    """A function that reads all patches of a job; slides are open, and shared by threads."""
    opened, read = READERS[reader]()
    open_ = functools.cache(lambda name: opened(job["slides"][name]))

    def one(patch) -> None:
        name, x, y, level, edge = patch
        pixels = read(open_(name), x, y, level, edge)
        assert pixels.shape == (edge, edge, 3)
        if edge != job["size"]:
            import cv2

            cv2.resize(pixels, (job["size"], job["size"]), interpolation=cv2.INTER_AREA)

    for patch in {patch[0]: patch for patch in job["patches"]}.values():
        one(patch)
    if job["threads"] == 1:
        return lambda: [one(patch) for patch in job["patches"]]
    pool = concurrent.futures.ThreadPoolExecutor(job["threads"])
    return lambda: list(pool.map(one, job["patches"]))


def by_wsistream(job: dict):
    """As many patches of its own choice, at random on the tissue of the same slides, at level 0; its pool holds them all."""
    from wsistream import backends, pipeline, sampling, tissue

    remote = "://" in next(iter(job["slides"].values()))
    patches = pipeline.PatchPipeline(
        slide_paths=list(job["slides"].values()),
        backend=backends.TiffSlideBackend() if remote else backends.OpenSlideBackend(),
        tissue_detector=tissue.OtsuTissueDetector(),
        sampler=sampling.RandomSampler(patch_size=job["size"], level=0, seed=0),
        pool_size=len(job["slides"]),
        patches_per_slide=10**9,
        seed=0,
    )
    stream = iter(patches)
    for _ in range(2 * len(job["slides"])):
        next(stream)

    def work() -> None:
        for _ in job["patches"]:
            assert next(stream).image.shape == (job["size"], job["size"], 3)

    return work


def measure(arguments) -> tuple[float, float]:
    """CPU and wall seconds of one process; all processes start together."""
    reader, job = arguments
    work = by_wsistream(job) if reader == "wsistream" else by_reader(reader, job)
    if barrier:
        barrier.wait()
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


barrier = None


def share(value) -> None:
    global barrier
    barrier = value


def main(reader: str, job: dict) -> None:
    count = job["processes"]
    shares = [(reader, {**job, "patches": job["patches"][k::count]}) for k in range(count)]
    if count == 1:
        found = [measure(shares[0])]
    else:
        context = multiprocessing.get_context("spawn")
        with context.Pool(count, share, (context.Barrier(count),)) as pool:
            found = pool.map(measure, shares, chunksize=1)
    n = len(job["patches"])
    print(json.dumps({"cpu": n / sum(cpu for cpu, _ in found), "wall": n / max(wall for _, wall in found)}))


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        main(sys.argv[1], json.load(file))
