"""Grafana's JSON of the dashboards: `python -m charts.dashboards` writes charts/pathoscale/files/dashboards/*.json. A test compares."""

import json
import pathlib
from collections.abc import Iterator, Sequence

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog import builder, encoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

from charts import boards
from patho_api import names

FOLDER = pathlib.Path(__file__).parent / "pathoscale" / "files" / "dashboards"
DATASOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
COLUMNS = 24  # of Grafana's grid
HEIGHTS = {"stat": 4, "timeseries": 8, "table": 8}


def text(board: boards.Board) -> str:
    """The dashboard as Grafana imports it."""
    made = (
        dashboard.Dashboard(board.title)
        .uid(f"pathoscale-{board.name}")
        .tags(["pathoscale"])
        .readonly()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-6h", "now")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for name in board.variables:
        made.with_variable(_variable(name))
    for i, (panel, place) in enumerate(placed(board.panels), 1):
        made.with_panel(_panel(panel).id(i).grid_pos(place))
    return json.dumps(made.build(), cls=encoder.JSONEncoder, indent=1, sort_keys=True) + "\n"


def _variable(name: str) -> builder.Builder[models.VariableModel]:
    if name == "price":
        return dashboard.TextBoxVariable("price").label("USD an accelerator-hour").default_value("2.5")
    where = {"namespace": "", "run": '{namespace="$namespace"}'}[name]
    query = f"label_values({names.TRAIN_STEP}{where}, {name})"
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def placed(panels: Sequence[boards.Panel]) -> Iterator[tuple[boards.Panel, models.GridPos]]:
    """Left to right; a panel that does not fit begins a new row."""
    x = y = height = 0
    for panel in panels:
        if x + panel.width > COLUMNS:
            x, y = 0, y + height
        height = HEIGHTS[panel.kind]
        yield panel, models.GridPos(x=x, y=y, w=panel.width, h=height)
        x += panel.width


def _panel(panel: boards.Panel) -> stat.Panel | table.Panel | timeseries.Panel:
    made = {"stat": _stat, "table": table.Panel, "timeseries": _lines}[panel.kind]()
    made.title(panel.title).unit(panel.unit).datasource(DATASOURCE)
    if panel.text:
        made.description(panel.text)
    if isinstance(made, stat.Panel) and panel.queries[0][1]:  # what it is called rather than its 1
        made.text_mode(common_models.BigValueTextMode.NAME)
    for i, (query, legend) in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query).ref_id("ABCDEF"[i])
        if legend:
            target.legend_format(legend)
        if panel.kind == "table":
            target.instant().format(prometheus_models.PromQueryFormat.TABLE)
        made.with_target(target)
    if panel.kind == "table":  # the first query says which rows there are; its values are 1
        made.with_transformation(models.DataTransformerConfig(id_val="merge", options={}))
        hidden = {"excludeByName": {"Time": True, "Value #A": True}, "renameByName": {"Value #B": "progress"}}
        made.with_transformation(models.DataTransformerConfig(id_val="organize", options=hidden))
    return made


def _stat() -> stat.Panel:
    newest = common.ReduceDataOptions().calcs(["lastNotNull"])
    return stat.Panel().reduce_options(newest).graph_mode(common_models.BigValueGraphMode.NONE)


def _lines() -> timeseries.Panel:
    legend = common.VizLegendOptions().show_legend(True).placement(common_models.LegendPlacement.BOTTOM)
    return timeseries.Panel().fill_opacity(5).legend(legend.display_mode(common_models.LegendDisplayMode.LIST))


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    for one in boards.BOARDS:
        (FOLDER / f"{one.name}.json").write_text(text(one))
