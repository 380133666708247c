"""How much of some slides' tissue a run sees, step by step. Pure: requests and masks in, shares out."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from patho_trainer.data import catalog as catalogs
from patho_trainer.data import sampler

Mask = NDArray[np.bool_]


def wanted_mpp(request: sampler.Request, wanted: Sequence[float]) -> float:
    """The magnification that a request was drawn for: its own um/px is the slide's."""
    return min(wanted, key=lambda mpp: abs(math.log(request.mpp / mpp)))


def over_steps(
    catalog: catalogs.Catalog, steps: Iterable[Sequence[sampler.Request]], masks: Mapping[int, Mask], wanted: Sequence[float]
) -> dict[float, list[float]]:
    """For each wanted um/px, what share of the tissue was in a patch so far, of those slides in `masks` that have it; one number a step."""
    totals = {mpp: sum(int(masks[i].sum()) for i in masks if _has(catalog.slides[i], mpp)) for mpp in wanted}
    left = {mpp: {slide: mask.copy() for slide, mask in masks.items()} for mpp in wanted}
    seen = dict.fromkeys(wanted, 0)
    shares: dict[float, list[float]] = {mpp: [] for mpp in wanted}
    for requests in steps:
        for request in (r for r in requests if r.slide in masks):
            mpp = wanted_mpp(request, wanted)
            region = left[mpp][request.slide][_region(catalog.slides[request.slide], request, masks[request.slide])]
            seen[mpp] += int(region.sum())
            region[:] = False
        for mpp in wanted:
            shares[mpp].append(seen[mpp] / max(1, totals[mpp]))
    return shares


def _has(slide: catalogs.Slide, mpp: float) -> bool:
    return any(accepted.mpp == mpp and accepted.positions for accepted in slide.accepted)


def _region(slide: catalogs.Slide, request: sampler.Request, mask: Mask) -> tuple[slice, slice]:
    """The mask's pixels that a patch touches."""
    level = slide.levels[request.level]
    down, across = mask.shape[0] / level.height, mask.shape[1] / level.width
    rows = slice(int(request.y * down), math.ceil((request.y + request.source_px) * down))
    return rows, slice(int(request.x * across), math.ceil((request.x + request.source_px) * across))
