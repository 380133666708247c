"""The values that describe slides, and what a slide offers: no input or output but the `fetch` that a catalog is given."""

import collections
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Sequence
from typing import Literal

from patho_api import pretrain
from patho_trainer import errors
from patho_trainer.data import record as records

MASK_MPP = records.MASK_MPP
RECORD_CACHE_BYTES = 256 * 2**20  # compressed records a process keeps: 18,000 slides of 7,000 tiles

Reader = Literal["tiff", "openslide"]


@dataclasses.dataclass(frozen=True, slots=True)
class Encoding:
    """How the tiles of a level are stored. Numbers are TIFF's own (tag values 259, 262, 277, 317)."""

    compression: int = 1
    photometric: int = 2
    samples: int = 3
    predictor: int = 1
    jpeg_tables: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True)
class Level:
    """One stored resolution. Sizes in pixels of this level; `downsample` is level-0 pixels a pixel; `mpp` is um a pixel."""

    width: int
    height: int
    downsample: float
    mpp: float
    tile_width: int = 0  # 0: read through OpenSlide, no tiles of its own
    tile_height: int = 0
    encoding: Encoding = Encoding()

    @property
    def columns(self) -> int:
        """Number of tiles in a row."""
        return -(-self.width // self.tile_width)

    @property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return -(-self.height // self.tile_height)


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a slide's record lies: `size` bytes from `offset` in an object of the index folder."""

    object: str
    offset: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class Accepted:
    """How many positions (corners on the mask's grid of 8 um) a patch of `size_px` at `mpp` may take. `mpp` is the wanted one."""

    mpp: float
    size_px: int
    positions: int


@dataclasses.dataclass(frozen=True, slots=True)
class Slide:
    """A row of the catalog. `id` is the manifest's, or the url. `flags` are the manifest columns that are true for this slide."""

    id: str
    url: str
    size: int = 0
    etag: str = ""
    reader: Reader = "tiff"
    mpp: float = 0.0
    levels: tuple[Level, ...] = ()
    label: str = ""
    patient: str = ""
    weight: float = 1.0
    flags: frozenset[str] = frozenset()
    accepted: tuple[Accepted, ...] = ()
    place: Place | None = None
    rejected: str = ""  # a reason in CamelCase; empty: the slide is used
    message: str = ""  # the sentence to that reason

    @property
    def width(self) -> int:
        """Level-0 width in pixels."""
        return self.levels[0].width

    @property
    def height(self) -> int:
        """Level-0 height in pixels."""
        return self.levels[0].height


@dataclasses.dataclass(frozen=True, slots=True)
class Offer:
    """How a slide serves a wanted magnification: from `level`, `ratio` source pixels a patch pixel (1.0: read as it is)."""

    wanted_mpp: float
    weight: float
    level: int
    ratio: float
    mpp: float  # the actual one, which a request carries

    def source_px(self, size_px: int) -> int:
        """Edge in pixels of `level` of the region that becomes a patch of `size_px`."""
        return max(1, round(size_px * self.ratio))


def near(a: float, b: float, tolerance: float) -> bool:
    """Whether two positive numbers are equal within a relative tolerance, symmetrically."""
    return min(a, b) >= max(a, b) * (1 - tolerance) - 1e-9


def offer(levels: Sequence[Level], wanted: pretrain.Magnification, tolerance: float) -> Offer | None:
    """The source of a magnification, or None where it would have to be upsampled.

    A level within the tolerance is read 1:1 (scanners scatter by about 2 %: 0.2525 *is* 40x). Otherwise the coarsest finer level is
    area-averaged, by an integer ratio where one is within the tolerance.
    """
    same = [i for i, level in enumerate(levels) if near(level.mpp, wanted.mpp, tolerance)]
    if same:
        best = min(same, key=lambda i: abs(levels[i].mpp - wanted.mpp))
        return Offer(wanted.mpp, wanted.weight, best, 1.0, levels[best].mpp)
    finer = [i for i, level in enumerate(levels) if level.mpp <= wanted.mpp]
    if not finer:
        return None
    source = max(finer, key=lambda i: levels[i].mpp)
    ratio = wanted.mpp / levels[source].mpp
    if near(ratio, round(ratio), tolerance):
        ratio = float(round(ratio))
    return Offer(wanted.mpp, wanted.weight, source, ratio, levels[source].mpp * ratio)


def fitting_offers(levels: Sequence[Level], patches: pretrain.Patches) -> tuple[Offer, ...]:
    """The magnifications that a pyramid has and of which at least one patch fits on the slide; weights as wanted."""
    offers = (offer(levels, wanted, patches.mpp_tolerance) for wanted in patches.magnifications)
    return tuple(o for o in offers if o and o.source_px(patches.size_px) <= min(levels[o.level].width, levels[o.level].height))


def offers(slide: Slide, patches: pretrain.Patches) -> tuple[Offer, ...]:
    """What a slide offers: magnifications that it has and of which at least one position is accepted; weights sum to 1.

    Raises InvalidConfiguration where the index has not counted positions for these patches (it was built for others).
    """
    counted = {(a.mpp, a.size_px): a.positions for a in slide.accepted}
    found = []
    for each in fitting_offers(slide.levels, patches):
        positions = counted.get((each.wanted_mpp, patches.size_px))
        if positions is None:
            raise errors.InvalidConfiguration(
                f"the slide index was not built for patches of {patches.size_px} px at {each.wanted_mpp} um/px: "
                "run `patho index` with these magnifications (a training run does it by itself)"
            )
        if positions:
            found.append(each)
    total = sum(each.weight for each in found)
    return tuple(dataclasses.replace(each, weight=each.weight / total) for each in found)


def mix(slides: Sequence[Slide], patches: pretrain.Patches) -> dict[float, float]:
    """Share of each wanted um/px among all patches, every slide weighing what its manifest says: what a model really sees."""
    shares = {wanted.mpp: 0.0 for wanted in patches.magnifications}
    for slide in slides:
        for each in offers(slide, patches):
            shares[each.wanted_mpp] += each.weight * slide.weight
    total = sum(shares.values()) or 1.0
    return {mpp: share / total for mpp, share in shares.items()}


def hash_of(slide_id: str) -> int:
    """A number in [0, 2^64) that orders slides: the same for a slide in every index, so that fractions are nested."""
    return int.from_bytes(hashlib.blake2b(slide_id.encode(), digest_size=8).digest(), "big")


Fetch = Callable[[Sequence[Place]], list[bytes]]


class Catalog:
    """The slides of one version of an index. `slides` are the accepted ones, in the order of `hash_of(id)`; immutable and thread-safe.

    `fetch` reads compressed records from the index folder, one bytes object a place; they are kept in memory up to a bound.
    """

    def __init__(self, version: str, slides: Sequence[Slide], fetch: Fetch, *, url: str = "", columns: Sequence[str] = ()) -> None:
        """`slides` holds accepted and rejected ones in any order; `columns` are the manifest's column names."""
        ordered = sorted(slides, key=lambda s: (hash_of(s.id), s.id))
        self.version = version
        self.url = url
        self.columns = tuple(columns)
        self.slides = tuple(s for s in ordered if not s.rejected)
        self.rejected = tuple(s for s in ordered if s.rejected)
        self._fetch = fetch
        self._compressed: collections.OrderedDict[int, bytes] = collections.OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of accepted slides."""
        return len(self.slides)

    def only(self, wanted: Callable[[Slide], bool]) -> "Catalog":
        """The catalog of the slides that `wanted` takes, under the same version."""
        slides = [s for s in (*self.slides, *self.rejected) if wanted(s)]
        return Catalog(self.version, slides, self._fetch, url=self.url, columns=self.columns)

    def record(self, i: int) -> records.Record:
        """Tile positions and mask of slide `i`: from memory, or read from the index (one request)."""
        return self.records([i])[0]

    def records(self, indices: Sequence[int]) -> list[records.Record]:
        """As `record`, for many slides at once: one call of `fetch` for all that are not in memory."""
        with self._lock:
            known = {i: self._compressed[i] for i in indices if i in self._compressed}
        missing = [i for i in dict.fromkeys(indices) if i not in known]
        if missing:
            known.update(zip(missing, self._fetch([_place(self.slides[i]) for i in missing]), strict=True))
            self._keep({i: known[i] for i in missing})
        return [records.Record(known[i]) for i in indices]

    def _keep(self, fresh: dict[int, bytes]) -> None:
        with self._lock:
            self._compressed.update(fresh)
            total = sum(map(len, self._compressed.values()))
            while total > RECORD_CACHE_BYTES and len(self._compressed) > 1:
                total -= len(self._compressed.popitem(last=False)[1])


def _place(slide: Slide) -> Place:
    assert slide.place is not None, f"accepted slide {slide.id} has no record"
    return slide.place
