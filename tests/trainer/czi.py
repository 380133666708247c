"""A CZI slide in miniature: written by Zeiss's own library, which has pins of its own and so runs in a process of its own (tests/aside).

What a scanner's file has and this writer leaves out is added: OpenSlide wants a directory of attachments, and knows no depth or time.
"""

import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.aside import place

TILE = 256
WRITE = """
import sys, numpy as np
from pylibCZIrw import czi
pixels, tile = np.load(sys.argv[1])[..., ::-1], int(sys.argv[4])
with czi.create_czi(sys.argv[2], exist_ok=True, compression_options=sys.argv[3]) as file:
    for y in range(0, len(pixels), tile):
        for x in range(0, pixels.shape[1], tile):
            file.write(np.ascontiguousarray(pixels[y : y + tile, x : x + tile]), plane={"C": 0}, location=(x, y), scene=0)
    file.write_metadata("slide", scale_x=float(sys.argv[5]) * 1e-6, scale_y=float(sys.argv[5]) * 1e-6)
"""
ATTACHMENTS_AT = 104  # offset of the directory's offset in the file's header


def write(path: pathlib.Path, pixels: NDArray[np.uint8], mpp: float, compression: str = "zstd1:") -> pathlib.Path:
    """One level of lossless tiles; skips the test where the library is not installed."""
    if not place.folder(place.OTHERS).exists():
        pytest.skip(f"pylibCZIrw is not installed: {place.HINT}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        np.save(f"{scratch}/pixels.npy", pixels)
        command = [sys.executable, "-W", "ignore", "-c", WRITE, f"{scratch}/pixels.npy", path, compression, str(TILE), str(mpp)]
        subprocess.run(command, env=place.environment(place.OTHERS), check=True)
    path.write_bytes(_as_a_scanner_does(path.read_bytes()))
    return path


def _as_a_scanner_does(data: bytes) -> bytes:
    """Depth and time are written as another channel 0, and no attachment is listed at the end."""
    for name in (b"Z", b"T"):
        data = data.replace(name.ljust(4, b"\0") + struct.pack("<ii", 0, 1), b"C".ljust(4, b"\0") + struct.pack("<ii", 0, 1))
    end = b"ZISRAWATTDIR".ljust(16, b"\0") + struct.pack("<qqi", 256, 256, 0) + bytes(252)
    return data[:ATTACHMENTS_AT] + struct.pack("<q", len(data)) + data[ATTACHMENTS_AT + 8 :] + end
