"""Which slides a source names: a manifest (csv, parquet), a glob, a folder, or one slide."""

import collections
import contextlib
import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow.parquet

from patho_trainer import errors
from patho_trainer.data import storage, urls

SLIDE_KINDS = (".svs", ".tif", ".tiff", ".ptif", ".ptiff", ".btf", ".svslide", ".ndpi", ".mrxs", ".scn", ".bif", ".czi", ".dcm")
MANIFEST_KINDS = (".csv", ".parquet")
KNOWN_COLUMNS = ("url", "id", "mpp", "patient", "label", "weight")
TRUE = ("1", "true", "yes")
LISTED_FROM = 16  # slides of a manifest in one folder: fewer are asked for one by one
LISTED_FOR_EACH = 10  # objects that a folder may hold for each of them: beyond, most of a listing is of other things


@dataclasses.dataclass(frozen=True)
class Entry:
    """A slide as its source names it. `info` is None where only its url is known yet; `mpp` 0 where the file has to say it."""

    id: str
    url: str
    info: storage.ObjectInfo | None = None
    mpp: float = 0.0
    label: str = ""
    patient: str = ""
    weight: float = 1.0
    flags: frozenset[str] = frozenset()


def discover(sources: Sequence[str], bucket: storage.Bucket) -> tuple[list[Entry], tuple[str, ...]]:
    """The slides of all sources, and the names of their manifests' further columns.

    Raises DataNotFound where there is none, InvalidConfiguration for a wrong bucket, a bad manifest, or two slides of one id.
    """
    entries: list[Entry] = []
    columns: list[str] = []
    for source in sources:
        bucket.check(source)
        found, extra = _manifest(source, bucket) if source.lower().endswith(MANIFEST_KINDS) else (_listed(source, bucket), ())
        if not found:
            raise errors.DataNotFound(f"no slide found at {source}: {_way_out(source)}")
        entries += found
        columns += [column for column in extra if column not in columns]
    _check_unique(entries)
    return entries, tuple(columns)


def _way_out(source: str) -> str:
    if source.lower().endswith(MANIFEST_KINDS):
        return "the manifest has no rows"
    return f"check the path; a slide's name ends in one of {' '.join(SLIDE_KINDS)}"


def _listed(source: str, bucket: storage.Bucket) -> list[Entry]:
    if urls.is_glob(source):
        infos = bucket.glob(source)
    elif source.lower().endswith(SLIDE_KINDS):
        infos = [bucket.head(source)]
    else:
        infos = bucket.list(source)
    return [Entry(info.url, info.url, info) for info in one_of_each_dicom(i for i in infos if i.url.lower().endswith(SLIDE_KINDS))]


def one_of_each_dicom(infos: Iterable[storage.ObjectInfo]) -> list[storage.ObjectInfo]:
    """A DICOM slide is a folder of files: the first stands for all."""
    seen: set[str] = set()
    kept = []
    for info in infos:
        folder = urls.parent(info.url)
        if info.url.lower().endswith(".dcm") and folder in seen:
            continue
        seen.add(folder)
        kept.append(info)
    return kept


def _manifest(source: str, bucket: storage.Bucket) -> tuple[list[Entry], tuple[str, ...]]:
    data = bucket.read(source)
    try:
        rows, names = _csv(data) if source.lower().endswith(".csv") else _parquet(data)
    except (ValueError, csv.Error) as error:  # pyarrow's errors are ValueErrors, and so are broken encodings
        raise errors.InvalidConfiguration(f"manifest {source} cannot be read: {error}") from error
    if "url" not in names:
        raise errors.InvalidConfiguration(f"manifest {source} needs a column `url`; it has {', '.join(names) or 'none'}")
    folder = urls.parent(source) if "/" in source else "./"
    entries = [entry(row, folder, f"manifest {source}, row {number}") for number, row in enumerate(rows, 1)]
    return _listed_together(entries, bucket), tuple(name for name in names if name not in KNOWN_COLUMNS)


def _listed_together(entries: Sequence[Entry], bucket: storage.Bucket) -> list[Entry]:
    """Entries with what a listing of their folder says, a thousand slides a request; `info` stays None where that cannot be had."""
    folders = collections.Counter(urls.parent(each.url) for each in entries if urls.parse(each.url).scheme not in urls.WEB)
    infos: dict[str, storage.ObjectInfo] = {}
    for folder, count in folders.items():
        if count < LISTED_FROM:
            continue
        with contextlib.suppress(storage.AccessDenied, storage.NotFound):  # who may read a slide need not be allowed to list
            infos |= {info.url: info for info in bucket.list(folder, at_most=1000 + LISTED_FOR_EACH * count)}
    return [dataclasses.replace(each, info=infos.get(each.url)) for each in entries]


def _csv(data: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    reader = csv.DictReader(io.StringIO(data.decode("utf-8-sig")), restkey="", strict=True)
    rows = list(reader)
    return rows, list(reader.fieldnames or [])


def _parquet(data: bytes) -> tuple[list[dict[str, Any]], list[str]]:
    table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
    return table.to_pylist(), table.column_names


def entry(row: Mapping[str, Any], folder: str, where: str) -> Entry:
    """A manifest's row; a url without a scheme is relative to the manifest's folder. `where` begins an error's sentence."""
    text = {key: "" if value is None else str(value).strip() for key, value in row.items()}
    if not text["url"]:
        raise errors.InvalidConfiguration(f"{where}: `url` is empty")
    url = urls.resolve(text["url"], folder)
    if urls.is_local(url) and not urls.is_local(folder):
        raise errors.InvalidConfiguration(
            f"{where}: `url` {url} is a file of the machine that reads it, but the manifest lies in a bucket: "
            "upload the slide, and write its url or its path relative to the manifest"
        )
    numbers = {name: _number(text.get(name, ""), f"{where}: `{name}`") for name in ("mpp", "weight")}
    flags = frozenset(key for key, value in text.items() if key not in KNOWN_COLUMNS and value.lower() in TRUE)
    return Entry(
        id=text.get("id") or url,
        url=url,
        mpp=numbers["mpp"] or 0.0,
        label=text.get("label", ""),
        patient=text.get("patient", ""),
        weight=1.0 if numbers["weight"] is None else numbers["weight"],
        flags=flags,
    )


def _number(text: str, where: str) -> float | None:
    try:
        value = float(text) if text else None
    except ValueError:
        value = -1.0
    if value is not None and not 0 < value < 1e9:
        raise errors.InvalidConfiguration(f"{where} is {text!r}: write a number above 0, or nothing")
    return value


def _check_unique(entries: Sequence[Entry]) -> None:
    seen: set[str] = set()
    for each in entries:
        if each.id in seen:
            raise errors.InvalidConfiguration(f"slide id {each.id} appears twice in the source: ids must be unique")
        seen.add(each.id)
