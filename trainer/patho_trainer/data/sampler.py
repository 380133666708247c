"""Which patches a step is made of: a pure function of (catalog, specification, seed, step).

There is no state but the step. The same patches come in the same order on 1, 2 or 16 processes, and resuming is asking for the next
step. How slides follow each other is in `order`, where a patch may lie is in `places`, the random numbers are in `draws`.
"""

import functools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from patho_api import pretrain
from patho_trainer import config, errors
from patho_trainer.data import catalog as catalogs
from patho_trainer.data import draws, fields, order, places

MAX_REPLACEMENTS = 8
MAX_REDRAWS = 8

Ints = NDArray[np.int64]


class Request(NamedTuple):
    """One patch of a step: a square region of a stored level that becomes `size_px` pixels at `mpp`.

    `slot` is its place in the global batch, `slide` an index into `catalog.slides`, `mpp` the actual um/px, (`x`, `y`) the corner in
    pixels of `level`, `source_px` the edge there, `xy_level0` the corner in level-0 pixels, `attempt` r > 0 the r-th replacement,
    `redraw` k > 0 the k-th other place on the same slide (`hsvFilter`).
    """

    step: int
    slot: int
    slide: int
    mpp: float
    level: int
    x: int
    y: int
    source_px: int
    size_px: int
    xy_level0: tuple[int, int]
    attempt: int = 0
    redraw: int = 0


def requests(catalog: catalogs.Catalog, spec: pretrain.PretrainSpec, seed: int, step: int) -> list[Request]:
    """The whole global batch of a step, by slot. Reads the index records of slides that it has not seen."""
    return plan(catalog, spec, seed).requests(step)


def replacement(catalog: catalogs.Catalog, spec: pretrain.PretrainSpec, seed: int, request: Request) -> Request | None:
    """What takes the place of a request that cannot be read; None after MAX_REPLACEMENTS."""
    return plan(catalog, spec, seed).replacement(request)


def loss_groups(spec: pretrain.PretrainSpec) -> int:
    """Number n of loss groups: group g is the slots i with i mod n = g."""
    return config.resolved(spec).loss_groups


def rank_slots(batch_size: int, loss_groups: int, rank: int, world_size: int) -> tuple[int, ...]:
    """The slots of a rank: whole loss groups, dealt out in turn. Raises InvalidConfiguration for more ranks than groups."""
    if world_size > loss_groups:
        raise errors.InvalidConfiguration(
            f"spec.training: {world_size} processes share {loss_groups} loss groups, and a process takes whole groups: "
            "lower compute.nodes or processesPerNode, or lower lossGroupSize"
        )
    return tuple(slot for slot in range(batch_size) if slot % loss_groups % world_size == rank)


def chosen(catalog: catalogs.Catalog, spec: pretrain.PretrainSpec) -> tuple[int, ...]:
    """Indices of the slides to use: the fraction of lowest hash, less those excluded or without a wanted magnification.

    Raises DataNotFound where nothing is left, InvalidConfiguration where the manifest has no such column.
    """
    column = spec.slides.exclude_column
    if column and column not in catalog.columns:
        raise errors.InvalidConfiguration(
            f"spec.slides.excludeColumn {column!r}: the manifest has no such column, only {', '.join(catalog.columns) or 'urls'}"
        )
    kept = [i for i, slide in enumerate(catalog.slides) if column not in slide.flags and fields.offers(slide, spec.patches)]
    if not kept:
        example = "".join(f", such as {slide.url}: {slide.message}" for slide in catalog.rejected[:1])
        raise errors.DataNotFound(
            f"spec.slides: none of the {len(catalog.slides) + len(catalog.rejected)} slides of the index can be used (unreadable, no "
            f"tissue, no wanted magnification, or excluded){example}; `patho index` says why for each"
        )
    return tuple(kept[: math.ceil(spec.slides.fraction * len(kept) - 1e-9)])


def plan(catalog: catalogs.Catalog, spec: pretrain.PretrainSpec, seed: int) -> "Plan":
    """The plan of a run; the last few are kept, so that asking again is cheap."""
    return _plan(catalog, spec.model_dump_json(include={"slides", "patches", "training", "checkpoints"}), seed)


@functools.lru_cache(maxsize=4)
def _plan(catalog: catalogs.Catalog, spec: str, seed: int) -> "Plan":
    return Plan(catalog, pretrain.PretrainSpec.model_validate_json(spec), seed)


class Key(NamedTuple):
    """What a request is drawn for; arrays of shape (n,)."""

    steps: Ints
    slots: Ints
    attempts: Ints
    redraws: Ints


class Uniforms(NamedTuple):
    """The random numbers of n requests: magnification (n,), and those of their places."""

    magnification: draws.Uniforms
    places: places.Chances


class Plan:
    """The sampler of one run. Thread-safe; what it keeps are caches."""

    def __init__(self, catalog: catalogs.Catalog, spec: pretrain.PretrainSpec, seed: int) -> None:
        """Raises as `chosen`."""
        self.catalog = catalog
        self.slides = chosen(catalog, spec)
        self.patches = spec.patches
        self.batch_size = spec.training.batch_size
        self._min_coverage = spec.slides.foreground.min_coverage
        self._seed = seed
        self._tries = places.TRIES if self.patches.coordinates == "Free" else 1  # every cell of a grid is good
        self._order = order.order([catalog.slides[i].weight for i in self.slides], self.batch_size, seed)
        self._indices = np.array(self.slides)
        hashes = [catalogs.hash_of(catalog.slides[i].id) for i in self.slides]
        self._hashes = np.array([[h & 0xFFFFFFFF for h in hashes], [h >> 32 for h in hashes]], dtype=np.int64)
        self._fields = fields.Fields(catalog, self.patches, self._min_coverage)

    def requests(self, step: int) -> list[Request]:
        """The whole global batch of a step, by slot."""
        return self.draw(step, np.arange(self.batch_size))

    def steps_left(self, step: ArrayLike, slots: ArrayLike) -> Ints:
        """For how many steps, this one included, each slot stays with its slide; `step` may be one for each slot."""
        window = self.patches.window_steps
        return window - order.window_position(np.asarray(step), np.asarray(slots, dtype=np.int64), self.batch_size, window)

    def replacement(self, request: Request) -> Request | None:
        """What takes the place of a request that cannot be read; None after MAX_REPLACEMENTS."""
        if request.attempt >= MAX_REPLACEMENTS:
            return None
        return self.draw(request.step, [request.slot], request.attempt + 1)[0]

    def redraw(self, request: Request) -> Request | None:
        """Another place on the same slide at the same magnification; None after MAX_REDRAWS."""
        if request.redraw >= MAX_REDRAWS:
            return None
        return self.draw(request.step, [request.slot], request.attempt, request.redraw + 1)[0]

    def draw(self, steps: ArrayLike, slots: ArrayLike, attempts: ArrayLike = 0, redraws: ArrayLike = 0) -> list[Request]:
        """The requests at pairs (step, slot); the arrays broadcast to shape (n,)."""
        key = Key(*(np.asarray(a, dtype=np.int64) for a in np.broadcast_arrays(steps, slots, attempts, redraws)))
        visits = order.visits(key.steps, key.slots, self.batch_size, self.patches.window_steps)
        chosen, rounds = self._order.at(visits, key.attempts)
        numbers = self._uniforms(key, chosen, rounds)
        slides = self._indices[chosen].tolist()
        found = self._fields.of(slides)
        offers, where = zip(*(found[i].choose(u) for i, u in zip(slides, numbers.magnification.tolist(), strict=True)), strict=True)
        x, y = places.draw(where, [found[i].tissue for i in slides], self._min_coverage, numbers.places)
        scales = np.array([self.catalog.slides[i].levels[offer.level].downsample for i, offer in zip(slides, offers, strict=True)])
        columns = (
            *(key.steps.tolist(), key.slots.tolist(), slides, [offer.mpp for offer in offers], [offer.level for offer in offers]),
            *(x.tolist(), y.tolist(), [each.source_px for each in where], [self.patches.size_px] * len(slides)),
            zip(np.rint(x * scales).astype(np.int64).tolist(), np.rint(y * scales).astype(np.int64).tolist(), strict=True),
            *(key.attempts.tolist(), key.redraws.tolist()),
        )
        return [Request(*row) for row in zip(*columns, strict=True)]  # by position: it is made for every patch

    def _uniforms(self, key: Key, chosen: Ints, rounds: Ints) -> Uniforms:
        """Keyed by (seed, step, slot, attempt), with perSlide by (seed, slide, j mod n) for a slide's j-th patch; places by redraw."""
        a, b, c, use = key.steps, key.slots, key.attempts, 0
        if self.patches.per_slide:
            window = self.patches.window_steps
            nth = rounds * window + order.window_position(key.steps, key.slots, self.batch_size, window)
            (a, b), c, use = self._hashes[:, chosen], nth % self.patches.per_slide, draws.PER_SLIDE
        tries = a[:, None], b[:, None], c[:, None] * places.TRIES + np.arange(self._tries)
        magnification, _ = draws.uniforms(self._seed, draws.MAGNIFICATION + use, a, b, c)
        again = use + key.redraws[:, None] * draws.REDRAW
        cell, _ = draws.uniforms(self._seed, draws.CELL + again, *tries)
        return Uniforms(magnification, places.Chances(cell, *draws.uniforms(self._seed, draws.CORNER + again, *tries)))
