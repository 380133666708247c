"""What the four dashboards show: panels and their PromQL. `charts/dashboards.py` makes Grafana's JSON of it.

Every query is evaluated by tests/cluster/test_dashboards.py on a Prometheus that scraped a run and the operator.
"""

import dataclasses

from patho_api import names

POD = 'namespace="$namespace",run="$run"'  # metrics of training pods; `run` comes from the PodMonitor
OBJECT = f'kind="{names.PRETRAIN}",namespace="$namespace",name="$run"'  # metrics of the operator about the same run
SPAN = "[$__rate_interval]"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One panel; `queries` are (PromQL, legend). `unit` is Grafana's name of it."""

    title: str
    queries: tuple[tuple[str, str], ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    text: str = ""
    gpu: bool = False  # empty where there is no GPU


@dataclasses.dataclass(frozen=True)
class Board:
    """One dashboard. `variables` are of namespace, run, price."""

    name: str
    title: str
    variables: tuple[str, ...]
    panels: tuple[Panel, ...]


def rate(metric: str, by: str = "", where: str = POD) -> str:
    """Sum of the rates of a counter, by labels."""
    return f"sum{f' by ({by}) ' if by else ''}(rate({metric}{{{where}}}{SPAN}))"


def share(metric: str, part: str, where: str = POD) -> str:
    """Share of a counter's rate that samples with the label `part` have."""
    return f"sum(rate({metric}{{{','.join(filter(None, (where, part)))}}}{SPAN})) / {rate(metric, where=where)}"


def largest(metric: str, by: str = "", where: str = POD) -> str:
    """Largest value of a gauge, by labels."""
    return f"max{f' by ({by}) ' if by else ''}({metric}{{{where}}})"


def number(title: str, query: str, unit: str = "short", legend: str = "", text: str = "") -> Panel:
    """A panel with one number."""
    return Panel(title, ((query, legend),), unit, "stat", 4, text)


def line(title: str, query: str, legend: str, unit: str = "short", text: str = "", width: int = 8) -> Panel:
    """A panel with the lines of one query."""
    return Panel(title, ((query, legend),), unit, "timeseries", width, text)


STEP_SUM, STEP_COUNT = f"{names.TRAIN_STEP_SECONDS}_sum", f"{names.TRAIN_STEP_SECONDS}_count"
SAVE_SUM, SAVE_COUNT = f"{names.CHECKPOINT_SECONDS}_sum", f"{names.CHECKPOINT_SECONDS}_count"
START_SUM, START_COUNT = f"{names.JOB_TIME_TO_RUNNING}_sum", f"{names.JOB_TIME_TO_RUNNING}_count"
CHECKPOINT_AGE = f"time() - max({names.CHECKPOINT_LAST_SUCCESS}{{{POD}}} > 0)"
WAITING = share(STEP_SUM, 'stage="data_wait"')

RUN = Board(
    "run",
    "pathoscale / Run",
    ("namespace", "run"),
    (
        number("Phase", f"max by (phase) ({names.RUN_PHASE}{{{OBJECT}}})", legend="{{phase}}"),
        number("Progress", largest(names.RUN_PROGRESS, where=OBJECT), "percentunit", text="Of the present stage: indexing, then training."),
        number("Step", largest(names.TRAIN_STEP)),
        number("Images a second", rate(names.TRAIN_IMAGES), "none"),
        number("Waiting for data", WAITING, "percentunit", text="Share of a step. Above a fifth an alert fires."),
        number("Checkpoint age", CHECKPOINT_AGE, "s", text="What a failure now would lose."),
        line("Images a second", rate(names.TRAIN_IMAGES, "pod"), "{{pod}}", "none"),
        line(
            "Loss by term",
            f"avg by (term) ({names.TRAIN_LOSS}{{{POD}}})",
            "{{term}}",
            "none",
            "teacher_entropy near log(prototypes) is a uniform teacher: collapse.",
        ),
        Panel(
            "RankMe and off-diagonal correlation",
            ((largest(names.TRAIN_RANKME), "RankMe"), (largest(names.TRAIN_ODCORR), "odCorr")),
            "none",
            text="Of the teacher's features on a fixed set of patches: effective rank (higher is better), correlation (lower is better).",
        ),
        line(
            "Time of a step by stage",
            f"{rate(STEP_SUM, 'stage')} / {rate(STEP_COUNT, 'stage')}",
            "{{stage}}",
            "s",
            "As the host sees it: a GPU's work counts where the host waits for it.",
        ),
        line(
            "Readers' time by stage", rate(names.STREAM_SECONDS, "stage"), "{{stage}}", "s", "Seconds a second, over all reading threads."
        ),
        line("GPU memory in use", largest(names.TRAIN_GPU_MEMORY, "pod"), "{{pod}}", "bytes", "Largest process of each pod; 0 on CPUs."),
        Panel(
            "Model FLOPs utilization",
            ((largest(names.TRAIN_MFU), "MFU"),),
            "percentunit",
            text="Of the device's peak, where that is known.",
            gpu=True,
        ),
        line("Learning rate", largest(names.TRAIN_LEARNING_RATE), "learning rate", "none"),
        line("Gradient norm", largest(names.TRAIN_GRADIENT_NORM), "gradient norm", "none", "Of the whole gradient, before clipping."),
        Panel(
            "Restarts",
            (
                (largest(names.RUN_RESTARTS, where=OBJECT), "incidents (count against maxRestarts)"),
                (f"sum({names.TRAIN_RESTARTS}{{{POD}}})", "workers started again in this attempt"),
            ),
        ),
        line("Time of a checkpoint", f"sum({SAVE_SUM}{{{POD}}}) / sum({SAVE_COUNT}{{{POD}}})", "mean", "s", "That training stood still."),
        line(
            "Scores of its evaluations",
            f'max by (name, task, metric) ({names.EVAL_SCORE}{{namespace="$namespace",run="$run"}})',
            "{{name}} {{task}} {{metric}}",
            "none",
            width=8,
        ),
    ),
)

STREAMING = Board(
    "streaming",
    "pathoscale / Streaming",
    ("namespace", "run"),
    (
        number("Patches a second", rate(names.STREAM_PATCHES), "none"),
        number("Bytes a patch", f"{rate(names.STREAM_BYTES)} / {rate(names.STREAM_PATCHES)}", "bytes"),
        number("Requests a patch", f"{rate(names.STREAM_REQUESTS)} / {rate(names.STREAM_PATCHES)}", "none"),
        number(
            "Patches ready", f"sum({names.STREAM_BUFFERED}{{{POD}}})", text="Read and waiting for training; 0 all the time is starvation."
        ),
        number("Slides", largest(names.STREAM_SLIDES)),
        number("Quarantined slides", largest(names.STREAM_QUARANTINED), text="Above one in a hundred an alert fires."),
        line("Bytes read", rate(names.STREAM_BYTES, "store"), "{{store}}", "Bps"),
        line("Requests by outcome", rate(names.STREAM_REQUESTS, "store, outcome"), "{{store}} {{outcome}}", "reqps"),
        line(
            "Time of a patch by stage",
            f"{rate(names.STREAM_SECONDS, 'stage')} / scalar({rate(names.STREAM_PATCHES)})",
            "{{stage}}",
            "s",
            "Of a reading thread; they work in parallel.",
        ),
        Panel(
            "Patches replaced by reason, and places drawn again",
            (
                (f"{rate(names.STREAM_REPLACED, 'reason')} or label_replace(vector(0), 'reason', 'none', '', '')", "{{reason}}"),
                (rate(names.STREAM_REDRAWN), "drawn again"),
            ),
            "none",
            text="Replaced: theirs could not be read, one of another slide took their place. Drawn again: too pale (patches.hsvFilter).",
        ),
        line("Waiting by process", rate(names.TRAIN_DATA_WAIT, "pod, local_rank"), "{{pod}} {{local_rank}}", "percentunit"),
        line(
            "Skew between processes",
            f"max({rate(names.TRAIN_DATA_WAIT, 'pod, local_rank')}) - min({rate(names.TRAIN_DATA_WAIT, 'pod, local_rank')})",
            "slowest minus fastest",
            "percentunit",
            "One slow reader holds up all processes.",
        ),
    ),
)

OPERATOR = Board(
    "operator",
    "pathoscale / Operator",
    (),
    (
        number("Leaders", f"sum({names.OPERATOR_LEADER})", text="1 is right."),
        number("Release", f"max by (version) ({names.OPERATOR_BUILD_INFO})", legend="{{version}}"),
        number("Queue", f"sum({names.OPERATOR_QUEUE_DEPTH})"),
        number("Resources", f"sum({names.JOBS})"),
        number("API errors a second", f'sum(rate({names.OPERATOR_API_REQUESTS}{{code!~"2.."}}{SPAN})) or vector(0)', "none"),
        number(
            "Mean time to running", f"sum({START_SUM}) / sum({START_COUNT})", "s", text="From a run's creation to all of its pods running."
        ),
        line("Queue", names.OPERATOR_QUEUE_DEPTH, "{{pod}}", text="Resources that wait to be looked at."),
        Panel(
            "Time to look at a resource once",
            tuple(
                (f"histogram_quantile({q}, sum by (le) (rate({names.OPERATOR_RECONCILE_SECONDS}_bucket{SPAN})))", f"p{q * 100:.0f}")
                for q in (0.5, 0.99)
            ),
            "s",
        ),
        line("Looks a second by result", rate(names.OPERATOR_RECONCILES, "kind, result", ""), "{{kind}} {{result}}", "none"),
        line("API requests by code", rate(names.OPERATOR_API_REQUESTS, "verb, code", ""), "{{verb}} {{code}}", "reqps"),
        line("Resources by phase", f"sum by (kind, phase) ({names.JOBS})", "{{kind}} {{phase}}"),
        line(
            "Incidents and disruptions",
            f"sum by (kind, reason) (increase({names.JOB_RESTARTS}[1h]))",
            "{{kind}} {{reason}}",
            text="In an hour. Disruptions (drain, preemption) are not counted against maxRestarts.",
        ),
    ),
)

SECONDS = f"sum by (namespace, name) ({names.RUN_ACCELERATOR_SECONDS})"
FLEET = Board(
    "fleet",
    "pathoscale / Fleet",
    ("price",),
    (
        number("Resources", f"sum({names.JOBS})"),
        number("Running", f'sum({names.JOBS}{{phase="Running"}}) or vector(0)'),
        number("Images a second", rate(names.TRAIN_IMAGES, where=""), "none"),
        number("Accelerator-hours", f"sum({names.RUN_ACCELERATOR_SECONDS}) / 3600", "none", text="Of the runs that exist now."),
        number("Cost", f"sum({names.RUN_ACCELERATOR_SECONDS}) / 3600 * $price", "currencyUSD", text="At the price of the variable above."),
        number("Waiting for data", share(STEP_SUM, 'stage="data_wait"', ""), "percentunit"),
        Panel(
            "All runs",
            (
                (f"max by (kind, namespace, name, phase) ({names.RUN_PHASE})", "{{kind}} {{namespace}}/{{name}}: {{phase}}"),
                (f"max by (kind, namespace, name) ({names.RUN_PROGRESS})", "progress"),
            ),
            "percentunit",
            "table",
            12,
        ),
        line("Conditions that are true", f"count by (type, reason) ({names.RUN_CONDITION})", "{{type}} {{reason}}", width=12),
        line("Images a second by run", rate(names.TRAIN_IMAGES, "namespace, run", ""), "{{namespace}}/{{run}}", "none"),
        line("Accelerator-hours by run", f"{SECONDS} / 3600", "{{namespace}}/{{name}}", "none"),
        line("Cost by run", f"{SECONDS} / 3600 * $price", "{{namespace}}/{{name}}", "currencyUSD"),
    ),
)

BOARDS = (RUN, STREAMING, OPERATOR, FLEET)
