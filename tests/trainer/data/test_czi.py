"""CZI goes through OpenSlide: every pixel as it was written, one download, and a reason for what cannot be read."""

import numpy as np
import pytest

from patho_api import pretrain
from patho_trainer.data import index, slide, stream
from tests.trainer import czi, slides
from tests.trainer.data.values import make_spec

RECIPE = slides.Recipe(sizes=((640, 512),), mpp=0.5)


@pytest.fixture(scope="module")
def picture():
    return slides.picture(RECIPE)


@pytest.mark.slow
@pytest.mark.parametrize("compression", ["zstd1:", "uncompressed:"])
def test_a_czi_slide_is_read_as_it_was_written(picture, tmp_path, compression):
    opened = slide.open(str(czi.write(tmp_path / "a.czi", picture, RECIPE.mpp, compression)))
    assert (opened.facts.reader, opened.dimensions, opened.mpp) == ("openslide", (640, 512), pytest.approx(0.5))
    random = np.random.default_rng(0)
    for _ in range(1000):
        width, height = random.integers(1, 200, 2)
        x, y = random.integers(0, 640 - width + 1), random.integers(0, 512 - height + 1)
        np.testing.assert_array_equal(opened.read_level(0, x, y, width, height), picture[y : y + height, x : x + width])


@pytest.mark.slow
def test_czi_slides_of_a_bucket_are_indexed_fetched_once_and_streamed(picture, tmp_path, web):
    czi.write(web.folder / "a.czi", picture, RECIPE.mpp)
    (web.folder / "broken.czi").write_bytes((web.folder / "a.czi").read_bytes()[:100_000])
    manifest = tmp_path / "slides.csv"
    manifest.write_text(f"id,url\na,{web.url}a.czi\nbroken,{web.url}broken.czi\n")
    spec = make_spec(4, {"sizePx": 96, "magnifications": [{"mpp": 0.5}]}, crops={"globalSizePx": 64, "localSizePx": 32})
    built = index.build([str(manifest)], str(tmp_path / "index"), patches=spec.patches, foreground=pretrain.Foreground())
    assert [(each.id, each.rejected) for each in built.rejected] == [("broken", "Unreadable")]
    web.requests.clear()
    with stream.batches(built, spec, seed=0, stop_step=3, threads=2) as batches:
        found = [(r, image) for batch in batches for r, image in zip(batch.requests, batch.images.numpy(), strict=True)]
    assert web.requests["GET", "a.czi"] == 1
    for r, image in found:
        np.testing.assert_array_equal(image, picture[r.y : r.y + 96, r.x : r.x + 96])
