"""A bill of materials of the environment that runs this file, as CycloneDX 1.6 JSON on standard output. Standard library only."""

import importlib.metadata
import json
import pathlib
import re
import sysconfig
from typing import Any


def components() -> list[dict[str, Any]]:
    """Each installed distribution: name, version, package URL, licence as its metadata say it; and what the native core is made of."""
    return [*_distributions(), *_crates(pathlib.Path(sysconfig.get_path("platlib")) / "patho_native.licenses" / "crates.txt")]


def _crates(path: pathlib.Path) -> list[dict[str, Any]]:
    """Rust crates, one a line: name, version, SHA-256."""
    lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
    return [_crate(*line) for line in lines]


def _crate(name: str, version: str, digest: str) -> dict[str, Any]:
    purl = f"pkg:cargo/{name}@{version}"
    hashes = [{"alg": "SHA-256", "content": digest}]
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, "hashes": hashes}


def _distributions() -> list[dict[str, Any]]:
    found = {d.metadata["Name"].lower(): d for d in importlib.metadata.distributions()}
    return [_component(found[name]) for name in sorted(found)]


def _component(distribution: importlib.metadata.Distribution) -> dict[str, Any]:
    name, version = distribution.metadata["Name"], distribution.version
    canonical = re.sub(r"[-_.]+", "-", name).lower()
    purl = f"pkg:pypi/{canonical}@{version}"
    licence = _licence(distribution.metadata)
    known = {"licenses": [{"license": {"name": licence[:200]}}]} if licence else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **known}


def _licence(metadata: Any) -> str:
    """First line of what a distribution says about its licence: an SPDX expression, a free text, or classifiers; empty if nothing."""
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or [] if c.startswith("License :: ")]
    said = metadata.get("License-Expression") or metadata.get("License") or " AND ".join(classifiers)
    return said.strip().splitlines()[0] if said.strip() else ""


if __name__ == "__main__":
    listed = {"type": "application", "name": "pathoscale", "version": importlib.metadata.version("pathoscale")}
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": listed}}
    print(json.dumps(head | {"components": components()}))
