"""Damages slides in every way a disk, a network or a converter can, and looks whether the index notices. Run as a child process, so that
a crash of a codec is seen: `python -m tests.trainer.data.fuzz FOLDER FIRST COUNT` prints one JSON line a slide.

A damaged slide is *rejected*, or *read right*: every region is refused as undecodable, or has the pixels that the undamaged slide has
there, or those that an independent reader (tifffile, OpenSlide) finds in the damaged file. Nothing stores a checksum of pixels.
"""

import functools
import json
import pathlib
import resource
import sys
from collections.abc import Callable, Iterator

import numpy as np
import openslide
import tifffile

from patho_api import pretrain
from patho_trainer.data import copies, manifest, record, scan, slide, storage
from tests.trainer import formats, slides
from tests.trainer.slides import Pixels, Recipe

MEMORY_BYTES = 6 * 2**30  # of address space: a header that lies about sizes must not take a machine down
REGIONS = 10
SIZES = ((520, 392), (260, 196))
PATCHES = pretrain.Patches(size_px=64, magnifications=[pretrain.Magnification(mpp=0.25), pretrain.Magnification(mpp=0.5)])
MUTATORS: list[Callable[[bytearray, "Spans", np.random.Generator], bytearray]] = []
Spans = dict[str, list[tuple[int, int]]]


def bases() -> dict[str, Callable[[pathlib.Path], pathlib.Path]]:
    """Undamaged slides, by file name."""
    jpeg = functools.partial(formats.write_jpeg, recipe=Recipe(vendor=True, sizes=SIZES), shared=True)
    rgb = functools.partial(formats.write_jpeg, recipe=Recipe(vendor=True, sizes=SIZES, stored="rgb"), shared=False)
    return {
        "tables.svs": jpeg,
        "rgb.svs": rgb,
        "j2k.svs": functools.partial(slides.write, recipe=Recipe(vendor=True, sizes=SIZES, compression=33005)),
        "deflate.tif": functools.partial(slides.write, recipe=Recipe(sizes=SIZES, compression="deflate", predictor=True)),
        "lzw.ome.tif": functools.partial(formats.write_ome, recipe=Recipe(sizes=SIZES, compression="lzw")),
        "big.tif": functools.partial(slides.write, recipe=Recipe(sizes=SIZES, bigtiff=True)),
        "sparse.tiff": functools.partial(formats.write_philips, recipe=Recipe(sizes=SIZES, tile=128, tissue=0.5)),
        "overlaps.bif": functools.partial(formats.write_ventana, recipe=Recipe(sizes=((512, 384), (256, 192)), tile=128), overlap=16),
    }


def mutator(function: Callable[[bytearray, Spans, np.random.Generator], bytearray]) -> Callable[..., bytearray]:
    """One kind of damage."""
    MUTATORS.append(function)
    return function


def spans_of(path: pathlib.Path) -> Spans:
    """(offset, size) of a TIFF's parts: `structure` is header, directories and values outside of them, `tiles` the pictures."""
    found: Spans = {"structure": [(0, 16)], "tiles": []}
    with tifffile.TiffFile(path) as tiff:
        for page in (sub for main in tiff.pages for sub in (main, *(main.pages or ()))):
            found["structure"] += [(tag.offset, 20 if tiff.is_bigtiff else 12) for tag in page.tags.values()]
            found["structure"] += [(tag.valueoffset, min(4096, tag.valuebytecount)) for tag in page.tags.values()]
            found["tiles"] += [(o, n) for o, n in zip(page.dataoffsets, page.databytecounts, strict=True) if n]
    return found


def _at(spans: list[tuple[int, int]], random: np.random.Generator) -> int:
    offset, size = spans[random.integers(len(spans))]
    return int(offset + random.integers(max(1, size)))


@mutator
def cut_off(data: bytearray, spans: Spans, random: np.random.Generator) -> bytearray:
    """An upload that broke."""
    return data[: int(random.integers(len(data)))]


@mutator
def flip_structure(data: bytearray, spans: Spans, random: np.random.Generator) -> bytearray:
    """Single bits of the header or a directory."""
    for _ in range(random.integers(1, 8)):
        data[_at(spans["structure"], random)] ^= 1 << int(random.integers(8))
    return data


@mutator
def rewrite_structure(data: bytearray, spans: Spans, random: np.random.Generator) -> bytearray:
    """A value of a directory that is something else: sizes, offsets, kinds of compression."""
    for _ in range(random.integers(1, 3)):
        at = _at(spans["structure"], random)
        value = random.choice([0, 1, 2, 6, 7, 255, 256, 65535, 2**31 - 1, 2**32 - 1, int(random.integers(2**32))])
        data[at : at + 4] = int(value).to_bytes(4, "little")
    return data


@mutator
def flip_tiles(data: bytearray, spans: Spans, random: np.random.Generator) -> bytearray:
    """Single bits of pictures: a disk that forgets."""
    for _ in range(random.integers(1, 40)):
        data[_at(spans["tiles"], random)] ^= 1 << int(random.integers(8))
    return data


@mutator
def blank_tiles(data: bytearray, spans: Spans, random: np.random.Generator) -> bytearray:
    """A hole of zeros: a copy that skipped a block."""
    at, size = _at(spans["tiles"], random), int(random.integers(1, 8192))
    data[at : at + size] = bytes(min(size, len(data) - at))
    return data


@mutator
def swap_blocks(data: bytearray, spans: Spans, random: np.random.Generator) -> bytearray:
    """Two blocks that changed places."""
    size = int(random.choice([16, 512, 4096]))
    a, b = (int(random.integers(max(1, len(data) - size))) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data[: len(data)]


@mutator
def insert(data: bytearray, spans: Spans, random: np.random.Generator) -> bytearray:
    """Bytes too many: everything behind has moved."""
    at = int(random.integers(len(data)))
    data[at:at] = random.bytes(int(random.integers(1, 64)))
    return data


@mutator
def noise(data: bytearray, spans: Spans, random: np.random.Generator) -> bytearray:
    """A stretch of anything, anywhere."""
    at = int(random.integers(len(data)))
    data[at : at + 64] = random.bytes(min(64, len(data) - at))
    return data


def mutate(seed: int, folder: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Write damaged slide number `seed`; its path, and what was done to which."""
    names = list(bases())
    base, damage = names[seed % len(names)], MUTATORS[seed // len(names) % len(MUTATORS)]
    random = np.random.default_rng(seed)
    data = damage(bytearray((folder / base).read_bytes()), spans_of(folder / base), random)
    path = folder / f"damaged-{base}"
    path.write_bytes(data)
    return path, f"{damage.__name__} {base}"


def outcome(path: pathlib.Path, base: pathlib.Path, random: np.random.Generator) -> str:
    """The reason of the rejection, or how the regions were read. Raises what the index would not survive."""
    bucket = storage.Bucket()
    scanner = scan.Scanner(bucket, pretrain.Foreground(), PATCHES)
    row, data = scanner.look(manifest.Entry("a", str(path), bucket.head(str(path))))
    if row.rejected:
        return row.rejected
    opened = slide.Opened(row, record.Record(data), bucket, copies.Copies(bucket))
    kinds = {_judge(path, base, opened, *region) for region in _regions(opened, random)}
    return "+".join(sorted(kinds))


def _regions(opened: slide.Opened, random: np.random.Generator) -> Iterator[tuple[int, int, int, int, int]]:
    for _ in range(REGIONS):
        level = int(random.integers(len(opened.levels)))
        _, width, height = opened.levels[level]
        edge = int(random.integers(1, 130))
        yield level, int(random.integers(-10, max(1, width - 20))), int(random.integers(-10, max(1, height - 20))), edge, edge


def _judge(path: pathlib.Path, base: pathlib.Path, opened: slide.Opened, level: int, x: int, y: int, width: int, height: int) -> str:
    try:
        found = opened.read_level(level, x, y, width, height)
    except (slide.Undecodable, openslide.OpenSlideError):
        return "undecodable"
    whole = slide.open(str(base))
    if len(whole.levels) > level and np.array_equal(found, whole.read_level(level, x, y, width, height)):
        return "as undamaged"
    for oracle in (_by_tifffile, _by_openslide):
        expected = oracle(path, opened, level, x, y, width, height)
        if expected is not None and np.array_equal(found, expected):
            return "as stored"
    return "WRONG"


def _by_tifffile(path: pathlib.Path, opened: slide.Opened, level: int, x: int, y: int, width: int, height: int) -> Pixels | None:
    try:
        with tifffile.TiffFile(path) as tiff:
            pages = [sub for main in tiff.pages for sub in (main, *(main.pages or ()))]
            shape = opened.facts.levels[level]
            page = next(p for p in pages if p.is_tiled and abs(p.imagewidth - shape.width) < shape.tile_width)
            return formats.cut(np.asarray(page.asarray())[: shape.height, : shape.width], x, y, width, height)
    except Exception:
        return None


def _by_openslide(path: pathlib.Path, opened: slide.Opened, level: int, x: int, y: int, width: int, height: int) -> Pixels | None:
    scale = opened.facts.levels[level].downsample
    try:
        with openslide.OpenSlide(path) as oracle:
            return copies.region(oracle, (round(x * scale), round(y * scale)), level, (width, height))
    except Exception:
        return None


def main(folder: pathlib.Path, first: int, count: int) -> None:
    """Judge some damaged slides; what could not be survived ends the process."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    for seed in range(first, first + count):
        path, what = mutate(seed, folder)
        print(json.dumps({"seed": seed, "what": what}), flush=True)
        base = folder / path.name.removeprefix("damaged-")
        print(json.dumps({"seed": seed, "what": what, "outcome": outcome(path, base, np.random.default_rng(seed))}), flush=True)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
