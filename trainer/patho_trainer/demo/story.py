"""`patho demo`: the main job, small and real. Slide in a bucket, index, two training processes, contact sheet, checkpoint, probe."""

import os
import pathlib
import time
import urllib.error
import urllib.request

import rich.console
import rich.panel
import yaml

from patho_api import names, report, resource
from patho_trainer import checkpoint, errors, inspection, local, terminal
from patho_trainer.data import slide
from patho_trainer.demo import labels, manifests, store
from patho_trainer.evaluation.datasets import folder as labelled_folder

SLIDE = "CMU-1-Small-Region.svs"
PROBE_PX = 64
PROBE_IMAGES = 60  # a class and split


def tell(folder: pathlib.Path, steps: int | None, console: rich.console.Console) -> int:
    """Run the demo in `folder`; returns the exit code. Run again after an interruption, it goes on from the last checkpoint."""
    begin = time.monotonic()
    slide_file = find_slide()
    folder.mkdir(parents=True, exist_ok=True)
    with store.Store(folder / "bucket") as bucket:
        console.print(f"An S3 server on the loopback ({bucket.storage.endpoint}) holds one slide: {SLIDE}")
        _fill(bucket, slide_file)
        run = _write(folder / "pretrain.yaml", manifests.pretrain(bucket.storage, steps or manifests.STEPS))
        words = _train(run, folder, bucket, console)
        if local.exit_code(words) != names.EXIT_DONE or words.checkpoint is None:
            console.print(f"[red]{words.reason}[/red]: {words.message}", soft_wrap=True)
            return local.exit_code(words) or 1
        inspection.preview_run(run, 0, folder / "contact.png")
        probe = _write(folder / "eval.yaml", manifests.evaluate(bucket.storage, words.checkpoint.url))
        scores = _probe(probe, folder, console)
    console.print(_summary(folder, words, scores, time.monotonic() - begin))
    return local.exit_code(scores)


def find_slide() -> pathlib.Path:
    """The demo's slide: in $PATHOSCALE_SLIDES, or in the checkout. Raises DataNotFound."""
    checkout = pathlib.Path(__file__).parents[3] / "tests" / "slides"
    folders = [pathlib.Path(f) for f in (os.environ.get("PATHOSCALE_SLIDES"), str(checkout)) if f]
    for path in (f / SLIDE for f in folders):
        if path.exists():
            return path
    raise errors.DataNotFound(f"{SLIDE} is in none of {', '.join(map(str, folders))}: run from a checkout, or set PATHOSCALE_SLIDES")


def _fill(bucket: store.Store, slide_file: pathlib.Path) -> None:
    if not bucket.bucket.exists(bucket.url(f"slides/{SLIDE}")):
        bucket.bucket.write(bucket.url(f"slides/{SLIDE}"), slide_file.read_bytes())
    if not bucket.bucket.list(bucket.url("labelled/")):
        cut = labels.cut(slide.open(str(slide_file)), PROBE_PX, PROBE_IMAGES)
        labelled_folder.write(bucket.bucket, bucket.url("labelled"), cut)


def _write(path: pathlib.Path, manifest: dict[str, object]) -> resource.Resource:
    path.write_text(yaml.safe_dump(manifest, sort_keys=False))
    return resource.parse(manifest)


def _train(run: resource.Resource, folder: pathlib.Path, bucket: store.Store, console: rich.console.Console) -> report.LastWords:
    past = checkpoint.latest(inspection.pretrain_spec(run).checkpoints.url, bucket.bucket)
    console.print(
        "Training with two processes: DINO, a tiny ViT (test_vit of timm), patches at 20x, 10x and 5x read online"
        + (f"; going on from step {past.step}" if past else "")
    )
    kept = 0
    with terminal.ProgressView(console) as view:

        def watch(now: report.ProgressReport) -> None:
            nonlocal kept
            view.show(now)
            if now.stage == "Training":
                _keep_metrics(folder)
            if now.checkpoint and now.checkpoint.step != kept:
                kept = now.checkpoint.step
                bucket.save()

        return local.execute(run, folder, watch)


def _keep_metrics(folder: pathlib.Path) -> None:
    """Keep the last scrape, so that one can read it after the run."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{os.environ[names.ENV_METRICS_PORT]}/metrics", timeout=2) as response:
            (folder / "metrics.txt").write_bytes(response.read())
    except (OSError, urllib.error.URLError):
        pass  # the run has just ended: the scrape before is kept


def _probe(probe: resource.Resource, folder: pathlib.Path, console: rich.console.Console) -> report.LastWords:
    console.print("Linear probe on frozen features: is an unseen patch epidermis, dermis or keratin? (chance 0.333)")
    with terminal.ProgressView(console) as view:
        words = local.execute(probe, folder / "probe", view.show)
    if words.results:
        console.print(terminal.scores(words))
    else:
        console.print(f"[red]{words.reason}[/red]: {words.message}", soft_wrap=True)
    return words


def _summary(folder: pathlib.Path, words: report.LastWords, scores: report.LastWords, seconds: float) -> rich.panel.Panel:
    score = scores.results[0] if scores.results else None
    lines = [
        f"Trained to step {words.step} and probed in {terminal.duration(seconds)}.",
        f"probe          balanced accuracy {score.mean:.3f} +- {score.std:.3f} over {score.runs} runs"
        if score
        else "probe          failed",
        f"what it saw    {folder}/contact.png",
        f"bucket         {folder}/bucket (slide, index, checkpoints, scores, as in s3://{store.BUCKET})",
        f"report         {folder}/bucket/evals/demo/report.html",
        f"metrics        {folder}/metrics.txt (the last scrape of /metrics)",
        f"manifests      {folder}/pretrain.yaml, {folder}/eval.yaml",
        "",
        f"Next: more steps (patho demo --steps 300 --out runs/longer), your own slides (edit slides.source in {folder}/pretrain.yaml, "
        "then patho validate and patho run), or a cluster (README: helm install, kubectl apply).",
    ]
    return rich.panel.Panel("\n".join(lines), title="pathoscale demo")
