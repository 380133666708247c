"""Values for the sampler's tests: catalogs made by hand, specifications with defaults."""

import numpy as np

from patho_api import pretrain
from patho_trainer.data import catalog, record

MAGNIFICATIONS = (0.25, 0.5, 1.0, 2.0)


def make_spec(batch_size=8, patches=None, slides=None, **training):
    return pretrain.PretrainSpec.model_validate(
        {
            "slides": {"source": "memory", "index": "memory", **(slides or {})},
            "patches": patches or {},
            "training": {"batchSize": batch_size, **training},
            "checkpoints": {"url": "memory"},
        }
    )


def make_levels(width=8192, height=6144, mpp=0.25, factors=(1, 4, 16), tile=256):
    return tuple(catalog.Level(width // f, height // f, float(f), mpp * f, tile, tile) for f in factors)


def make_slide(name, levels=None, magnifications=MAGNIFICATIONS, size_px=256, **more):
    accepted = tuple(catalog.Accepted(mpp, size_px, 1) for mpp in magnifications)
    levels = levels or make_levels()
    place = catalog.Place(name, 0, 1)
    return catalog.Slide(id=name, url=f"/{name}.tif", mpp=levels[0].mpp, levels=levels, accepted=accepted, place=place, **more)


def make_mask(slide):
    """Tissue in the middle half of the slide, each way."""
    mask = np.zeros((round(slide.height * slide.mpp / 8), round(slide.width * slide.mpp / 8)), dtype=bool)
    rows, columns = mask.shape
    mask[rows // 4 : -(rows // 4), columns // 4 : -(columns // 4)] = True
    return mask


def make_catalog(slides, columns=(), mask=make_mask):
    """A catalog whose records hold masks only; `slides` is a number or the slides themselves."""
    slides = [make_slide(f"slide-{i}") for i in range(slides)] if isinstance(slides, int) else slides
    records = {slide.id: record.encode([], mask(slide)) for slide in slides[:64]}
    same = next(iter(records.values()))  # many equal slides share one record
    return catalog.Catalog("v1", slides, lambda places: [records.get(p.object, same) for p in places], columns=columns)
