"""The bill of materials that the images carry."""

import importlib.metadata
import json
import pathlib
import re
import subprocess
import sys

import pytest
from packaging.utils import canonicalize_name

from tests.cluster import images
from tests.docs import pages

OPERATOR_BYTES = 150e6  # compiled modules and all; the image has no other layer on its base


@pytest.fixture(scope="module")
def bill() -> dict:
    made = subprocess.run([sys.executable, str(pages.ROOT / "packaging" / "sbom.py")], capture_output=True, text=True, check=True).stdout
    return json.loads(made)


def test_the_bill_of_materials_lists_what_is_installed(bill):
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    versions = {c["name"].lower(): c["version"] for c in bill["components"]}
    assert versions["kopf"] == importlib.metadata.version("kopf")
    assert all(c["purl"].startswith(("pkg:pypi/", "pkg:cargo/")) and c["version"] for c in bill["components"])


def test_each_package_of_the_images_names_its_licence_and_none_binds_what_it_is_used_with(bill):
    shipped = images.closure("pathoscale", {"operator", "trainer"})
    licences = {canonicalize_name(c["name"]): c["licenses"][0]["license"]["name"] for c in bill["components"] if "licenses" in c}
    assert shipped - licences.keys() == {"cuda-toolkit"}  # names NVIDIA's packages and holds nothing itself
    assert [name for name in shipped & licences.keys() if re.search(r"(?<!L)GPL", without_choices(licences[name]))] == []


def without_choices(licence: str) -> str:
    """An SPDX expression without its alternatives: `(BSD-3-Clause OR GPL-2.0-only)` binds nobody to the second."""
    return re.sub(r"\([^)]* OR [^)]*\)", "", licence)


def test_the_operators_packages_stay_small():
    files = [f.locate() for name in images.closure("pathoscale", {"operator"}) for f in importlib.metadata.distribution(name).files or []]
    assert sum(f.stat().st_size for f in map(pathlib.Path, map(str, files)) if f.is_file()) < OPERATOR_BYTES


def test_the_crates_of_the_native_core_are_listed_with_their_checksums():
    listed = [line.split() for line in (pages.ROOT / "native" / "crates.txt").read_text().splitlines()]
    assert {"pyo3", "turbojpeg-sys"} <= {name for name, *_ in listed}
    assert all(len(digest) == 64 for *_, digest in listed)


def test_both_images_carry_it_and_the_build_may_read_its_script():
    dockerfile = (pages.ROOT / "Dockerfile").read_text()
    assert dockerfile.count("/opt/venv/bin/python /sbom.py > /opt/venv/sbom.json") == 2
    assert "!packaging" in (pages.ROOT / ".dockerignore").read_text().splitlines()
