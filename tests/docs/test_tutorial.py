"""The tutorial, done as it says: its files are written, its commands are run, one after the other."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.docs import pages
from tests.trainer import slides

TUTORIAL = pages.ROOT / "docs" / "tutorial.md"
COLOURS = {"pink": (230, 150, 190), "violet": (120, 80, 160)}


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """What the reader has: slides, and labelled images."""
    (tmp_path / "slides").mkdir()
    (tmp_path / "slides" / "one.svs").symlink_to(slides.CMU)
    draw = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, colour in COLOURS.items():
            place = tmp_path / "labelled" / split / name
            place.mkdir(parents=True)
            for i in range(6):
                Image.fromarray(np.clip(draw.normal(colour, 20, (64, 64, 3)), 0, 255).astype(np.uint8)).save(place / f"{i}.png")
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_tutorial_works_from_top_to_bottom(folder):
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ["PATH"]])
    for block in pages.blocks(TUTORIAL):
        if block.language == "yaml":
            (folder / re.findall(r"`(\w+\.yaml)`", block.before)[-1]).write_text(block.text)
            continue
        done = subprocess.run(["bash", "-ec", block.text], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True)
        assert done.returncode == 0, f"{block.text}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    made = ("contact.png", "index", "checkpoints/step-00000012", "results/report.html", "results/results.json", "exported/config.json")
    assert [name for name in made if not (folder / name).exists()] == []
