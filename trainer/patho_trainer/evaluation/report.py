"""`report.html`: results.json for people. One file without scripts; plots are inline SVG."""

from html import escape

from patho_trainer.evaluation import plots
from patho_trainer.evaluation.results import Results, TaskOutcome

FILE = "report.html"
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
table { border-collapse: collapse } td, th { padding: .25rem .9rem .25rem 0; text-align: left; vertical-align: top }
td, th { border-bottom: 1px solid #d8dee4 } .number { text-align: right; font-variant-numeric: tabular-nums }
svg { margin: 1rem 0; max-width: 100% } svg text { font: 12px system-ui, sans-serif }
"""
COLUMNS = ("balanced accuracy", "chance", "runs", "images", "RankMe", "ODCorr")


def html(results: Results) -> str:
    """The page."""
    source = escape(results.model.source)
    parts = [
        f"<h1>{source}</h1>",
        f"<p>Linear probes on frozen features, protocol {escape(results.protocol)}. Scores are mean ± standard deviation over runs.</p>",
        _scores(results.tasks),
        plots.scores(results.tasks),
        *(_task(task) for task in results.tasks),
        _facts(results),
    ]
    head = f'<meta charset="utf-8"><title>PathoEval of {source}</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _scores(tasks: list[TaskOutcome]) -> str:
    head = "".join(f'<th class="number">{column}</th>' for column in COLUMNS)
    return f"<table><tr><th>task</th>{head}</tr>{''.join(map(_score, tasks))}</table>"


def _score(task: TaskOutcome) -> str:
    images = f"{task.samples[task.scored_on]:,} ({task.scored_on})"
    values = (
        f"{task.mean:.3f} ± {task.std:.3f}",
        f"{1 / len(task.classes):.3f}",
        len(task.runs),
        images,
        f"{task.rank_me:.1f}",
        f"{task.od_corr:.3f}",
    )
    return f"<tr><td>{escape(task.task)}</td>" + "".join(f'<td class="number">{value}</td>' for value in values) + "</tr>"


def _task(task: TaskOutcome) -> str:
    images = ", ".join(f"{count:,} {split}" for split, count in task.samples.items())
    shared = " Early stopping and score share this split: the score is a little optimistic." if task.chosen_on == task.scored_on else ""
    reading = f"True classes down, predicted classes across: shares of the row, mean over {len(task.runs)} runs."
    return f"<h2>{escape(task.task)}</h2><p>{images} images; scored on {task.scored_on}.{shared} {reading}</p>{plots.confusion(task)}"


def _facts(results: Results) -> str:
    """How the numbers were made: what one needs to make them again."""
    model, norm = results.model, results.model.normalization
    facts = {
        "architecture": f"{model.architecture}, {model.pooling}, {model.feature_width} features",
        "weights": f"digest {model.weights_digest}" + ("" if model.step is None else f", step {model.step}"),
        "preprocessing": f"{model.preprocessing} to {model.image_size_px} px; mean {norm.mean}, std {norm.std}",
        "versions": ", ".join(f"{package} {version}" for package, version in results.versions.items()),
    } | {task.task: _made(task) for task in results.tasks}
    rows = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in facts.items())
    return f"<h2>How</h2><table>{rows}</table><p>Every run by itself: results.json.</p>"


def _made(task: TaskOutcome) -> str:
    recipe = ", ".join(f"{key} {value}" for key, value in task.recipe.items() if key != "protocol")
    return f"{task.kind} at {task.data}, version {task.data_version}; seeds {task.runs[0].seed} to {task.runs[-1].seed}; {recipe}"
