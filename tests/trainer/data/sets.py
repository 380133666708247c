"""Small indexed sets of slides for the stream's tests."""

import shutil

from patho_trainer.data import index
from tests.trainer import slides

SIZES = ((1024, 896), (512, 448), (256, 224))


def write_slides(folder, count):
    """Slides and their manifest, whose path is returned."""
    return write_manifest([slides.write(folder / f"slide-{i}.tif", slides.Recipe(SIZES, mpp=0.5, seed=i)) for i in range(count)])


def copy_slides(folder, target):
    """The same slides in another folder; the path of their manifest."""
    shutil.copytree(folder, target)
    return write_manifest(sorted(target.glob("*.tif")))


def write_manifest(paths):
    """The ids are the same in any folder, and with them the order of slides."""
    manifest = paths[0].parent / "slides.csv"
    manifest.write_text("id,url\n" + "".join(f"{path.stem},{path}\n" for path in paths))
    return manifest


def build(spec, source, out, bucket=None):
    return index.build([str(source)], str(out), foreground=spec.slides.foreground, patches=spec.patches, bucket=bucket)
