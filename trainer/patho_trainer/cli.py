"""The command `patho`. Errors are one sentence and an exit code; `--debug` shows the traceback."""

import os
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import click
import rich.console
from rich import markup

from patho_api import common, names, pretrain, report, resource, support
from patho_trainer import errors, local, terminal

console = rich.console.Console()
complain = rich.console.Console(stderr=True, highlight=False)


class Patho(click.Group):
    """A group whose commands turn known errors into one sentence and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (resource.InvalidResource, errors.PathoError, OSError) as error:
            if ctx.params["debug"]:
                raise
            complain.print(f"[red]error:[/red] {markup.escape(str(error))}", soft_wrap=True)
            sys.exit(getattr(error, "exit_code", names.EXIT_INVALID_CONFIGURATION))


@click.group(cls=Patho, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="pathoscale")
def main(debug: bool) -> None:
    """Pretrain and evaluate pathology foundation models on slides in buckets."""
    del debug  # read by Patho.invoke


@main.command(short_help="Run a manifest on this machine.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--processes", type=click.IntRange(1), help="Run on one node with this many processes, whatever the file says.")
@click.option("--out", default="runs", show_default=True, help="Folder for logs.")
def run(file: str, processes: int | None, out: str) -> None:
    """Run the manifest FILE on this machine; the same command goes on where it stopped."""
    for res in resource.load(file):
        chosen = res if processes is None else local.with_processes(res, processes)
        words = run_resource(chosen, pathlib.Path(out) / res.name)
        if local.exit_code(words) != names.EXIT_DONE:
            sys.exit(local.exit_code(words))


def run_resource(res: resource.Resource, folder: pathlib.Path) -> report.LastWords:
    """Run one resource with a progress bar and say how it ended. Raises InvalidConfiguration for what is not implemented."""
    refuse(res)
    console.print(f"[bold]{res.kind} {res.name}[/bold]: logs in {folder}/logs")
    if isinstance(res.spec, pretrain.PretrainSpec) and res.spec.evaluations:
        complain.print("[yellow]note:[/yellow] spec.evaluations needs the operator: here, run a PathoEval of a checkpoint yourself")
    with terminal.ProgressView(console) as view:
        words = local.execute(res, folder, view.show)
    if words.results:
        console.print(terminal.scores(words))
    color = "green" if local.exit_code(words) == names.EXIT_DONE else "red"
    console.print(f"[{color}]{words.reason}[/{color}]: {markup.escape(words.message)}", soft_wrap=True, highlight=False)
    return words


def refuse(res: resource.Resource) -> None:
    """Print the notes on fields without effect; raise InvalidConfiguration for what cannot run."""
    for note in support.notes(res.spec):
        complain.print(f"[yellow]note:[/yellow] {markup.escape(note)}", soft_wrap=True)
    refusals = support.refusals(res.spec)
    if refusals:
        raise errors.InvalidConfiguration("\n".join(refusals))


@main.command(short_help="Check a manifest and estimate its cost.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--images-per-second", type=click.FloatRange(min=0, min_open=True), help="Of the whole run, for the estimate of time.")
def validate(file: str, images_per_second: float | None) -> None:
    """Check FILE as the API server would, and estimate what the run costs."""
    from patho_trainer import estimate, preflight

    for res in resource.load(file):
        refuse(res)
        preflight.check_manifest(res.spec)
        console.print(f"[green]ok[/green] {res.kind} {res.name}")
        for line in estimate.lines(res, images_per_second):
            console.print(f"   {line}", highlight=False, soft_wrap=True)


def storage_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options for reaching a bucket, for commands without a manifest."""
    for option in (
        click.option("--anonymous", is_flag=True, help="Unsigned requests, for public buckets."),
        click.option("--region", default="", help="Region of the bucket."),
        click.option("--endpoint", default="", help="URL of an S3- or GCS-compatible server."),
    ):
        command = option(command)
    return command


@main.command(short_help="Index slides.")
@click.argument("source")
@click.option("--out", default="", help="Folder of the index (URL or path); a FILE names it itself.")
@click.option("--foreground", type=click.Choice(["Otsu", "Saturation", "Masks", "None"]), default="Otsu", show_default=True)
@click.option("--masks", default="", help="URL of your own masks with {id} or {name} in it, for --foreground Masks.")
@click.option("--explain", type=click.IntRange(0), metavar="STEP", help="Print slides and corners of a step of FILE as CSV; build nothing.")
@click.option("--index-version", default="", help="For --explain: the index that the run has pinned. [default: the latest]")
@storage_options
def index(
    source: str, out: str, foreground: str, masks: str, explain: int | None, index_version: str, endpoint: str, region: str, anonymous: bool
) -> None:
    """Index the slides of SOURCE: a manifest, a glob, a prefix that ends in /, or the FILE (.yaml) of a run with its own settings."""
    from patho_trainer import inspection

    if source.endswith((".yaml", ".yml")):
        if explain is None:
            inspection.build_index_of(_pretrain(source), console)
        else:
            for line in inspection.explain(_pretrain(source), explain, index_version):
                click.echo(line)
        return
    if not out or explain is not None:
        raise errors.InvalidConfiguration("patho index SOURCE needs --out, the folder of the index; --explain needs the FILE of a run")
    storage = common.Storage(endpoint=endpoint, region=region, anonymous=anonymous)
    inspection.build_index(source, out, {"method": foreground, "masksUrl": masks}, storage, console)


@main.command(short_help="Draw what a run will see.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--out", default="contact.png", show_default=True, type=click.Path(dir_okay=False))
@click.option("--step", default=0, show_default=True, type=click.IntRange(0), help="Step whose patches are shown.")
def preview(file: str, out: str, step: int) -> None:
    """Draw what a run of FILE sees: slides with their tissue, patches, augmented crops."""
    from patho_trainer import inspection

    for path in inspection.preview_run(_pretrain(file), step, pathlib.Path(out)):
        console.print(f"wrote {path}")


@main.command(short_help="Measure the loader alone: what limits it.")
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--steps", default=50, show_default=True, type=click.IntRange(1))
def bench(file: str, steps: int) -> None:
    """Measure the loader alone on the slides of FILE: patches a second, and which stage limits."""
    from patho_trainer import inspection

    for line in inspection.bench(_pretrain(file), steps):
        console.print(line, highlight=False)


@main.command(short_help="Hold two evaluations against each other.")
@click.argument("a")
@click.argument("b")
@storage_options
def compare(a: str, b: str, endpoint: str, region: str, anonymous: bool) -> None:
    """Hold two evaluations against each other: A and B are results.json files (URL or path), or the folders that hold them."""
    from patho_trainer.data import storage
    from patho_trainer.evaluation import compare as comparing

    bucket = storage.Bucket(common.Storage(endpoint=endpoint, region=region, anonymous=anonymous))
    first, second = (comparing.load(url, bucket) for url in (a, b))
    console.print(terminal.comparison(comparing.differences(first, second)))
    for sentence in comparing.warnings(first, second):
        console.print(f"[yellow]note:[/yellow] {markup.escape(sentence)}", soft_wrap=True, highlight=False)


@main.command(short_help="Write weights as timm loads them.")
@click.argument("checkpoint")
@click.option("--out", required=True, type=click.Path(file_okay=False), help="Folder for the weights, config.json and the model card.")
@storage_options
def export(checkpoint: str, out: str, endpoint: str, region: str, anonymous: bool) -> None:
    """Write the teacher of CHECKPOINT as timm loads it: timm.create_model(..., checkpoint_path=...)."""
    from patho_trainer import export as exporting

    storage = common.Storage(endpoint=endpoint, region=region, anonymous=anonymous)
    for path in exporting.export(checkpoint, pathlib.Path(out), storage):
        console.print(f"wrote {path}")


@main.command(short_help="Train, look and probe on a real slide.")
@click.option("--out", default="runs/demo", show_default=True, type=click.Path(file_okay=False), help="Folder for everything it makes.")
@click.option("--steps", default=None, type=click.IntRange(2), help="Optimizer steps, to make it shorter or longer.")
def demo(out: str, steps: int | None) -> None:
    """Train on a real slide through an object-store server, look at it, probe it: about three minutes."""
    from patho_trainer.demo import story

    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(story.tell(pathlib.Path(out), steps, console))


def _pretrain(file: str) -> resource.Resource:
    found = [r for r in resource.load(file) if r.kind == names.PRETRAIN]
    if not found:
        raise errors.InvalidConfiguration(f"{file} holds no {names.PRETRAIN}")
    return found[0]
