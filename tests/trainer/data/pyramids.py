"""Small slides for the stream's tests: pink tissue with structure on white glass, JPEG tiles, three levels."""

import cv2
import numpy as np
import tifffile
from patho_api import pretrain
from patho_trainer.data import index, storage

TILE_PX = 128


def picture(seed, width, height):
    """uint8 RGB: noise of several sizes, stained, on a glass margin of an eighth."""
    rng = np.random.default_rng(seed)
    noise = sum(cv2.resize(rng.random((height // n, width // n), np.float32), (width, height)) for n in (2, 16, 64)) / 3
    rgb = np.stack([255 - 60 * noise, 225 - 190 * noise, 250 - 90 * noise], axis=-1).astype(np.uint8)
    margin_y, margin_x = height // 8, width // 8
    tissue = np.full_like(rgb, 244)
    tissue[margin_y:-margin_y, margin_x:-margin_x] = rgb[margin_y:-margin_y, margin_x:-margin_x]
    return tissue


def write_slide(path, seed=0, width=1024, height=896, mpp=0.5, levels=3):
    """A tiled JPEG pyramid with factors 1, 2, 4, and the resolution as Aperio writes it."""
    image = picture(seed, width, height)
    options = {"tile": (TILE_PX, TILE_PX), "compression": "jpeg", "photometric": "rgb"}
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            text = f"Aperio Image Library\n|AppMag = 20|MPP = {mpp}" if level == 0 else None
            tiff.write(image, description=text, metadata=None, subfiletype=int(level > 0), **options)
            image = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def write_slides(folder, count):
    """Slides and their manifest, whose path is returned. The ids are the same in any folder, and with them the order of slides."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"slide-{i}.svs" for i in range(count)]
    for seed, path in enumerate(paths):
        write_slide(path, seed)
    manifest = folder / "slides.csv"
    manifest.write_text("id,url\n" + "".join(f"{path.stem},{path}\n" for path in paths))
    return manifest


def build(spec, source, out, bucket=None):
    bucket = bucket or storage.Bucket()
    patches: pretrain.Patches = spec.patches
    return index.build([str(source)], str(out), foreground=spec.slides.foreground, patches=patches, bucket=bucket)
