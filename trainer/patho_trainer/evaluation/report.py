"""`report.html`: results.json for people. One file without scripts; plots are inline SVG, pictures inline PNG."""

import base64
from collections.abc import Sequence
from html import escape

from patho_trainer.evaluation import exhibits, plots, published, results
from patho_trainer.evaluation.exhibits import Exhibit
from patho_trainer.evaluation.results import Results, TaskOutcome

FILE = "report.html"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem; overflow-wrap: anywhere } h2 { font-size: 1.15rem; margin-top: 2.5rem } h3 { font-size: 1rem }
table { border-collapse: collapse } td, th { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top }
td { overflow-wrap: anywhere }
td, th { border-bottom: 1px solid #d8dee4 } .number { text-align: right; font-variant-numeric: tabular-nums }
svg { margin: 1rem 0; max-width: 100%; height: auto } svg text { font: 12px system-ui, sans-serif }
figure { display: inline-block; margin: .3rem .6rem .3rem 0 } figure img { width: 150px; height: 150px; image-rendering: pixelated }
figcaption { font-size: .8rem; color: #57606a } .key span { display: inline-block; padding: 0 .5rem; margin-right: .4rem; color: #fff }
"""
COLUMNS = ("score", "metric", "chance", "runs", "samples", "RankMe", "ODCorr")
METRICS = {results.BALANCED_ACCURACY: "balanced accuracy", results.DICE: "Dice without background"}


def html(made: Results, shown: Sequence[Exhibit], checkpoints: Sequence[Results]) -> str:
    """The page. `shown` has an entry for each task; `checkpoints` are evaluations of the same run by step, this one among them."""
    source = escape(made.model.source)
    parts = [
        f"<h1>{source}</h1>",
        f"<p>Probes on frozen features; protocol: {escape(made.protocol)}. Scores are mean ± standard deviation over runs.</p>",
        _scores(made.tasks),
        plots.scores(made.tasks),
        _curves(made, checkpoints),
        *(_task(task, exhibit) for task, exhibit in zip(made.tasks, shown, strict=True)),
        _facts(made),
    ]
    head = f'<meta charset="utf-8"><title>PathoEval of {source}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _scores(tasks: list[TaskOutcome]) -> str:
    head = "".join(f'<th class="number">{column}</th>' for column in COLUMNS)
    return f"<table><tr><th>task</th>{head}</tr>{''.join(map(_score, tasks))}</table>"


def _score(task: TaskOutcome) -> str:
    values = (
        f"{task.mean:.3f} ± {task.std:.3f}",
        METRICS[task.metric],
        f"{1 / len(task.classes):.3f}" if task.metric == results.BALANCED_ACCURACY else "",
        len(task.runs),
        f"{task.samples[task.scored_on]:,} ({task.scored_on})",
        f"{task.rank_me:.1f}",
        f"{task.od_corr:.3f}",
    )
    return f"<tr><td>{escape(task.task)}</td>" + "".join(f'<td class="number">{value}</td>' for value in values) + "</tr>"


def _curves(made: Results, checkpoints: Sequence[Results]) -> str:
    """RankMe and the scores over the checkpoints of the run."""
    if not checkpoints:
        return ""
    steps = [r.model.step or 0 for r in checkpoints]
    drawn = [plots.curve("RankMe, mean over the tasks", steps, [r.rank_me for r in checkpoints])]
    for i, task in enumerate(made.tasks):
        scores, spreads = [r.tasks[i].mean for r in checkpoints], [r.tasks[i].std for r in checkpoints]
        drawn.append(plots.curve(f"{task.task}, {METRICS[task.metric]}", steps, scores, spreads))
    return f"<h2>Over the checkpoints of the run</h2>{''.join(drawn)}"


def _task(task: TaskOutcome, exhibit: Exhibit) -> str:
    counts = ", ".join(f"{count:,} {split}" for split, count in task.samples.items())
    shared = " Early stopping and score share this split: the score is a little optimistic." if task.chosen_on == task.scored_on else ""
    of = "pixels of the true class" if task.metric == results.DICE else "the true class"
    reading = f"True classes down, predicted classes across: shares of {of}, mean over {len(task.runs)} runs."
    return "".join(
        [
            f"<h2>{escape(task.task)}</h2><p>{counts} samples; scored on {task.scored_on}.{shared}</p>",
            _published(task),
            f"<h3>Confusion</h3><p>{reading}</p>{plots.confusion(task)}",
            _scatter(task, exhibit),
            _pictures(task, exhibit),
        ]
    )


def _published(task: TaskOutcome) -> str:
    """The scores of the paper or of eva's leaderboard, whichever has this task by this protocol."""
    table, source = (
        (published.TABLE_I, published.PAPER)
        if task.recipe["protocol"].startswith("Paper")
        else (published.EVA_LEADERBOARD, published.LEADERBOARD)
    )
    known = {model: scores[task.kind] for model, scores in table.items() if task.kind in scores}
    if not known:
        return ""
    return f"<h3>Against published scores</h3><p>The blue line and band are this model. {escape(source)}.</p>{plots.against(task, known)}"


def _scatter(task: TaskOutcome, exhibit: Exhibit) -> str:
    if not exhibit.points:
        return ""
    said = f"{len(exhibit.points)} samples of {task.scored_on} on the two main directions of their features (principal components)."
    return f"<h3>Features</h3><p>{said}</p>{plots.scatter(exhibit.points, task.classes)}"


def _pictures(task: TaskOutcome, exhibit: Exhibit) -> str:
    if not exhibit.pictures:
        return ""
    key = "".join(f'<span style="background:{exhibits.colour(i)}">{escape(name)}</span>' for i, name in enumerate(task.classes) if i)
    rows = []
    for i, picture in enumerate(exhibit.pictures):
        drawn = (("patch", picture.image), ("truth", picture.truth), (f"seed {task.runs[0].seed}", picture.prediction))
        rows.append("<div>" + "".join(_figure(data, f"{i + 1}: {caption}") for caption, data in drawn) + "</div>")
    return f'<h3>Samples</h3><p class="key">{key}</p>{"".join(rows)}'


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<figure><img alt="{escape(caption)}" src="data:image/png;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'


def _facts(made: Results) -> str:
    """How the numbers were made: what one needs to make them again."""
    model, norm = made.model, made.model.normalization
    facts = {
        "architecture": f"{model.architecture}, {model.pooling}",
        "weights": f"digest {model.weights_digest}" + ("" if model.step is None else f", step {model.step}"),
        "preprocessing": f"{model.image_size_px} px; mean {norm.mean}, std {norm.std}",
        "versions": ", ".join(f"{package} {version}" for package, version in made.versions.items()),
    } | {task.task: _made(task) for task in made.tasks}
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts.items())
    return f"<h2>How</h2><table>{rows}</table><p>Every run by itself: results.json.</p>"


def _made(task: TaskOutcome) -> str:
    recipe = ", ".join(f"{key} {value}" for key, value in task.recipe.items())
    return (
        f"{task.kind} at {task.data}, version {task.data_version}; {task.preprocessing}; {task.feature_width} features; "
        f"seeds {task.runs[0].seed} to {task.runs[-1].seed}; {recipe}"
    )
