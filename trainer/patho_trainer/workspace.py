"""The folder on this machine where the processes of one pod leave notes for each other. Nothing in it outlives the pod."""

import dataclasses
import os
import pathlib
import re
import tempfile
from collections.abc import Mapping

from patho_api import names


@dataclasses.dataclass(frozen=True)
class Workspace:
    """Files of one run on this machine."""

    folder: pathlib.Path

    @property
    def progress(self) -> pathlib.Path:
        """What the reporting process said last (`report.ProgressReport`)."""
        return self.folder / "progress.json"

    @property
    def steps(self) -> pathlib.Path:
        """Losses and patches of every step, a JSON object a line."""
        return self.folder / "steps.jsonl"

    @property
    def verdict(self) -> pathlib.Path:
        """Why a worker ended for good (`verdict.Verdict`)."""
        return self.folder / "verdict.json"

    @property
    def words(self) -> pathlib.Path:
        """What the reporting process of an evaluation has found out (`report.LastWords`)."""
        return self.folder / "words.json"

    @property
    def rounds(self) -> pathlib.Path:
        """A line for each start of workers here: the size of `steps` then."""
        return self.folder / "rounds"

    @property
    def failure(self) -> pathlib.Path:
        """What a worker said when it failed last."""
        return self.folder / "failure"

    @property
    def metrics(self) -> pathlib.Path:
        """Files of prometheus_client's multiprocess mode."""
        return self.folder / "metrics"

    @property
    def logs(self) -> pathlib.Path:
        """Files of torchrun."""
        return self.folder / "torchrun"

    @property
    def scratch(self) -> pathlib.Path:
        """Checkpoints on their way to or from the bucket."""
        return self.folder / "checkpoint"


def at(run_id: str, node_rank: int, environ: Mapping[str, str] = os.environ) -> Workspace:
    """The workspace of a run, in the pod's scratch folder. The node's number keeps two "pods" on one laptop apart."""
    scratch = environ.get(names.ENV_SCRATCH_DIR) or tempfile.gettempdir()
    return Workspace(pathlib.Path(scratch) / f"patho-{re.sub(r'[^A-Za-z0-9._-]', '_', run_id)}-{node_rank}")


def replace(path: pathlib.Path, data: bytes) -> None:
    """Write a file at once: a reader sees the old one or the new one, never half of it."""
    half = path.with_name(f"{path.name}.{os.getpid()}")
    half.write_bytes(data)
    half.replace(path)


def begin_round(space: Workspace) -> list[int]:
    """Note that workers start here; returns the size of the file of steps at each start so far, this one included."""
    with space.rounds.open("a+") as file:
        file.write(f"{space.steps.stat().st_size if space.steps.exists() else 0}\n")
        file.seek(0)
        return [int(line) for line in file]
