"""Processes of a test cluster: each with a log and a pid file, ended only when it is still the process that was started."""

import os
import pathlib
import signal
import subprocess
from collections.abc import Mapping, Sequence

from tests.cluster import waiting

LOG_TAIL_CHARACTERS = 2000


class Died(RuntimeError):
    """A process ended that should be running; the message has the end of its log."""


class Processes:
    """Processes that belong together. With `outlive`, they go on when this one ends (for cluster-up); else the kernel ends them."""

    def __init__(self, folder: pathlib.Path, *, outlive: bool = False):
        self.folder = folder
        self.outlive = outlive
        self._children: dict[str, subprocess.Popen[bytes]] = {}  # to reap them
        folder.mkdir(parents=True, exist_ok=True)

    def start(self, name: str, command: Sequence[str | os.PathLike[str]], env: Mapping[str, str] | None = None) -> int:
        """Start `command` as `name` and return its pid. Its output goes to `<folder>/<name>.log`."""
        prefix: list[str] = [] if self.outlive else ["setpriv", "--pdeathsig", "KILL"]  # execs: the pid stays
        with open(self.log(name), "ab") as log:
            child = subprocess.Popen(
                [*prefix, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if env is None else dict(env),
                start_new_session=True,
            )
        self._children[name] = child
        self._pid_file(name).write_text(f"{child.pid} {_start_time(child.pid)}")
        return child.pid

    def log(self, name: str) -> pathlib.Path:
        """Log file of a process."""
        return self.folder / f"{name}.log"

    def check(self, name: str) -> bool:
        """True. Raises Died if the process has ended."""
        if not self.pid(name):
            raise Died(f"{name} has ended; the end of {self.log(name)}:\n{self.log(name).read_text()[-LOG_TAIL_CHARACTERS:]}")
        return True

    def pid(self, name: str) -> int:
        """Pid of a process that is running; 0 if it is not (any more)."""
        file = self._pid_file(name)
        pid, _, started = file.read_text().partition(" ") if file.exists() else ("0", "", "")
        if started and _start_time(int(pid)) == started:
            return int(pid)
        if name in self._children:
            self._children.pop(name).wait()  # reap it
        return 0

    def stop(self, name: str, sign: signal.Signals = signal.SIGTERM, seconds: float = 10) -> None:
        """Send `sign`, and SIGKILL when the process has not gone `seconds` later."""
        if pid := self.pid(name):
            os.kill(pid, sign)
            try:
                waiting.until(lambda: not self.pid(name), what=f"end of {name}", seconds=seconds, interval_seconds=0.05)
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                waiting.until(lambda: not self.pid(name), what=f"end of {name} after SIGKILL", seconds=10)
        self._pid_file(name).unlink(missing_ok=True)

    def kill(self, name: str) -> None:
        """End a process as a crash does."""
        self.stop(name, signal.SIGKILL)

    def stop_all(self) -> None:
        """End everything, the last started first, without grace: nothing that they hold is kept."""
        files = sorted(self.folder.glob("*.pid"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
        for file in files:
            self.kill(file.stem)

    def _pid_file(self, name: str) -> pathlib.Path:
        return self.folder / f"{name}.pid"


def _start_time(pid: int) -> str:
    """When a process began, in clock ticks since boot: with the pid, its identity. Empty for one that has ended (or is a zombie)."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]
