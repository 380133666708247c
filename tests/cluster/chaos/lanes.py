"""Operators behind the proxy: real processes, started again whenever they end, as a kubelet does."""

import asyncio
import contextlib
import os
import pathlib
import sys
from collections.abc import Mapping

RESTART_SECONDS = 0.1
KILLED = -9


class Lane:
    """One operator that is always started again."""

    def __init__(self, folder: pathlib.Path, name: str, kubeconfig: pathlib.Path, module: str, environment: Mapping[str, str]) -> None:
        self._module = module
        self.kubeconfig = kubeconfig
        self.log = folder / f"{name}.log"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("KUBERNETES_")}
        self.environment = kept | {"KUBECONFIG": str(kubeconfig)} | dict(environment)
        self._process: asyncio.subprocess.Process | None = None
        self.ends: list[int] = []  # return codes of those that ended

    async def __aenter__(self) -> "Lane":
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.end()

    async def end(self) -> None:
        """SIGKILL, and no new start."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self.kill()
        if self._process:
            await self._process.wait()

    @property
    def crashes(self) -> list[int]:
        """Return codes of operators that nobody killed."""
        return [code for code in self.ends if code != KILLED]

    def kill(self) -> None:
        """SIGKILL."""
        if self._process and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    def signal(self, sign: int) -> None:
        """Any signal."""
        if self._process and self._process.returncode is None:
            self._process.send_signal(sign)

    async def _run(self) -> None:
        while True:
            with open(self.log, "ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *("setpriv", "--pdeathsig", "KILL", sys.executable, "-m", self._module),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=self.environment | {"START": str(len(self.ends))},  # how often it was started before
                )
            self.ends.append(await self._process.wait())
            await asyncio.sleep(RESTART_SECONDS)
