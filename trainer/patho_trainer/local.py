"""A run on this machine: the AppDef of `patho_api.launch` under torchx' local scheduler, watched through its progress endpoint."""

import contextlib
import json
import logging
import os
import pathlib
import socket
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator

import pydantic
from torchx import runner, specs

from patho_api import launch, names, report, resource
from patho_trainer import errors

POLL_SECONDS = 0.5
KILLED = report.LastWords(
    reason="Crashed", message="the processes ended without a word (killed?): the same command goes on from the last checkpoint"
)
EXIT_CODES = {reason: code for code, reason in names.EXIT_REASONS.items()} | {"Completed": names.EXIT_DONE}


def execute(res: resource.Resource, folder: pathlib.Path, watch: Callable[[report.ProgressReport], None]) -> report.LastWords:
    """Run a resource to its end; logs go to `folder`. Calls `watch` with each new report. Interrupting it stops the processes
    gracefully (they save). Returns why it ended."""
    folder.mkdir(parents=True, exist_ok=True)
    words_file = folder / "last-words.json"
    words_file.unlink(missing_ok=True)
    port = free_port()
    logging.getLogger("torchx").setLevel(logging.ERROR)  # its pages about GPUs: what is wrong with them the run says in a sentence
    scratch = tempfile.TemporaryDirectory(prefix="patho-", ignore_cleanup_errors=True)  # copies of slides may lie there: it goes
    with scratch, _environment(words_file, port, scratch.name), runner.get_runner() as local:
        handle = local.run(launch.appdef(res), scheduler="local_cwd", cfg={"log_dir": str(folder / "logs")})
        try:
            _watch(local, handle, f"http://127.0.0.1:{port}/progress", watch)
        except BaseException:
            local.cancel(handle)
            raise
    return _last_words(words_file)


def exit_code(words: report.LastWords) -> int:
    """The exit code that belongs to the last words."""
    return EXIT_CODES.get(words.reason, 1)


def free_port() -> int:
    """A TCP port of the loopback that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def with_processes(res: resource.Resource, processes: int) -> resource.Resource:
    """The same run on one node with `processes` processes and whatever accelerators are here. Raises InvalidConfiguration when the
    batch is too small for that."""
    spec = res.spec.dump()
    spec["compute"] |= {"nodes": 1, "minNodes": None, "processesPerNode": processes, "resources": {}}
    try:
        body = {"apiVersion": names.API_VERSION, "kind": res.kind, "metadata": {"name": res.name}, "spec": spec}
        return resource.parse(body)
    except resource.InvalidResource as error:
        raise errors.InvalidConfiguration(str(error)) from error


@contextlib.contextmanager
def _environment(words_file: pathlib.Path, port: int, scratch: str) -> Iterator[None]:
    """What a pod gets from Kubernetes and a process here inherits: `python` on the path, where to speak, to listen and to put files."""
    here = {
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]),
        names.ENV_TERMINATION_LOG: str(words_file.absolute()),
        names.ENV_METRICS_PORT: str(port),
        names.ENV_SCRATCH_DIR: os.environ.get(names.ENV_SCRATCH_DIR, scratch),
    }
    before = {name: os.environ.get(name) for name in here}
    os.environ.update(here)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _watch(local: runner.Runner, handle: specs.AppHandle, url: str, watch: Callable[[report.ProgressReport], None]) -> None:
    seen = None
    while True:
        status = local.status(handle)
        now = read_progress(url)
        if now is not None and now != seen:
            watch(now)
            seen = now
        if status is None or status.is_terminal():
            return
        time.sleep(POLL_SECONDS)


def read_progress(url: str) -> report.ProgressReport | None:
    """The report of a running process; None while there is none."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return report.ProgressReport.model_validate_json(response.read(report.MAX_PROGRESS_BYTES))
    except (OSError, urllib.error.URLError, pydantic.ValidationError):
        return None


def _last_words(file: pathlib.Path) -> report.LastWords:
    try:
        return report.LastWords.model_validate(json.loads(file.read_text()))
    except (OSError, ValueError):
        return KILLED
