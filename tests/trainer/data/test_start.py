"""A start costs as many requests at 30,000 slides as at 30: counted by the server that answers them."""

import dataclasses

import pytest

from patho_trainer.data import catalog, index, storage, stream, table
from tests.trainer import slides
from tests.trainer.data import sets
from tests.trainer.data.values import make_spec

SLIDES, BATCH, SPARE = 30_000, 64, 8
SLIDES_AN_OBJECT = 2_000
SPEC = make_spec(BATCH, {"sizePx": 224, "windowSteps": 16, "magnifications": [{"mpp": 0.5}]}, crops={"globalSizePx": 64, "localSizePx": 32})


def replicate(folder, url, count):
    """The index of a real slide, its record and row written again and again under other names, as `index.build` lays them out."""
    (folder / "slides.csv").write_text(f"url\n{url}\n")
    small = sets.build(SPEC, folder / "slides.csv", folder / "small")
    place = small.slides[0].place
    data = (folder / "small" / place.object).read_bytes()[place.offset : place.offset + place.size]
    rows = []
    for n in range(count):
        place = catalog.Place(f"tiles-{n // SLIDES_AN_OBJECT:05d}.bin", n % SLIDES_AN_OBJECT * len(data), len(data))
        rows.append(table.Row(dataclasses.replace(small.slides[0], id=f"slide-{n}", url=url, place=place), f"{n:016x}"))
    (folder / "index").mkdir()
    for name in {row.slide.place.object for row in rows}:
        (folder / "index" / name).write_bytes(data * SLIDES_AN_OBJECT)
    facts = {"version": "v1", "wanted": {"format": index.FORMAT}, "columns": []}
    (folder / "index" / "catalog.parquet").write_bytes(table.write(rows, facts))


@pytest.mark.slow
def test_a_start_reads_the_catalog_and_the_records_of_its_own_slots_whatever_the_number_of_slides(web):
    (web.folder / slides.CMU.name).symlink_to(slides.CMU)
    replicate(web.folder, web.url + slides.CMU.name, SLIDES)
    for rank, world_size in ((0, 1), (1, 2), (2, 4)):
        web.requests.clear()
        found = index.load(web.url + "index", bucket=storage.Bucket())
        with stream.batches(found, SPEC, seed=0, stop_step=1, rank=rank, world_size=world_size) as batches:
            first = next(batches)
        asked = sum(count for (_, name), count in web.requests.items() if name.startswith("index/"))
        print(
            f"{world_size} ranks, {len(first.slots)} slots: {asked} requests for the index, {sum(web.requests.values()) - asked} for tiles"
        )
        assert len({r.slide for r in first.requests}) == len(first.slots) == BATCH // world_size
        assert asked <= len(first.slots) + SPARE
