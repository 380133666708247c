"""docs/faults.md names tests: each exists."""

import re

import pytest

from tests.docs import pages

TESTS = pages.ROOT / "tests"
NAMED = sorted(set(re.findall(r"`(\w+\.py)::(\w+)`", (pages.ROOT / "docs" / "faults.md").read_text())))


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_a_test_that_the_page_names_exists(file, name):
    assert [path for path in TESTS.rglob(file) if re.search(rf"^(async )?def {name}\(", path.read_text(), re.MULTILINE)]
