"""Slides as vendors write them, in miniature: shared JPEG tables, OME-XML, Philips' padding and sparse tiles, Ventana's overlaps."""

import pathlib
from collections.abc import Iterator

import imagecodecs
import numpy as np
import tifffile

from tests.trainer import slides
from tests.trainer.slides import Pixels, Recipe

QUALITY = 80
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
TABLES = (0xDB, 0xC4)  # markers of the segments that JPEGTables holds: quantisation, Huffman
JFIF = 0xE0


def tiles(pixels: Pixels, edge: int) -> Iterator[Pixels]:
    """Row by row, each (edge, edge, 3): what is beyond the picture repeats its last pixel, as libtiff's writers do."""
    height, width = pixels.shape[:2]
    padded = np.pad(pixels, ((0, -height % edge), (0, -width % edge), (0, 0)), "edge")
    for y in range(0, padded.shape[0], edge):
        for x in range(0, padded.shape[1], edge):
            yield np.ascontiguousarray(padded[y : y + edge, x : x + edge])


def segments(jpeg: bytes) -> Iterator[tuple[int, bytes]]:
    """(marker, segment with its marker) up to the scan, whose data is part of the last one."""
    at = 2
    while jpeg[at + 1] != 0xDA:
        size = int.from_bytes(jpeg[at + 2 : at + 4], "big") + 2
        yield jpeg[at + 1], jpeg[at : at + size]
        at += size
    yield 0xDA, jpeg[at:]


def jpeg_tile(pixels: Pixels, stored: str, subsampling: str = "420") -> bytes:
    """A whole JPEG stream; `stored` as RGB or YCbCr."""
    colour = {"outcolorspace": "rgb", "subsampling": "444"} if stored == "rgb" else {"subsampling": subsampling}
    return bytes(imagecodecs.jpeg8_encode(pixels, level=QUALITY, colorspace="rgb", **colour))


def abbreviated(jpeg: bytes) -> tuple[bytes, bytes]:
    """(tables, tile without them), as TIFF's JPEGTables wants it."""
    found = list(segments(jpeg))
    tables = b"".join(part for marker, part in found if marker in TABLES)
    rest = b"".join(part for marker, part in found if marker not in TABLES and marker != JFIF)
    return SOI + tables + EOI, SOI + rest


def write_jpeg(path: pathlib.Path, recipe: Recipe, subsampling: str = "420", *, shared: bool) -> pathlib.Path:
    """A pyramid whose JPEG tiles carry their tables, or share them in JPEGTables (`shared`), as Aperio's do."""
    rgb = recipe.stored == "rgb"
    with tifffile.TiffWriter(path, bigtiff=recipe.bigtiff) as writer:
        for number, pixels in enumerate(slides.pyramid(recipe)):
            encoded = [jpeg_tile(tile, recipe.stored, subsampling) for tile in tiles(pixels, recipe.tile)]
            options = slides.options(recipe, number)
            options |= {"photometric": "rgb" if rgb else "ycbcr", "jpegtables": abbreviated(encoded[0])[0] if shared else None}
            if not rgb:
                options["subsampling"] = (int(subsampling[0]) // int(subsampling[1]), 1 if subsampling != "420" else 2)
            data = [abbreviated(each)[1] for each in encoded] if shared else encoded
            writer.write(iter(data), shape=pixels.shape, dtype=np.uint8, **options)
    return path


def write_ome(path: pathlib.Path, recipe: Recipe) -> pathlib.Path:
    """OME-TIFF: one series whose smaller levels are sub-directories; resolution in the XML only."""
    first, *rest = slides.pyramid(recipe)
    options = {
        k: v for k, v in slides.options(recipe, 0).items() if k in ("tile", "photometric", "compression", "predictor", "compressionargs")
    }
    metadata = {
        "axes": "YXS",
        "PhysicalSizeX": recipe.mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": recipe.mpp,
        "PhysicalSizeYUnit": "µm",
    }
    with tifffile.TiffWriter(path, bigtiff=recipe.bigtiff, ome=True) as writer:
        writer.write(first, subifds=len(rest), metadata=metadata, **options)
        for pixels in rest:
            writer.write(pixels, subfiletype=1, **options)
    return path


def philips_xml(mpps: list[float]) -> str:
    """What a Philips scanner says: um/px of each level, as mm."""
    levels = "".join(
        f'<DataObject ObjectType="PixelDataRepresentation"><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030"'
        f' PMSVR="IDoubleArray">"{mpp / 1e3:.9f}" "{mpp / 1e3:.9f}"</Attribute></DataObject>'
        for mpp in mpps
    )
    return (
        '<?xml version="1.0" encoding="UTF-8" ?><DataObject ObjectType="DPUfsImport">'
        '<Attribute Name="PIM_DP_SCANNED_IMAGES" Group="0x301D" Element="0x1003" PMSVR="IDataObjectArray"><Array>'
        '<DataObject ObjectType="DPScannedImage"><Attribute Name="PIM_DP_IMAGE_TYPE" Group="0x301D" Element="0x1004" PMSVR="IString">WSI'
        '</Attribute><Attribute Name="PIIM_PIXEL_DATA_REPRESENTATION_SEQUENCE" Group="0x1001" Element="0x8B01" PMSVR="IDataObjectArray">'
        f'<Array>{levels}</Array></Attribute><Attribute Name="DICOM_PIXEL_SPACING" Group="0x0028" Element="0x0030" PMSVR="IDoubleArray">'
        f'"{mpps[0] / 1e3:.9f}" "{mpps[0] / 1e3:.9f}"</Attribute></DataObject></Array></Attribute></DataObject>'
    )


def write_philips(path: pathlib.Path, recipe: Recipe, glass: float = 240.0) -> pathlib.Path:
    """Levels padded to whole tiles, and no tile at all where the picture is brighter than `glass` on average."""
    factors = [round(recipe.sizes[0][0] / size[0]) for size in recipe.sizes]
    with tifffile.TiffWriter(path, bigtiff=recipe.bigtiff) as writer:
        for number, pixels in enumerate(slides.pyramid(recipe)):
            encoded = [b"" if tile.mean() > glass else jpeg_tile(tile, "ycbcr") for tile in tiles(pixels, recipe.tile)]
            full = [-(-edge // recipe.tile) * recipe.tile for edge in pixels.shape[:2]]
            writer.write(
                iter(encoded),
                shape=(*full, 3),
                dtype=np.uint8,
                tile=(recipe.tile, recipe.tile),
                photometric="ycbcr",
                subsampling=(2, 2),
                compression="jpeg",
                subfiletype=1 if number else 0,
                description=philips_xml([recipe.mpp * f for f in factors]) if number == 0 else f"level={number}",
                software="Philips DP v1.0",
                metadata=None,
            )
    return path


def ventana_joints(columns: int, rows: int, edge: int, overlap: int) -> str:
    """How the tiles of one area of a Ventana slide overlap: rows are counted from below, every second one from the right."""

    def number(column: int, row: int) -> int:
        from_below = rows - 1 - row
        return from_below * columns + (column if from_below % 2 == 0 else columns - 1 - column) + 1

    right = [(number(c, r), number(c + 1, r), "RIGHT", overlap, 0) for r in range(rows) for c in range(columns - 1)]
    up = [(number(c, r), number(c, r - 1), "UP", 0, overlap) for r in range(1, rows) for c in range(columns)]
    joints = "".join(
        f'<TileJointInfo FlagJoined="1" Confidence="100" Direction="{way}" Tile1="{a}" Tile2="{b}" OverlapX="{x}" OverlapY="{y}"/>'
        for a, b, way, x, y in right + up
    )
    return (
        f'<EncodeInfo Ver="2"><SlideStitchInfo><ImageInfo AOIScanned="1" AOIIndex="0" NumRows="{rows}" NumCols="{columns}" Pos-X="0" '
        f'Pos-Y="0" Width="{edge}" Height="{edge}">{joints}</ImageInfo></SlideStitchInfo>'
        '<AoiOrigin><AOI0 OriginX="0" OriginY="0"/></AoiOrigin></EncodeInfo>'
    )


def write_ventana(path: pathlib.Path, recipe: Recipe, overlap: int, software: str = "ScanOutputManager 1.1.0.15854") -> pathlib.Path:
    """One area of overlapping tiles; the first directory is the label, and carries what the scanner says."""
    edge = recipe.tile
    columns, rows = (size // edge for size in recipe.sizes[0])
    iscan = f'<iScan Magnification="40" ScanRes="{recipe.mpp}" ScannerModel="VENTANA iScan HT"/>'.encode()
    joints = ventana_joints(columns, rows, edge, overlap).encode()
    with tifffile.TiffWriter(path, bigtiff=True) as writer:
        label = np.full((64, 64, 3), 200, np.uint8)
        xmp = (700, "B", len(iscan), iscan, True)
        writer.write(label, photometric="rgb", description="Label Image", software=software, extratags=[xmp], metadata=None)
        for number, pixels in enumerate(slides.pyramid(recipe)):
            writer.write(
                pixels,
                tile=(edge, edge),
                photometric="rgb",
                compression="deflate",
                subfiletype=1 if number else 0,
                description=f"level={number} mag={40 / 2**number:g} quality=90",
                extratags=[(700, "B", len(joints), joints, True)] if number == 0 else (),
                metadata=None,
                software=software,
            )
    return path


def cut(stored: Pixels, x: int, y: int, width: int, height: int) -> Pixels:
    """A region of a level that was decoded whole; white where there is none."""
    out = np.full((height, width, 3), 255, np.uint8)
    rows, columns = stored.shape[:2]
    top, bottom, left, right = max(0, y), min(rows, y + height), max(0, x), min(columns, x + width)
    if top < bottom and left < right:
        out[top - y : bottom - y, left - x : right - x] = stored[top:bottom, left:right]
    return out
