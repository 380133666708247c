"""A MIRAX slide in miniature, written by hand: slide.mrxs, and beside it a folder with Slidedat.ini, Index.dat and two data files.

Images are PNG, so that every pixel comes back. Images of a level are numbered as those of level 0 at their upper left corner.
"""

import pathlib
import struct

import imagecodecs
import numpy as np

from tests.trainer import slides

ID = "0123456789ABCDEF0123456789ABCDEF"
DATA = ("Data0000.dat", "Data0001.dat")  # images lie in them in turn


def write(path: pathlib.Path, recipe: slides.Recipe) -> pathlib.Path:
    """Levels are halves of each other; the size of level 0 is whole tiles."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    columns, rows = (edge // recipe.tile for edge in recipe.sizes[0])
    files = [bytearray(b"data"), bytearray(b"data")]
    pages = [_images(files, picture, recipe.tile, columns, 2**level) for level, picture in enumerate(slides.pyramid(recipe))]
    for name, data in zip(DATA, files, strict=True):
        (folder / name).write_bytes(data)
    (folder / "Index.dat").write_bytes(_index(pages))
    (folder / "Slidedat.ini").write_text(_settings(recipe, columns, rows))
    path.write_bytes(b"a picture of the glass")
    return path


def _images(files: list[bytearray], picture: slides.Pixels, tile: int, columns: int, concatenated: int) -> list[tuple[int, ...]]:
    """Append a level's images; (number, offset, size, file) of each."""
    found: list[tuple[int, ...]] = []
    below, right = (-edge % tile for edge in picture.shape[:2])
    picture = np.pad(picture, ((0, below), (0, right), (0, 0)), mode="edge")
    for y in range(0, picture.shape[0], tile):
        for x in range(0, picture.shape[1], tile):
            data = imagecodecs.png_encode(picture[y : y + tile, x : x + tile].copy())
            file = len(found) % len(files)
            found.append(((y // tile * columns + x // tile) * concatenated, len(files[file]), len(data), file))
            files[file] += data
    return found


def _index(pages: list[list[tuple[int, ...]]]) -> bytes:
    """Version, id, where the levels' table is; the table; for each level a page behind a pointer."""
    data = b"01.02" + ID.encode()
    table = len(data) + 8
    data += struct.pack("<ii", table, 0) + bytes(4 * len(pages))
    for level, page in enumerate(pages):
        start = len(data)
        data = data[: table + 4 * level] + struct.pack("<i", start) + data[table + 4 * level + 4 :]
        data += struct.pack("<iiii", 0, start + 8, len(page), 0) + b"".join(struct.pack("<iiii", *each) for each in page)
    return data


def _settings(recipe: slides.Recipe, columns: int, rows: int) -> str:
    levels = range(len(recipe.sizes))
    general = {"SLIDE_VERSION": "01.02", "SLIDE_ID": ID, "IMAGENUMBER_X": columns, "IMAGENUMBER_Y": rows, "OBJECTIVE_MAGNIFICATION": 20}
    hierarchy = {
        "HIER_COUNT": 1,
        "NONHIER_COUNT": 0,
        "INDEXFILE": "Index.dat",
        "HIER_0_NAME": "Slide zoom level",
        "HIER_0_COUNT": len(levels),
    }
    hierarchy |= {f"HIER_0_VAL_{level}_SECTION": f"LEVEL_{level}" for level in levels}
    sections = {"GENERAL": general, "HIERARCHICAL": hierarchy, "DATAFILE": {"FILE_COUNT": 2, "FILE_0": DATA[0], "FILE_1": DATA[1]}}
    for level in levels:
        sections[f"LEVEL_{level}"] = {
            "OVERLAP_X": 0,
            "OVERLAP_Y": 0,
            "MICROMETER_PER_PIXEL_X": recipe.mpp * 2**level,
            "MICROMETER_PER_PIXEL_Y": recipe.mpp * 2**level,
            "IMAGE_FORMAT": "PNG",
            "IMAGE_FILL_COLOR_BGR": 0xFFFFFF,
            "DIGITIZER_WIDTH": recipe.tile,
            "DIGITIZER_HEIGHT": recipe.tile,
            "IMAGE_CONCAT_FACTOR": int(level > 0),  # halved that often since the level before
        }
    return "\n".join(f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items()) for name, keys in sections.items())
