"""torchrun's agent, run inside the pod's entrypoint: starts the workers, restarts them in place, and stops when that is pointless."""

import contextlib
import dataclasses
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from torch.distributed.elastic import multiprocessing
from torch.distributed.launcher import api as launcher

from patho_api import common, names
from patho_trainer import errors, task, verdict, workspace

WATCH_SECONDS = 0.2
PEERS_SECONDS = 15.0  # how often pods of one run look for each other's verdict in the bucket: 1,000 pods ask 67 times a second
WAITING_SECONDS = 30.0
ASKED_TIMES, ASKED_EVERY_SECONDS = 3, 1.0  # whether pod 0 is gone: a busy one, or a line that fails for a moment, answers in the end
QUIET = {"TORCH_CPP_LOG_LEVEL": "ERROR"}  # else every worker warns of DDP's `find_unused_parameters`, which is meant
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclasses.dataclass(frozen=True)
class Gang:
    """The pods of an attempt, and which one this is. `rank0` is `host` or `host:port` of pod 0; unused with one node."""

    run_id: str
    node_rank: int
    nodes: int
    min_nodes: int
    processes: int
    rank0: str = ""

    @property
    def host(self) -> str:
        return self.rank0.rpartition(":")[0] or self.rank0

    @property
    def port(self) -> int:
        port = self.rank0.rpartition(":")[2]
        return int(port) if ":" in self.rank0 else names.PORT_RENDEZVOUS


def gang(todo: task.Task, compute: common.Compute) -> Gang:
    """This pod's part of a gang. Raises InvalidConfiguration where several pods are asked for and the address of pod 0 is missing."""
    if compute.nodes > 1 and not todo.rank0:
        raise errors.InvalidConfiguration("the host of pod 0 is not known: --rank0-env must name a variable that holds it")
    return Gang(
        run_id=todo.run_id,
        node_rank=todo.node_rank,
        nodes=compute.nodes,
        min_nodes=compute.min_nodes or compute.nodes,
        processes=compute.processes_per_node,
        rank0=todo.rank0,
    )


def config(gang: Gang, space: workspace.Workspace) -> launcher.LaunchConfig:
    """How torchrun is asked to run the gang. One node needs no other: it meets itself on a free port."""
    alone = gang.nodes == 1
    return launcher.LaunchConfig(
        min_nodes=gang.min_nodes,
        max_nodes=gang.nodes,
        nproc_per_node=gang.processes,
        run_id=gang.run_id,
        role="worker",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0" if alone else f"{gang.host}:{gang.port}",
        rdzv_configs={
            "is_host": gang.node_rank == 0,
            "join_timeout": 86400,  # the operator owns the time-out: one slow image pull must not fail the others
            "last_call_timeout": 2,
            "keep_alive_interval": 2,
            "keep_alive_max_attempt": 3,
        },
        max_restarts=1000,  # the operator is the judge
        monitor_interval=0.5,
        local_addr="localhost" if alone else None,
        logs_specs=multiprocessing.DefaultLogsSpecs(log_dir=str(space.logs)),
        signals_to_handle="SIGHUP,SIGQUIT",  # SIGTERM and SIGINT are `_stoppable`'s
    )


def wait_for_rank0(gang: Gang) -> None:
    """Until pod 0 has a name and, for the others, listens: it may still pull its image (pytorch#73682)."""
    begin = time.monotonic()
    said = begin
    while not _reachable(gang):
        if time.monotonic() - said > WAITING_SECONDS:
            said = time.monotonic()
            print(f"waiting for {gang.host}:{gang.port} since {said - begin:.0f} s", flush=True)
        time.sleep(1.0)


def _reachable(gang: Gang) -> bool:
    try:
        if gang.node_rank == 0:
            socket.getaddrinfo(gang.host, gang.port)
        else:
            socket.create_connection((gang.host, gang.port), timeout=5).close()
    except OSError:
        return False
    return True


def is_gone(gang: Gang, pause: Callable[[float], None]) -> bool:
    """Whether pod 0 answers none of a few calls; `pause(seconds)` between them."""
    for again in range(ASKED_TIMES):
        if again:
            pause(ASKED_EVERY_SECONDS)
        if _reachable(gang):
            return False
    return True


def run(
    gang: Gang,
    space: workspace.Workspace,
    arguments: list[str],
    peers: Callable[[], verdict.Verdict | None],
) -> verdict.Verdict | None:
    """Run `python ARGUMENTS` in every worker until all have ended well (None) or the run is over for this pod (why).

    `peers` asks whether another pod of the run has ended for good. Raises HostLost where pod 0 is gone, ChildFailedError and torchrun's
    other errors for what a new pod may not suffer.
    """
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    with _stoppable(), _watching(space, peers if gang.nodes > 1 else None):
        try:
            launcher.elastic_launch(config(gang, space), sys.executable)(*arguments)
        except (multiprocessing.SignalException, KeyboardInterrupt):
            return verdict.found(space.verdict) or _stopped(gang.run_id)
        except Exception as error:
            left = verdict.found(space.verdict)
            if left is not None:
                return left
            if gang.node_rank and is_gone(gang, time.sleep):
                raise errors.HostLost(f"pod 0 does not answer at {gang.host}:{gang.port} any more: {type(error).__name__}") from error
            raise
    return None


def _stopped(run_id: str) -> verdict.Verdict:
    """The workers were told to save, and did not manage to."""
    error = errors.Stopped("stopped before a checkpoint was complete: the run goes on from the one before")
    return verdict.Verdict(run_id=run_id, exit_code=error.exit_code, reason=error.reason, message=str(error))


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """SIGTERM and SIGINT stop the agent, once: it passes them on, and a second one must not disturb the workers' last save."""
    stopping = threading.Event()

    def handler(number: int, _: FrameType | None) -> None:
        if not stopping.is_set():
            stopping.set()
            raise multiprocessing.SignalException(f"signal {number}", signal.SIGTERM)

    before = {number: signal.signal(number, handler) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@contextlib.contextmanager
def _watching(space: workspace.Workspace, peers: Callable[[], verdict.Verdict | None] | None) -> Iterator[None]:
    """Look for a verdict that ends the run, and then stop the agent the way a SIGTERM does."""
    over = threading.Event()
    thread = threading.Thread(target=_watch, args=(space, peers, over), name="verdict", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _watch(space: workspace.Workspace, peers: Callable[[], verdict.Verdict | None] | None, over: threading.Event) -> None:
    asked = time.monotonic()
    while not over.wait(WATCH_SECONDS):
        if peers and time.monotonic() - asked > PEERS_SECONDS:
            asked = time.monotonic()
            _listen(space, peers)
        left = verdict.found(space.verdict)
        if left is not None and left.ends_the_run:
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _listen(space: workspace.Workspace, peers: Callable[[], verdict.Verdict | None]) -> None:
    try:
        theirs = peers()
    except errors.PathoError as error:
        print(f"the other pods' verdict could not be read: {error}", flush=True)  # the next look will tell
        return
    if theirs is not None:
        verdict.leave(theirs, space.verdict)
