"""Why a worker ended for good, told to its agent and to its peers.

torchrun restarts whatever fails and ends with code 1. A worker whose error would only happen again leaves a verdict: a file for the
entrypoint of its own pod, which then stops its agent, and `<checkpoints>/verdict-<attempt>.json` for the entrypoints of the others.
"""

import pathlib

import pydantic

from patho_api import names
from patho_trainer import errors, fencing, workspace
from patho_trainer.data import storage


class Verdict(pydantic.BaseModel):
    """How a run ended, with the sentence for the user."""

    run_id: str
    exit_code: int
    reason: str
    message: str

    @property
    def ends_the_run(self) -> bool:
        """Whether starting workers again is pointless. A stop after a save is only remembered: the agent decides about it."""
        return self.exit_code != names.EXIT_STOPPED


def of(error: errors.PathoError, run_id: str) -> Verdict | None:
    """The verdict that an error is; None for an error that may pass, such as a bucket that did not answer."""
    final = error.exit_code in (*names.PERMANENT_EXITS, names.EXIT_STOPPED) or isinstance(error, fencing.Superseded)
    return Verdict(run_id=run_id, exit_code=error.exit_code, reason=error.reason, message=str(error)) if final else None


def leave(verdict: Verdict, file: pathlib.Path) -> None:
    """Leave it for the entrypoint of this pod. The first one that ends the run stays: what follows from it is not the cause."""
    before = found(file)
    if before is None or not before.ends_the_run:
        workspace.replace(file, verdict.model_dump_json().encode())


def found(file: pathlib.Path) -> Verdict | None:
    """The verdict that a worker of this pod has left."""
    try:
        return Verdict.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return None


def forget_stop(file: pathlib.Path) -> None:
    """Workers start again: that the ones before had stopped says nothing any more."""
    before = found(file)
    if before is not None and not before.ends_the_run:
        file.unlink(missing_ok=True)


def fruitless(message: str, run_id: str) -> Verdict:
    """The verdict on workers that fail again and again: a new pod, or a person, must try."""
    return Verdict(run_id=run_id, exit_code=1, reason="Crashed", message=message)


def url(root: str, attempt: int) -> str:
    """Where peers look."""
    return f"{root.rstrip('/')}/verdict-{attempt}.json"


def publish(verdict: Verdict, root: str, attempt: int, bucket: storage.Bucket) -> None:
    """Tell the peers."""
    bucket.write(url(root, attempt), verdict.model_dump_json().encode())


def published(root: str, attempt: int, run_id: str, bucket: storage.Bucket) -> Verdict | None:
    """What a peer of the same run has published. A verdict of an earlier run in the same folder says nothing."""
    try:
        verdict = Verdict.model_validate_json(bucket.read(url(root, attempt)))
    except (storage.NotFound, pydantic.ValidationError):
        return None
    return verdict if verdict.run_id == run_id else None
