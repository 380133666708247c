"""A DICOM slide in miniature: one file a level (VL Whole Slide Microscopy), written by hand in explicit little endian."""

import pathlib
import struct

import numpy as np

from tests.trainer import formats, slides
from tests.trainer.slides import Recipe

WSI = "1.2.840.10008.5.1.4.1.1.77.1.6"
JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
ROOT = "1.2.826.0.1.3680043.10.1"  # of made-up identifiers
LONG = ("OB", "OW", "SQ", "UN", "UT")  # representations whose length takes four bytes
ITEM, END = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0\0\0\0\0"


def element(tag: int, kind: str, value: bytes | str | int | list[bytes]) -> bytes:
    """One attribute; a list is a sequence of items."""
    if isinstance(value, int):
        value = struct.pack({"US": "<H", "UL": "<I"}[kind], value)
    elif isinstance(value, str):
        value = value.encode()
    elif isinstance(value, list):
        value = b"".join(ITEM + struct.pack("<I", len(item)) + item for item in value)
    value += (b"\0" if kind in ("UI", "OB") else b" ") * (len(value) % 2)
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + kind.encode()
    return head + (struct.pack("<HI", 0, len(value)) if kind in LONG else struct.pack("<H", len(value))) + value


def pixels(frames: list[bytes]) -> bytes:
    """Encapsulated frames, after an empty table of their offsets."""
    items = [b"", *(frame + b"\0" * (len(frame) % 2) for frame in frames)]
    body = b"".join(ITEM + struct.pack("<I", len(item)) + item for item in items)
    return struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OB", 0, 0xFFFFFFFF) + body + END


def level(picture: np.ndarray, mpp: float, tile: int, number: int) -> bytes:
    """A whole file."""
    height, width = picture.shape[:2]
    frames = [formats.jpeg_tile(each, "ycbcr", "422") for each in formats.tiles(picture, tile)]
    meta = b"".join(
        [
            element(0x00020001, "OB", b"\0\1"),
            element(0x00020002, "UI", WSI),
            element(0x00020003, "UI", f"{ROOT}.{number + 1}"),
            element(0x00020010, "UI", JPEG_BASELINE),
            element(0x00020012, "UI", ROOT),
        ]
    )
    measures = element(0x00280030, "DS", f"{mpp / 1e3:.9f}\\{mpp / 1e3:.9f}")
    data = [
        element(0x00080008, "CS", "ORIGINAL\\PRIMARY\\VOLUME\\NONE" if number == 0 else "DERIVED\\PRIMARY\\VOLUME\\RESAMPLED"),
        element(0x00080016, "UI", WSI),
        element(0x00080018, "UI", f"{ROOT}.{number + 1}"),
        element(0x0020000D, "UI", f"{ROOT}.90"),
        element(0x0020000E, "UI", f"{ROOT}.91"),
        element(0x00209311, "CS", "TILED_FULL"),
        element(0x00280002, "US", 3),
        element(0x00280004, "CS", "YBR_FULL_422"),
        element(0x00280006, "US", 0),
        element(0x00280008, "IS", str(len(frames))),
        element(0x00280010, "US", tile),
        element(0x00280011, "US", tile),
        element(0x00280100, "US", 8),
        element(0x00280101, "US", 8),
        element(0x00280102, "US", 7),
        element(0x00280103, "US", 0),
        element(0x00480006, "UL", width),
        element(0x00480007, "UL", height),
        element(0x00480303, "UL", 1),
        element(0x52009229, "SQ", [element(0x00289110, "SQ", [measures])]),
        pixels(frames),
    ]
    return b"\0" * 128 + b"DICM" + element(0x00020000, "UL", len(meta)) + meta + b"".join(data)


def write(folder: pathlib.Path, recipe: Recipe) -> pathlib.Path:
    """A folder of one file a level; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(slides.pyramid(recipe)):
        mpp = recipe.mpp * recipe.sizes[0][0] / recipe.sizes[number][0]
        (folder / f"level-{number}.dcm").write_bytes(level(picture, mpp, recipe.tile, number))
    return folder / "level-0.dcm"
