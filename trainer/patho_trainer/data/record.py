"""A slide's record in the index: where every tile lies, and the foreground mask. At most 2 bytes a tile; decoded page by page.

Layout: `PSR3`, length of the directory (uint32), directory (JSON), then the compressed parts that the directory lists.
"""

import itertools
import json
import struct
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from patho_trainer.data import core

native = core.native

MASK_MPP = 8.0  # um/px of a foreground mask
MASK_PX = 2**30  # more than of a slide of 250 x 250 mm: no slide has such a mask
MAGIC = b"PSR3"
PAGE = struct.Struct("<qBB")  # of a page: offset of the first tile, number of planes of sizes (but the lowest) and of gaps
PAGE_TILES = 2048  # a page holds whole rows, about this many tiles: what one look-up has to decompress

STRIP = 16  # columns of a mask that are packed together, row after row: whole bytes
COUNT = struct.Struct("<I")  # of a mask: how many distances
FAR = 255  # as a distance: it is larger, and stored behind the others

Ints = NDArray[np.int64]


def encode(levels: Sequence[tuple[Ints, Ints]], mask: NDArray[np.bool_]) -> bytes:
    """Pack tile (offsets, sizes), each of shape (rows, columns) and in bytes, of every level, and a mask of shape (rows, columns)."""
    parts = [_pack_mask(mask)]
    directory: dict[str, list[list[int]]] = {"mask": [[*mask.shape, len(parts[0])]], "levels": []}
    for offsets, sizes in levels:
        rows, columns = offsets.shape
        rows_a_page = max(1, PAGE_TILES // max(1, columns))
        pages = [_pack(offsets[r : r + rows_a_page].ravel(), sizes[r : r + rows_a_page].ravel()) for r in range(0, rows, rows_a_page)]
        directory["levels"].append([rows, columns, rows_a_page, *map(len, pages)])
        parts += pages
    return _join(directory, parts)


def _join(directory: dict[str, list[list[int]]], parts: Sequence[bytes]) -> bytes:
    head = json.dumps(directory, separators=(",", ":")).encode()
    return b"".join([MAGIC, struct.pack("<I", len(head)), head, *parts])


def _pack(offsets: Ints, sizes: Ints) -> bytes:
    """The first offset, then sizes and the gaps between tiles as byte planes, as few as hold them. Size 0: no such tile.

    The low bytes of sizes are noise, all others hardly vary: compressed apart.
    """
    ends = np.maximum.accumulate(offsets + sizes)
    offsets = np.where(sizes == 0, np.concatenate([[0], ends[:-1]]), offsets)
    gaps = np.diff(offsets, prepend=offsets[:1]) - np.concatenate([[0], sizes[:-1]])
    gaps[0] = 0
    noise, *high = _planes(sizes, "<u4")
    high, low = _needed(high), _needed(_planes((gaps << 1) ^ (gaps >> 63), "<u8"))  # small numbers of either sign have few bytes
    head = PAGE.pack(int(offsets[0]) if len(offsets) else 0, len(high), len(low))
    return head + zlib.compress(b"".join([*high, *low]), 9) + zlib.compress(noise, 9)


def _needed(planes: list[bytes]) -> list[bytes]:
    """Without the highest planes that are all zero."""
    while planes and not any(planes[-1]):
        planes = planes[:-1]
    return planes


def _unpack(page: bytes) -> tuple[Ints, Ints]:
    first, high, low = PAGE.unpack_from(page)
    stream = zlib.decompressobj()
    planes = stream.decompress(page[PAGE.size :])
    noise = np.frombuffer(zlib.decompress(stream.unused_data), np.uint8)
    stored = np.frombuffer(planes, np.uint8).reshape(high + low, len(noise))
    sizes = _values([noise, *stored[:high]])
    offsets = np.cumsum(sizes)
    offsets += first - sizes
    if low:
        folded = _values(list(stored[high:]))
        offsets += np.cumsum((folded >> 1) ^ -(folded & 1))
    return offsets, sizes


def _values(planes: Sequence[NDArray[np.uint8]]) -> Ints:
    """Numbers out of their byte planes, the lowest first."""
    stored = np.zeros((len(planes[0]), 8), dtype=np.uint8)
    for k, plane in enumerate(planes):
        stored[:, k] = plane
    return stored.view("<i8")[:, 0]


def _planes(values: Ints, dtype: str) -> list[bytes]:
    """The lowest bytes of all values, then the next ones, and so on."""
    stored = np.ascontiguousarray(values.astype(dtype))
    return [plane.tobytes() for plane in stored.view(np.uint8).reshape(-1, stored.itemsize).T]


def _pack_mask(mask: NDArray[np.bool_]) -> bytes:
    """Distances between the pixels that differ from the one above, strip by strip: along a tissue's edge they are close to each other."""
    rows, columns = mask.shape
    edges = np.pad(mask, ((0, 0), (0, -columns % STRIP)))
    edges[1:] ^= edges[:-1].copy()
    strips = edges.reshape(rows, -(-columns // STRIP), STRIP).swapaxes(0, 1)
    distances = np.diff(np.flatnonzero(strips), prepend=0)
    far = distances >= FAR
    near = np.where(far, FAR, distances).astype(np.uint8).tobytes()
    return zlib.compress(b"".join([COUNT.pack(len(distances)), near, *_planes(distances[far], "<u4")]), 9)


def _unpack_mask(data: bytes, rows: int, columns: int) -> NDArray[np.uint8]:
    """One bit a pixel, shape (rows, ceil(columns / 8)): eight pixels are undone at once. Raises ValueError for a mask of no slide."""
    if rows * columns > MASK_PX:
        raise ValueError(f"a damaged slide record: it has a mask of {rows} x {columns} px: build the index anew")
    distances = zlib.decompress(data)
    if native and (bits := native.unpack_mask(distances, rows, columns)) is not None:
        return np.frombuffer(bits, np.uint8).reshape(rows, -(-columns // 8))
    strips = -(-columns // STRIP)
    edges = np.zeros(strips * rows * STRIP, dtype=bool)
    edges[np.cumsum(_distances(distances))] = True
    packed = np.packbits(edges).reshape(strips, rows, STRIP // 8).swapaxes(0, 1).reshape(rows, strips * STRIP // 8)
    return np.asarray(np.bitwise_xor.accumulate(packed[:, : -(-columns // 8)], axis=0))


def _distances(data: bytes) -> Ints:
    (count,) = COUNT.unpack_from(data)
    distances = np.frombuffer(data, np.uint8, count, COUNT.size).astype(np.int64)
    far = np.frombuffer(data, np.uint8, offset=COUNT.size + count).reshape(4, -1)
    distances[distances == FAR] = _values(list(far))
    return distances


class Record:
    """Reads what `encode` packed. Pages are decompressed when first asked for and kept with the object: drop it with the slot."""

    def __init__(self, data: bytes) -> None:
        """`data` is the whole record. Raises ValueError where it is not one."""
        if data[:4] != MAGIC:
            raise ValueError(f"not a slide record: starts with {data[:4]!r}")
        (length,) = struct.unpack("<I", data[4:8])
        directory = json.loads(data[8 : 8 + length])
        self._data = data
        self._directory = directory
        self._mask_rows, self._mask_columns, self._mask_size = directory["mask"][0]
        self._shapes = [(rows, columns, step) for rows, columns, step, *_ in directory["levels"]]
        self._mask_start = at = 8 + length
        at += self._mask_size
        self._pages: list[list[tuple[int, int]]] = []
        for _, _, _, *sizes in directory["levels"]:
            ends = np.cumsum([at, *sizes]).tolist()
            self._pages.append(list(itertools.pairwise(ends)))
            at = ends[-1]
        self._decoded: dict[tuple[int, int], tuple[Ints, Ints]] = {}

    def with_mask(self, mask: NDArray[np.bool_]) -> bytes:
        """The bytes of the same record with another mask of shape (rows, columns)."""
        packed = _pack_mask(mask)
        directory = {"mask": [[*mask.shape, len(packed)]], "levels": self._directory["levels"]}
        return _join(directory, [packed, self._data[self._mask_start + self._mask_size :]])

    def _page(self, level: int, page: int) -> tuple[Ints, Ints]:
        if (level, page) in self._decoded:
            return self._decoded[level, page]
        start, end = self._pages[level][page]
        offsets, sizes = _unpack(self._data[start:end])
        self._decoded[level, page] = offsets, sizes
        return offsets, sizes

    def at(self, level: int, rows: Ints, columns: Ints) -> tuple[Ints, Ints]:
        """Offsets and sizes in bytes of some tiles of a level, (n,) as given. Size 0: the file has no such tile (background)."""
        offsets, sizes = np.empty_like(rows), np.empty_like(rows)
        bounds = np.array([self._pages[level][0][0], *(end for _, end in self._pages[level])])
        if not (native and native.locate(self._data, bounds, self._shapes[level], rows, columns, offsets, sizes)):
            self._locate(level, rows, columns, offsets, sizes)
        return offsets, sizes

    def _locate(self, level: int, rows: Ints, columns: Ints, offsets: Ints, sizes: Ints) -> None:
        _, width, step = self._shapes[level]
        pages, places = rows // step, rows % step * width + columns
        order = np.argsort(pages, kind="stable")
        starts = np.flatnonzero(np.diff(pages[order], prepend=-1))
        for start, end in itertools.pairwise([*starts.tolist(), len(order)]):
            here = order[start:end]
            of_page = self._page(level, int(pages[here[0]]))
            offsets[here], sizes[here] = of_page[0][places[here]], of_page[1][places[here]]

    def tiles(self, level: int) -> tuple[Ints, Ints]:
        """Offsets and sizes in bytes of all tiles of a level, row-major, each of shape (rows * columns,)."""
        pages = [self._page(level, i) for i in range(len(self._pages[level]))]
        return np.concatenate([offsets for offsets, _ in pages]), np.concatenate([sizes for _, sizes in pages])

    @property
    def packed_mask(self) -> tuple[int, int, NDArray[np.uint8]]:
        """Foreground at 8 um/px over the whole slide: rows, columns, and bits of shape (rows, ceil(columns / 8)). Decoded each time."""
        data = self._data[self._mask_start : self._mask_start + self._mask_size]
        return self._mask_rows, self._mask_columns, _unpack_mask(data, self._mask_rows, self._mask_columns)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The same, a bool a pixel, shape (rows, columns); True is tissue."""
        _, columns, packed = self.packed_mask
        return np.unpackbits(packed, axis=1, count=columns).view(bool)
