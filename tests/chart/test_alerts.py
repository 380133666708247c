"""The alerts, checked and played by promtool; their runbooks; their metrics."""

import pathlib
import re
import subprocess

import pytest
import yaml

from patho_api import names
from tests.chart import alerts, prometheus

ROOT = pathlib.Path(__file__).parents[2]
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
PARTS = ("_sum", "_count", "_bucket")  # of a histogram


@pytest.fixture(scope="module")
def promtool():
    """Runs promtool with arguments; returns the finished process."""
    program = prometheus.path("promtool")
    return lambda *words: subprocess.run([program, *map(str, words)], capture_output=True, text=True, timeout=60)


def test_prometheus_accepts_the_rules(promtool):
    done = promtool("check", "rules", alerts.RULES)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_fires_when_it_should_and_only_then(promtool, tmp_path):
    stories = tmp_path / "stories.yaml"
    stories.write_text(yaml.safe_dump(alerts.unit_tests(), sort_keys=False, width=1000))
    done = promtool("test", "rules", stories)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("fires", [True, False])
def test_every_alert_has_a_story(fires):
    assert {story.alert for story in alerts.STORIES if bool(story.says) == fires} == set(alerts.rules())


def test_every_alert_has_a_section_in_the_runbooks():
    anchors = {heading.lower() for heading in re.findall(r"^## (\w+)$", RUNBOOKS, re.MULTILINE)}
    urls = {rule["annotations"]["runbook_url"] for rule in alerts.rules().values()}
    assert urls == {f"docs/runbooks.md#{alert.lower()}" for alert in alerts.rules()}
    assert {url.split("#")[1] for url in urls} <= anchors


def test_every_metric_in_an_alert_is_one_that_we_export():
    known = {value for value in vars(names).values() if isinstance(value, str) and value.startswith("patho_")}
    used = set(re.findall(r"\bpatho_\w+", " ".join(rule["expr"] for rule in alerts.rules().values())))
    assert {re.sub(f"({'|'.join(PARTS)})$", "", name) for name in used} <= known
