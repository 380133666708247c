"""The index of a set of slides, kept in a folder of a bucket: each slide is opened once, by any run, ever.

    catalog.parquet               the latest catalog, one row a slide
    catalogs/VERSION.parquet      every catalog; a run pins one by its version, a hash of the content
    tiles-NNNNN.bin               the slides' records, back to back; never changed
    parts/JOB/                    rows of a build that is not finished: a killed build goes on from here
    builds/JOB.json               the version that a finished build led to

Ranks share the work by the hash of the slide's id; only slides whose object, resolution or foreground method changed are opened.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from patho_api import pretrain
from patho_trainer import errors
from patho_trainer.data import catalog, copies, manifest, masks, record, scan, storage, table, urls

FORMAT = 3  # of records and masks: another number makes every slide be looked at again
FLUSH_SLIDES = 32  # what a kill can cost a rank, at most
FLUSH_SECONDS = 20.0
WORKERS = 8  # slides a rank works on at once

Progress = Callable[[int, int], None]
Rows = dict[str, table.Row]


@dataclasses.dataclass(frozen=True)
class Job:
    """What a build was asked for. `name` is the same on every rank, and after a restart."""

    sources: tuple[str, ...]
    out: str
    foreground: pretrain.Foreground
    patches: pretrain.Patches

    @property
    def wanted(self) -> dict[str, object]:
        """What decides on the rows, as JSON values."""
        patches = self.patches.model_dump(mode="json", include={"size_px", "magnifications", "mpp_tolerance"})
        return {"format": FORMAT, "foreground": self.foreground.model_dump(mode="json"), "patches": patches}

    @property
    def name(self) -> str:
        """A short hash of sources and settings."""
        return _hash([self.sources, self.wanted])

    @property
    def parts(self) -> str:
        """Folder of unfinished work."""
        return urls.join(self.out, "parts", self.name) + "/"

    @property
    def pointer(self) -> str:
        """Object that says which version came out."""
        return urls.join(self.out, "builds", f"{self.name}.json")


def build(
    sources: Sequence[str],
    out: str,
    *,
    foreground: pretrain.Foreground | None = None,
    patches: pretrain.Patches | None = None,
    bucket: storage.Bucket | None = None,
    rank: int = 0,
    world_size: int = 1,
    builder: str = "",
    barrier: Callable[[], None] = lambda: None,
    agree: Callable[[str], str] = lambda version: version,
    progress: Progress | None = None,
) -> catalog.Catalog:
    """Bring the index in folder `out` up to date with the slides of `sources` (manifests, globs, folders), and load it.

    `builder` names this build among others of the same slides at the same time (a run's id); their records are shared, their ends are not.
    Called on every rank, with a `barrier` that all of them reach; rank 0 puts the parts together. `agree` gives all ranks the version that
    rank 0 found: another build of the same slides may end while they look. `progress(done, total)` counts this
    rank's slides. What a damaged slide is rejected for is in `Catalog.rejected`. Raises DataNotFound where there is no slide at all,
    InvalidConfiguration, and Transient where the bucket fails for long: the same call then goes on where it was.
    """
    bucket = bucket or storage.Bucket()
    job = Job(tuple(sources), out, foreground or pretrain.Foreground(), patches or pretrain.Patches())
    bucket.check(urls.join(out, "catalog.parquet"))
    entries, columns = manifest.discover(job.sources, bucket)
    share = [entry for entry in entries if catalog.hash_of(entry.id) % world_size == rank]
    rows = _Rank(job, bucket, rank, world_size).rows(share, progress)
    bucket.write(_part(job, builder, rank), table.write(rows, {}))
    barrier()
    if rank == 0:
        _merge(job, builder, bucket, [entry.id for entry in entries], columns, world_size)
    barrier()
    return load(out, bucket=bucket, version=agree(json.loads(bucket.read(job.pointer))["version"]))


def load(url: str, bucket: storage.Bucket | None = None, version: str = "") -> catalog.Catalog:
    """The catalog in a folder: the latest, or the one that a run has pinned. One request.

    Raises NotFound where there is none, InvalidConfiguration for something else and for the index of a release with another format.
    """
    bucket = bucket or storage.Bucket()
    name = f"catalogs/{version}.parquet" if version else "catalog.parquet"
    try:
        rows, facts = table.read(bucket.read(urls.join(url, name)))
    except storage.NotFound as error:
        wanted = f"version {version} of a slide index" if version else "slide index"
        raise storage.NotFound(f"no {wanted} at {url}: build one with `patho index SOURCE --out {url}`") from error
    except ValueError as error:
        raise errors.InvalidConfiguration(f"{urls.join(url, name)} is no slide index: give `index` a folder of its own") from error
    if facts["wanted"]["format"] != FORMAT:
        raise errors.InvalidConfiguration(
            f"the slide index {facts['version']} at {url} has format {facts['wanted']['format']}, and this release reads format {FORMAT}: "
            "end a run that began with it under the release that made it, or start a new run, which brings the index up to date"
        )
    slides = [row.slide for row in rows]
    return catalog.Catalog(facts["version"], slides, _fetcher(url, bucket), url=url, columns=facts["columns"])


def _fetcher(url: str, bucket: storage.Bucket) -> catalog.Fetch:
    """Reads records: one request for each that does not touch the next; several objects at once."""

    def fetch(places: Sequence[catalog.Place]) -> list[bytes]:
        grouped: dict[str, list[int]] = {}
        for i, place in enumerate(places):
            grouped.setdefault(place.object, []).append(i)
        found: dict[int, bytes] = {}

        def read(name: str) -> None:
            wanted = [places[i] for i in grouped[name]]
            buffers = bucket.read_ranges(urls.join(url, name), [p.offset for p in wanted], [p.size for p in wanted])
            found.update(zip(grouped[name], map(bytes, buffers), strict=True))

        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(read, grouped))
        return [found[i] for i in range(len(places))]

    return fetch


def key_of(entry: manifest.Entry, foreground: pretrain.Foreground, mask: storage.ObjectInfo | None = None) -> str:
    """What a slide's facts and mask were made from; empty where an object is not there, which equals nothing."""
    if entry.info is None or (foreground.method == "Masks" and mask is None):
        return ""
    made_from = [FORMAT, entry.url, entry.info.size, entry.info.etag, entry.mpp, foreground.method]
    return _hash([*made_from, mask.url, mask.size, mask.etag] if mask else made_from)


def _hash(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, sort_keys=True).encode(), digest_size=8).hexdigest()


class _Rank:
    """One rank's share of a build."""

    def __init__(self, job: Job, bucket: storage.Bucket, rank: int, world_size: int) -> None:
        self._job, self._bucket = job, bucket
        self._scanner = scan.Scanner(bucket, job.foreground, job.patches)
        self._fetch = _fetcher(job.out, bucket)
        self._settled, self._recount = _known_rows(job, bucket)
        taken = sum(urls.name(info.url).startswith("tiles-") for info in bucket.list(job.out))
        self._numbers = itertools.count(taken + rank, world_size)  # of objects; another build may take one first

    def rows(self, share: Sequence[manifest.Entry], progress: Progress | None) -> list[table.Row]:
        """The rows of this rank's slides, in no order; new ones are saved as they come."""
        rows: list[table.Row] = []
        fresh: list[tuple[table.Row, bytes]] = []
        flushed = time.monotonic()
        for row, data in self._each(share):
            if data:
                fresh.append((row, data))
            else:
                rows.append(row)
            if len(fresh) >= FLUSH_SLIDES or (fresh and time.monotonic() - flushed > FLUSH_SECONDS):
                rows += self._flush(fresh)
                fresh, flushed = [], time.monotonic()
            if progress:
                progress(len(rows) + len(fresh), len(share))
        return rows + self._flush(fresh)

    def _each(self, share: Sequence[manifest.Entry]) -> Iterator[tuple[table.Row, bytes]]:
        """Rows as they are done, WORKERS at a time; the first error ends it."""
        with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
            try:
                for future in concurrent.futures.as_completed([pool.submit(self._row, entry) for entry in share]):
                    yield future.result()
            finally:
                pool.shutdown(cancel_futures=True)

    def _row(self, entry: manifest.Entry) -> tuple[table.Row, bytes]:
        """A slide's row and, where it was opened, its record."""
        if entry.info is None or copies.has_companions(entry.url):
            try:
                entry = dataclasses.replace(entry, info=copies.identity(self._bucket, entry.url))
            except storage.NotFound as error:
                return table.Row(scan.rejected(entry, "Missing", str(error)), ""), b""
        key = key_of(entry, self._job.foreground, self._mask(entry))
        if key and key in self._settled:
            return table.Row(scan.named(self._settled[key].slide, entry), key), b""
        if key and key in self._recount:
            return table.Row(self._counted(scan.named(self._recount[key].slide, entry)), key), b""
        slide, data = self._scanner.look(entry)
        return table.Row(slide, key), data

    def _mask(self, entry: manifest.Entry) -> storage.ObjectInfo | None:
        """The user's mask of a slide: the slide is looked at again where it has changed."""
        if self._job.foreground.method != "Masks":
            return None
        with contextlib.suppress(storage.NotFound):
            return self._bucket.head(masks.url_of(self._job.foreground.masks_url, entry))
        return None

    def _counted(self, slide: catalog.Slide) -> catalog.Slide:
        """Positions for other patches than before, from the mask in the index: the slide is not opened."""
        if slide.place is None:
            return slide
        return self._scanner.judge(slide, record.Record(self._fetch([slide.place])[0]).mask)

    def _flush(self, fresh: Sequence[tuple[table.Row, bytes]]) -> list[table.Row]:
        """Write records as one object under the next free name, then their rows; the rows with their places."""
        if not fresh:
            return []
        name = self._write_records(b"".join(data for _, data in fresh))
        starts = itertools.accumulate((len(data) for _, data in fresh), initial=0)
        placed = [
            table.Row(dataclasses.replace(row.slide, place=catalog.Place(name, start, len(data))), row.key)
            for (row, data), start in zip(fresh, starts, strict=False)
        ]
        self._bucket.write(self._job.parts + name.replace(".bin", ".parquet"), table.write(placed, {}))
        return placed

    def _write_records(self, data: bytes) -> str:
        while True:
            name = f"tiles-{next(self._numbers):05d}.bin"
            with contextlib.suppress(storage.AlreadyExists):
                self._bucket.write(urls.join(self._job.out, name), data, if_absent=True)
                return name


def _known_rows(job: Job, bucket: storage.Bucket) -> tuple[Rows, Rows]:
    """By key: rows that are right as they are, and rows whose positions were counted for other patches."""
    settled: Rows = {}
    recount: Rows = {}
    try:
        rows, facts = table.read(bucket.read(urls.join(job.out, "catalog.parquet")))
        (settled if facts["wanted"] == job.wanted else recount).update((row.key, row) for row in rows)
    except storage.NotFound:
        pass  # the first build
    for info in bucket.list(job.parts):
        with contextlib.suppress(storage.NotFound):  # another build of the same index has just ended
            settled.update((row.key, row) for row in table.read(bucket.read(info.url))[0])
    return settled, recount


def _part(job: Job, builder: str, rank: int) -> str:
    return f"{job.parts}rank-{builder}-{rank:05d}.parquet"


def _merge(job: Job, builder: str, bucket: storage.Bucket, ids: Sequence[str], columns: Sequence[str], world_size: int) -> None:
    """Put the ranks' rows together; the pointer is written last, so that a kill before it only repeats this."""
    found = {row.slide.id: row for rank in range(world_size) for row in table.read(bucket.read(_part(job, builder, rank)))[0]}
    missing = [each for each in ids if each not in found]
    if missing:
        raise errors.PathoError(f"the source changed while it was indexed: {missing[0]} and {len(missing) - 1} more are new; start again")
    rows = [found[each] for each in ids]
    facts = {"version": version_of(rows, job.wanted, columns), "wanted": job.wanted, "columns": list(columns)}
    data = table.write(rows, facts)
    with contextlib.suppress(storage.AlreadyExists):
        bucket.write(urls.join(job.out, "catalogs", f"{facts['version']}.parquet"), data, if_absent=True)
    bucket.write(urls.join(job.out, "catalog.parquet"), data)
    bucket.write(job.pointer, json.dumps({"version": facts["version"]}).encode())
    bucket.delete(_part(job, builder, rank) for rank in range(world_size))
    bucket.delete(info.url for info in bucket.list(job.parts) if urls.name(info.url).startswith("tiles-"))


def version_of(rows: Sequence[table.Row], wanted: Mapping[str, object], columns: Sequence[str]) -> str:
    """A hash of everything that a sampler sees; not of where records lie, so that rebuilding gives the same version."""
    facts = [
        [row.key, s.id, s.weight, s.label, s.patient, sorted(s.flags), [dataclasses.astuple(a) for a in s.accepted], s.rejected]
        for row, s in sorted(((row, row.slide) for row in rows), key=lambda pair: pair[1].id)
    ]
    return _hash([wanted, list(columns), facts])
