"""Slides as a parquet table, and back: the catalog is readable by pandas and duckdb. Pure: bytes in, bytes out."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from patho_trainer.data import catalog

LEVEL = pa.struct(
    {
        "width": pa.int64(),
        "height": pa.int64(),
        "downsample": pa.float64(),
        "mpp": pa.float64(),
        "tile_width": pa.int32(),
        "tile_height": pa.int32(),
        "compression": pa.int32(),
        "photometric": pa.int32(),
        "samples": pa.int32(),
        "predictor": pa.int32(),
        "jpeg_tables": pa.binary(),
    }
)
ACCEPTED = pa.struct({"mpp": pa.float64(), "size_px": pa.int32(), "positions": pa.int64()})
SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "url": pa.string(),
        "size": pa.int64(),
        "etag": pa.string(),
        "reader": pa.string(),
        "mpp": pa.float64(),
        "levels": pa.list_(LEVEL),
        "label": pa.string(),
        "patient": pa.string(),
        "weight": pa.float64(),
        "flags": pa.list_(pa.string()),
        "accepted": pa.list_(ACCEPTED),
        "place": pa.struct({"object": pa.string(), "offset": pa.int64(), "size": pa.int64()}),
        "rejected": pa.string(),
        "message": pa.string(),
        "key": pa.string(),
    }
)
BATCH_ROWS = 1024  # as dicts at once, each several times as large as a Slide
FACTS = b"pathoscale"  # key of the table's metadata


@dataclasses.dataclass(frozen=True)
class Row:
    """A slide and the key of what it was made from (see `index.key_of`): the same key needs no new look at the file."""

    slide: catalog.Slide
    key: str


def write(rows: Sequence[Row], facts: Mapping[str, Any]) -> bytes:
    """A parquet file; `facts` are JSON values kept in its metadata."""
    table = pa.Table.from_pylist([_to_dict(row) for row in rows], schema=SCHEMA)
    table = table.replace_schema_metadata({FACTS: json.dumps(facts).encode()})
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())


def read(data: bytes) -> tuple[list[Row], dict[str, Any]]:
    """What `write` wrote. Raises ValueError for anything else."""
    table = pyarrow.parquet.read_table(pa.BufferReader(data))
    facts = (table.schema.metadata or {}).get(FACTS)
    if facts is None:
        raise ValueError("a parquet file, but no slide catalog")
    rows = [_from_dict(row) for batch in table.to_batches(BATCH_ROWS) for row in batch.to_pylist()]
    return rows, json.loads(facts)


def _to_dict(row: Row) -> dict[str, Any]:
    facts = dataclasses.asdict(row.slide)
    facts["levels"] = [{**level, **level.pop("encoding")} for level in facts["levels"]]
    facts["flags"] = sorted(facts["flags"])
    return {**facts, "key": row.key}


def _from_dict(facts: dict[str, Any]) -> Row:
    key = facts.pop("key")
    levels = tuple(_level(level) for level in facts.pop("levels"))
    accepted = tuple(catalog.Accepted(**a) for a in facts.pop("accepted"))
    place = facts.pop("place")
    flags = frozenset(facts.pop("flags"))
    kept = catalog.Place(**place) if place else None
    return Row(catalog.Slide(**facts, levels=levels, accepted=accepted, flags=flags, place=kept), key)


def _level(facts: dict[str, Any]) -> catalog.Level:
    names = [field.name for field in dataclasses.fields(catalog.Encoding)]
    encoding = _encoding(*(facts.pop(name) for name in names))
    return catalog.Level(**facts, encoding=encoding)


@functools.lru_cache(maxsize=4096)
def _encoding(*values: Any) -> catalog.Encoding:
    """Slides of one scanner share their tables: one object for all keeps 30,000 slides small."""
    return catalog.Encoding(*values)
