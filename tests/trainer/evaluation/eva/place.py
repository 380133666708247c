"""kaiko-eva, which the evaluation is compared with, in a folder of its own: its many packages never enter the project's environment.

`python -m tests.trainer.evaluation.eva.place` installs it (about a minute, 600 MB, once) and prints the folder.
"""

import hashlib
import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
CACHE = pathlib.Path.home() / ".cache" / "pathoscale"
NOT_INSTALLED = "kaiko-eva is not installed: `python -m tests.trainer.evaluation.eva.place` does it once"


def folder() -> pathlib.Path:
    """Where the pinned packages lie, or will: another folder for other pins or another Python."""
    key = hashlib.blake2b(REQUIREMENTS.read_bytes() + sys.version.encode(), digest_size=8).hexdigest()
    return CACHE / f"eva-{key}"


def installed() -> bool:
    return folder().exists()


def install() -> None:
    """Install beside, then rename: a folder with the final name is complete."""
    half = folder().with_suffix(f".{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--target", str(half), "-r", str(REQUIREMENTS)], check=True)
    half.rename(folder())


def run(*arguments: str, timeout_seconds: float = 240) -> str:
    """Run reference.py with eva on its path; what it printed. It gets no network, and one thread."""
    environment = os.environ | {"PYTHONPATH": str(folder()), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "NO_ALBUMENTATIONS_UPDATE": "1"}
    command = [sys.executable, "-W", "ignore", str(HERE / "reference.py"), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_seconds, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


if __name__ == "__main__":
    if not installed():
        install()
    print(folder())
