"""A bill of materials of the environment that runs this file, as CycloneDX 1.6 JSON on standard output. Standard library only."""

import importlib.metadata
import json
import re
from typing import Any


def components() -> list[dict[str, Any]]:
    """Each installed distribution: name, version, package URL, licence as its metadata say it."""
    found = {d.metadata["Name"].lower(): d for d in importlib.metadata.distributions()}
    return [_component(found[name]) for name in sorted(found)]


def _component(distribution: importlib.metadata.Distribution) -> dict[str, Any]:
    name, version = distribution.metadata["Name"], distribution.version
    canonical = re.sub(r"[-_.]+", "-", name).lower()
    purl = f"pkg:pypi/{canonical}@{version}"
    licence = distribution.metadata.get("License-Expression") or distribution.metadata.get("License") or ""
    known = {"licenses": [{"license": {"name": licence.splitlines()[0][:200]}}]} if licence.strip() else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **known}


if __name__ == "__main__":
    listed = {"type": "application", "name": "pathoscale", "version": importlib.metadata.version("pathoscale")}
    head = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "metadata": {"component": listed}}
    print(json.dumps(head | {"components": components()}))
