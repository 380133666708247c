"""Packages that tests compare with or read through, in folders of their own: they never enter the project's environment.

`python -m tests.aside.place` installs what is missing (once, two minutes) and prints the folders. A process sees one of them by its
PYTHONPATH, before the environment's packages: their pins differ.
"""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path.home() / ".cache" / "pathoscale"
OPPONENTS = HERE / "opponents.txt"  # the benchmark installs them: tiffslide, cuCIM without its GPU libraries, wsistream; 600 MB
OTHERS = HERE / "others.txt"  # gcsfs, s3fs, adlfs; torchdata; pylibCZIrw, which writes CZI; 200 MB
AZURITE = HERE / "azurite"  # package.json and its lock: Azure's blob server; 365 MB
AZURITE_FOLDER = CACHE / f"azurite-{hashlib.blake2b((AZURITE / 'package-lock.json').read_bytes(), digest_size=8).hexdigest()}"
HINT = "install it once with: python -m tests.aside.place"


def folder(requirements: pathlib.Path, name: str = "") -> pathlib.Path:
    """Where the pinned packages of a file lie, or will: another folder for other pins or another Python."""
    key = hashlib.blake2b(requirements.read_bytes() + sys.version.encode(), digest_size=8).hexdigest()
    return CACHE / f"{name or requirements.stem}-{key}"


def install(requirements: pathlib.Path, name: str = "") -> None:
    """Install beside, then rename: a folder with the final name is complete."""
    target = folder(requirements, name)
    if target.exists():
        return
    half = target.with_suffix(f".{os.getpid()}")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]
    subprocess.run([*command, "--target", str(half), "-r", str(requirements)], check=True)
    half.rename(target)


def install_azurite() -> None:
    """As `install`, by npm."""
    if AZURITE_FOLDER.exists():
        return
    half = AZURITE_FOLDER.with_suffix(f".{os.getpid()}")
    shutil.copytree(AZURITE, half)
    subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"], cwd=half, check=True)
    half.rename(AZURITE_FOLDER)


def environment(requirements: pathlib.Path, *more: str) -> dict[str, str]:
    """Of a process that sees these packages first, then `more` folders."""
    return os.environ | {"PYTHONPATH": os.pathsep.join([str(folder(requirements)), *more])}


if __name__ == "__main__":
    install(OTHERS)
    print(folder(OTHERS))
    if shutil.which("npm"):
        install_azurite()
        print(AZURITE_FOLDER)
