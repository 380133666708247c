"""Stories for each alert: what the metrics say, and what the alert says then. `promtool test rules` plays them.

Series are in promtool's notation, one sample a minute: `5+0x30` is 5 for 31 minutes, `0+60x30` grows by 60 a minute.
"""

import dataclasses
import pathlib
from typing import Any

import yaml

RULES = pathlib.Path(__file__).parents[2] / "charts" / "pathoscale" / "files" / "alerts.yaml"
RUN = 'namespace="lab",run="vits16",pod="vits16-pt-1-0"'
OBJECT = 'kind="PathoPretrain",namespace="lab",name="vits16"'
OPERATOR = 'namespace="ops",pod="operator-0"'
WHO = {"namespace": "lab", "run": "vits16"}
WHAT = {"namespace": "lab", "name": "vits16"}
TIMES = {"fetch": 50, "decode": 20, "resize": 5, "wait": 90}  # seconds that the readers spend in a minute


@dataclasses.dataclass(frozen=True)
class Story:
    """`says` is the alert's summary; empty: it does not fire."""

    title: str
    alert: str
    series: dict[str, str]
    says: str = ""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    at: str = "30m"


def waiting(data_wait: int, forward: int) -> dict[str, str]:
    """A run that waits and computes for these seconds of each minute."""
    stages = {f'patho_stream_seconds_total{{{RUN},stage="{stage}"}}': f"0+{seconds}x40" for stage, seconds in TIMES.items()}
    steps = {f'patho_train_step_seconds_sum{{{RUN},stage="{s}"}}': f"0+{n}x40" for s, n in (("data_wait", data_wait), ("forward", forward))}
    return stages | steps


def requests(ok: int, failed: int) -> dict[str, str]:
    """A run with these requests a minute."""
    labels = (("ok", ok), ("failed", failed))
    return {f'patho_stream_requests_total{{{RUN},store="gs",outcome="{name}"}}': f"0+{n}x40" for name, n in labels}


def queue(depth: str, done: str) -> dict[str, str]:
    """An operator's queue and the resources that it has dealt with."""
    reconciles = f'patho_operator_reconciles_total{{{OPERATOR},kind="PathoPretrain",result="done"}}'
    return {f"patho_operator_queue_depth{{{OPERATOR}}}": depth, reconciles: done}


def score(values: str, run: str = "vits16") -> dict[str, str]:
    """Scores of one evaluation."""
    return {f'patho_eval_score{{namespace="lab",run="{run}",name="bach",task="BACH",metric="balancedAccuracy"}}': values}


STEP = f"patho_train_step{{{RUN}}}"
SAVED = f"patho_checkpoint_last_success_timestamp_seconds{{{RUN}}}"
STALLED = f'patho_run_condition{{{OBJECT},type="Stalled",reason="Stalled"}}'
COLLAPSED = f'patho_run_condition{{{OBJECT},type="Collapsed",reason="FeaturesDegenerate"}}'
DIVERGED = f'patho_run_condition{{{OBJECT},type="Failed",reason="Diverged"}}'
CRASHED = f'patho_run_condition{{{OBJECT},type="Failed",reason="RestartsExhausted"}}'
RESTARTS = f"patho_run_restarts{{{OBJECT}}}"
QUARANTINED, SLIDES = f"patho_stream_quarantined_slides{{{RUN}}}", f"patho_stream_slides{{{RUN}}}"
QUEUED = f'patho_run_phase{{{OBJECT},phase="Queued"}}'
STARTING = f'patho_run_phase{{{OBJECT},phase="Starting"}}'
RUNNING = f'patho_run_phase{{{OBJECT},phase="Running"}}'
LEADER, STANDBY = 'patho_operator_leader{namespace="ops",pod="operator-0"}', 'patho_operator_leader{namespace="ops",pod="operator-1"}'

NO_STEP = "Run lab/vits16 has made no step for 15 minutes."
FAILING = {f'patho_operator_reconciles_total{{{OPERATOR},kind="PathoPretrain",result="error"}}': "0+2x40"}
STUCK = "Operator operator-0 has dealt with no resource for 10 minutes although some wait."
STORIES = (
    Story("a step counter that stands still", "PathoNoProgress", {STEP: "700+0x40"}, NO_STEP, WHO),
    Story("the operator saw a stall, and the gang was gone a minute later", "PathoNoProgress", {STALLED: "_x22 1 _x40"}, NO_STEP, WHO),
    Story("a stall of a quarter of an hour ago", "PathoNoProgress", {STEP: "0+10x40", STALLED: "_x14 1 _x40"}),
    Story("one step in ten minutes", "PathoNoProgress", {STEP: "1+0x9 2+0x9 3+0x9 4+0x9"}),
    Story("a long first index", "PathoNoProgress", {STEP: "0+0x40"}),
    Story(
        "half of the time is waiting",
        "PathoDataStarvation",
        waiting(30, 30),
        "Run lab/vits16 waits for data 50% of its time; its readers are busiest with fetch.",
        {**WHO, "stage": "fetch"},
    ),
    Story("a twelfth of the time is waiting", "PathoDataStarvation", waiting(5, 55)),
    Story(
        "collapsed",
        "PathoCollapsed",
        {COLLAPSED: "_x10 1+0x30"},
        "The features of run lab/vits16 carry little information any more.",
        WHAT,
    ),
    Story("healthy", "PathoCollapsed", {RUNNING: "1+0x40"}),
    Story(
        "diverged",
        "PathoDiverged",
        {DIVERGED: "_x10 1+0x100"},
        "The loss of run lab/vits16 became NaN or infinite; the run has ended.",
        WHAT,
    ),
    Story("diverged more than an hour ago", "PathoDiverged", {DIVERGED: "_x10 1+0x100"}, at="90m"),
    Story("failed of something else", "PathoDiverged", {CRASHED: "1+0x40"}),
    Story(
        "saved once, then never again",
        "PathoCheckpointTooOld",
        {SAVED: "0+0x9 600+0x200"},
        "The newest checkpoint of run lab/vits16 is 2h 20m 0s old.",
        WHO,
        at="150m",
    ),
    Story("saved every hour", "PathoCheckpointTooOld", {SAVED: "60+0x59 3600+0x59 7200+0x59"}, at="150m"),
    Story(
        "no checkpoint at all",
        "PathoNeverCheckpointed",
        {STEP: "0+10x200", SAVED: "0+0x200"},
        "Run lab/vits16 has trained for two hours since its start without a checkpoint.",
        WHO,
        at="150m",
    ),
    Story("a first checkpoint after an hour", "PathoNeverCheckpointed", {STEP: "0+10x200", SAVED: "0+0x60 3600+0x150"}, at="150m"),
    Story(
        "three incidents in half an hour",
        "PathoRestartsBurning",
        {RESTARTS: "1+0x9 2+0x4 3+0x4 4+0x40"},
        "PathoPretrain lab/vits16 had 3 incidents within an hour.",
        {"kind": "PathoPretrain", **WHAT},
    ),
    Story("three incidents in a day", "PathoRestartsBurning", {RESTARTS: "1+0x90 2+0x90 3+0x90 4+0x90"}, at="300m"),
    Story(
        "three slides in a hundred",
        "PathoSlidesQuarantined",
        {QUARANTINED: "3+0x40", SLIDES: "100+0x40"},
        "Run lab/vits16 cannot read 3% of its slides.",
        WHO,
    ),
    Story("three slides in a thousand", "PathoSlidesQuarantined", {QUARANTINED: "3+0x40", SLIDES: "1000+0x40"}),
    Story(
        "one request in twenty fails",
        "PathoBucketErrors",
        requests(95, 5),
        "5% of the requests of run lab/vits16 to gs fail for good.",
        {**WHO, "store": "gs"},
    ),
    Story("one request in a thousand fails", "PathoBucketErrors", requests(999, 1)),
    Story(
        "queued, then starting, for more than an hour",
        "PathoRunWaits",
        {QUEUED: "1+0x40 _x60", STARTING: "_x40 1+0x60"},
        "PathoPretrain lab/vits16 has not started for an hour.",
        {"kind": "PathoPretrain", **WHAT},
        at="90m",
    ),
    Story("queued for half an hour", "PathoRunWaits", {QUEUED: "1+0x29 _x70", RUNNING: "_x30 1+0x70"}, at="90m"),
    Story(
        "a tenth below the best",
        "PathoEvaluationRegressed",
        score("0.6+0x9 0.8+0x9 0.72+0x40"),
        "The newest checkpoint of run lab/vits16 scores 0.720 on BACH, more than 5 % below the run's best.",
        {**WHO, "name": "bach", "task": "BACH", "metric": "balancedAccuracy"},
        at="40m",
    ),
    Story("a hundredth below the best", "PathoEvaluationRegressed", score("0.6+0x9 0.8+0x9 0.792+0x40"), at="40m"),
    Story("another evaluation of another model", "PathoEvaluationRegressed", score("0.8+0x9 0.5+0x40", run=""), at="40m"),
    Story("nobody leads", "PathoOperatorDown", {LEADER: "1+0x9 0+0x40", STANDBY: "0+0x40"}, "No pathoscale operator leads."),
    Story("nobody is there", "PathoOperatorDown", {LEADER: "1+0x9 _x40"}, "No pathoscale operator leads."),
    Story("a standby takes over", "PathoOperatorDown", {LEADER: "1+0x9 _x40", STANDBY: "0+0x10 1+0x40"}),
    Story(
        "seven wait and none is done",
        "PathoOperatorQueueStuck",
        queue("7+0x40", "50+0x40"),
        STUCK,
        {"namespace": "ops", "pod": "operator-0"},
    ),
    Story("every turn fails", "PathoOperatorQueueStuck", FAILING, STUCK, {"namespace": "ops", "pod": "operator-0"}),
    Story("some turns fail", "PathoOperatorQueueStuck", FAILING | queue("0+0x40", "0+10x40")),
    Story("nothing to do", "PathoOperatorQueueStuck", queue("0+0x40", "50+0x40")),
    Story("many wait and they are worked on", "PathoOperatorQueueStuck", queue("90+0x40", "50+10x40")),
)


def rules() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    return {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}


def unit_tests() -> dict[str, Any]:
    """The stories as a file for `promtool test rules`."""
    return {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": [_unit_test(story) for story in STORIES]}


def _unit_test(story: Story) -> dict[str, Any]:
    rule = rules()[story.alert]
    annotations = rule["annotations"] | {"summary": story.says}
    alert = {"exp_labels": {**story.labels, **rule["labels"]}, "exp_annotations": annotations}
    return {
        "name": story.title,
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in story.series.items()],
        "alert_rule_test": [{"eval_time": story.at, "alertname": story.alert, "exp_alerts": [alert] if story.says else []}],
    }
