"""The committed dashboards: made by charts/dashboards.py, of metrics that exist. Their queries run in tests/cluster/test_dashboards.py."""

import json
import re

import pytest

from charts import boards, dashboards
from patho_api import names

BOARDS = pytest.mark.parametrize("board", boards.BOARDS, ids=lambda board: board.name)
METRICS = {value for name, value in vars(names).items() if name.isupper() and isinstance(value, str) and value.startswith("patho_")}


@BOARDS
def test_a_dashboard_is_the_generated_one(board):
    committed = (dashboards.FOLDER / f"{board.name}.json").read_text()
    assert committed == dashboards.text(board), "run: make generate"


def test_no_other_dashboard_is_shipped():
    assert {path.stem for path in dashboards.FOLDER.iterdir()} == {board.name for board in boards.BOARDS}


@BOARDS
def test_every_metric_in_a_panel_is_one_that_we_export(board):
    queries = " ".join(query for panel in board.panels for query, _ in panel.queries)
    used = {re.sub("_(sum|count|bucket)$", "", name) for name in re.findall(r"\bpatho_\w+", queries)}
    assert used <= METRICS


def test_every_metric_that_we_export_is_on_a_dashboard():
    queries = " ".join(query for board in boards.BOARDS for panel in board.panels for query, _ in panel.queries)
    assert {metric for metric in METRICS if metric not in queries} == set()


@BOARDS
def test_panels_do_not_overlap_and_variables_are_declared(board):
    made = json.loads(dashboards.text(board))
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in made["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    asked = set(re.findall(r"\$\{?(\w+)", json.dumps(made["panels"]))) - {"__rate_interval"}
    assert asked <= {variable["name"] for variable in made["templating"]["list"]}
