"""What slides offer to the sampler: their magnifications and the places of a patch, read from the index and kept while they are used."""

import bisect
import collections
import dataclasses
import itertools
import threading
from collections.abc import Iterable

from patho_api import pretrain
from patho_trainer.data import catalog as catalogs
from patho_trainer.data import places
from patho_trainer.data import record as records

CACHE_BYTES = 256 * 2**20  # about 256 slides of 20 x 20 mm at all four magnifications; the engine needs a slide once a window


@dataclasses.dataclass(frozen=True)
class Field:
    """One slide: its tissue, and for each magnification the offer, its cumulated weight (the last is 1) and the places of a patch."""

    tissue: places.Tissue
    offers: tuple[catalogs.Offer, ...]
    cumulated: tuple[float, ...]
    where: tuple[places.Places, ...]

    @property
    def bytes(self) -> int:
        """Memory that it takes."""
        return self.tissue.packed.nbytes + sum(p.accepted.nbytes for p in self.where)

    def choose(self, wanted: float) -> tuple[catalogs.Offer, places.Places]:
        """The magnification for a number in [0, 1)."""
        k = min(bisect.bisect_right(self.cumulated, wanted), len(self.offers) - 1)
        return self.offers[k], self.where[k]


class Fields:
    """A bounded cache of fields. Thread-safe."""

    def __init__(self, catalog: catalogs.Catalog, patches: pretrain.Patches, min_coverage: float) -> None:
        self._catalog = catalog
        self._patches = patches
        self._min_coverage = min_coverage
        self._kept: collections.OrderedDict[int, Field] = collections.OrderedDict()
        self._lock = threading.Lock()

    def of(self, slides: Iterable[int]) -> dict[int, Field]:
        """The fields of some slides; the records of all that are not in memory are read in one go."""
        wanted = dict.fromkeys(slides)
        with self._lock:
            found = {i: self._kept[i] for i in wanted if i in self._kept}
            for i in found:
                self._kept.move_to_end(i)
        missing = [i for i in wanted if i not in found]
        fresh = {i: self._make(i, record) for i, record in zip(missing, self._catalog.records(missing), strict=True)}
        self._keep(fresh)
        return found | fresh

    def _make(self, slide: int, record: records.Record) -> Field:
        levels = self._catalog.slides[slide].levels
        found = offers(self._catalog.slides[slide], self._patches)
        tissue = places.Tissue(*record.packed_mask)
        shares = places.shares(tissue)
        free = self._patches.coordinates == "Free"
        edges = [o.source_px(self._patches.size_px) for o in found]
        where = (
            places.places(tissue, shares, levels[o.level], edge, self._min_coverage, free=free)
            for o, edge in zip(found, edges, strict=True)
        )
        return Field(tissue, found, tuple(itertools.accumulate(o.weight for o in found)), tuple(where))

    def _keep(self, fresh: dict[int, Field]) -> None:
        if not fresh:
            return
        with self._lock:
            self._kept.update(fresh)
            total = sum(field.bytes for field in self._kept.values())
            while total > CACHE_BYTES:
                total -= self._kept.popitem(last=False)[1].bytes


def offers(slide: catalogs.Slide, patches: pretrain.Patches) -> tuple[catalogs.Offer, ...]:
    """The magnifications that a slide can serve, weights summing to 1. Grid takes stored tiles as they are: native levels only."""
    found = catalogs.offers(slide, patches)
    if patches.coordinates == "Free":
        return found
    native = [o for o in found if o.ratio == 1.0]
    total = sum(o.weight for o in native)
    return tuple(dataclasses.replace(o, weight=o.weight / total) for o in native)
