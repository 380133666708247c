"""Decoding by the native core, where it is installed: of the wanted part of JPEG tiles, not of whole tiles.

Optional. Its pixels are those of `decode.tile`, byte for byte, and what it does not paint, `decode.tile` judges. Here alone is decided
which of the two decodes.
"""

from collections.abc import Sequence
from typing import Any

from patho_trainer.data import catalog, decode, storage, tiles
from patho_trainer.data import core as loader

MOST_PX = 1 << 14  # edge of a region that the core accepts
Job = tuple[Any, ...]  # as `patho_native.paint` wants it


core = loader.native


def name() -> str:
    """Which decoder is at work, for people."""
    return "native core" if core else "Python (the native core is not installed)"


def takes(level: catalog.Level, edge: int) -> bool:
    """Whether a region of `edge` pixels of a level is for the native core."""
    return core is not None and edge <= MOST_PX and level.tile_height > 0 and level.encoding.compression == decode.JPEG


def job(level: catalog.Level, table: tiles.Ints, data: Sequence[storage.Buffer], edge: int, out: decode.Pixels) -> Job:
    """Paint `out`, uint8 (size, size, 3), from the table of tiles of a square region of `edge` pixels, which is a multiple of size."""
    encoding = level.encoding
    return out, edge, decode.jpeg_head(encoding), encoding.photometric == decode.RGB, (level.tile_width, level.tile_height), table, data


def paint(jobs: Sequence[Job]) -> tuple[list[bool], float]:
    """Which jobs were painted, and the seconds that it took, averaging included. What was not painted is for `decode.tile`."""
    return core.paint(jobs) if jobs else ([], 0.0)
