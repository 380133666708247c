"""The bill of materials that the images carry."""

import importlib.metadata
import json
import subprocess
import sys

from tests.docs import pages


def test_the_bill_of_materials_lists_what_is_installed():
    made = subprocess.run([sys.executable, str(pages.ROOT / "packaging" / "sbom.py")], capture_output=True, text=True, check=True).stdout
    found = json.loads(made)
    assert (found["bomFormat"], found["specVersion"]) == ("CycloneDX", "1.6")
    versions = {c["name"].lower(): c["version"] for c in found["components"]}
    assert versions["kopf"] == importlib.metadata.version("kopf")
    assert all(c["purl"].startswith("pkg:pypi/") and c["version"] for c in found["components"])


def test_both_images_carry_it_and_the_build_may_read_its_script():
    dockerfile = (pages.ROOT / "Dockerfile").read_text()
    assert dockerfile.count("/opt/venv/bin/python /sbom.py > /opt/venv/sbom.json") == 2
    assert "!packaging" in (pages.ROOT / ".dockerignore").read_text().splitlines()
