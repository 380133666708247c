"""Blocks of every page in docs/: parsed, and what they name exists.

Commands are run in test_tutorial.py (the tutorial), test_local.py (a control plane on this machine) and tests/trainer/cli/test_demo.py
(`make demo`); Helm's are rendered here; manifests of examples/ go to an API server in tests/cluster/test_crds.py. Only parsed are those of
docker, kind, gcloud, aws and eksctl, and kubectl's outside of those pages: no test has what they work on.
"""

import itertools
import pathlib
import re
import subprocess

import pytest
import yaml

from patho_api import names, resource
from tests.chart import renders
from tests.cluster import tools
from tests.docs import pages

DOCS = [page for page in pages.PAGES if page.name != "README.md"]
PROGRAMS = {"aws", "docker", "eksctl", "gcloud", "helm", "kill", "kind", "kubectl", "make", "patho", "prometheus", "promtool"}
PROGRAMS |= {"python", "sleep", "source"}
BASH = [block for block in pages.every("bash") if block.page in DOCS]


@pytest.mark.parametrize("block", BASH, ids=lambda block: f"{block.page.name}: {block.text[:40]}")
def test_commands_are_of_known_programs_and_name_files_that_exist(block):
    subprocess.run(["bash", "-n"], input=block.text, text=True, check=True)
    for words in pages.commands(block):
        assert pathlib.PurePath(words[0]).name in PROGRAMS
        assert [w for w in words if w.startswith(("examples/", "charts/")) and not (pages.ROOT / w).exists()] == []


@pytest.mark.parametrize("block", [b for b in pages.every("yaml") if b.page in DOCS], ids=lambda block: block.page.name)
def test_manifests_parse(block):
    found = yaml.safe_load(block.text)
    if found.get("apiVersion") == names.API_VERSION:
        assert resource.parse(found).spec


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_links_and_files_that_a_page_names_exist(page):
    text = page.read_text()
    links = [link.split("#")[0] for link in re.findall(r"\]\(([^):]+)\)", text)]
    named = re.findall(r"`((?:examples|charts|docs)/[\w./-]+\.\w+)`", text)
    assert [link for link in links if link and not (page.parent / link).exists()] == []
    assert [name for name in named if not (pages.ROOT / name).exists()] == []


HELM = [w for block in pages.every("bash") for w in pages.commands(block) if w[:2] in (["helm", "install"], ["helm", "upgrade"])]


@pytest.mark.parametrize("words", HELM, ids=" ".join)
def test_the_values_of_a_helm_command_are_ones_that_the_chart_takes(words):
    if "helm" in tools.missing():
        pytest.skip("NOT RUN: helm is not built; `python -m tests.cluster.tools` builds it")
    values = [w for pair in itertools.pairwise(words) if pair[0] in ("--set", "--set-json") for w in pair]
    done = renders.helm("template", words[2], str(pages.ROOT / words[3]), *values)
    assert done.returncode == 0, done.stderr
    assert words[3] == "charts/pathoscale"
