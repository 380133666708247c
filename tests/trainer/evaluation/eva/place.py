"""kaiko-eva, which the evaluation is compared with, in a folder of its own: its many packages never enter the project's environment.

`python -m tests.trainer.evaluation.eva.place` installs it (about a minute, 600 MB, once) and prints the folder.
"""

import os
import pathlib
import subprocess
import sys

from tests.aside import place

HERE = pathlib.Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
NOT_INSTALLED = "kaiko-eva is not installed: `python -m tests.trainer.evaluation.eva.place` does it once"


def folder() -> pathlib.Path:
    """Where the pinned packages lie, or will."""
    return place.folder(REQUIREMENTS, "eva")


def installed() -> bool:
    return folder().exists()


def run(*arguments: str, timeout_seconds: float = 240) -> str:
    """Run reference.py with eva on its path; what it printed. It gets no network, and one thread."""
    environment = os.environ | {"PYTHONPATH": str(folder()), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    command = [sys.executable, "-W", "ignore", str(HERE / "reference.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


if __name__ == "__main__":
    place.install(REQUIREMENTS, "eva")
    print(folder())
