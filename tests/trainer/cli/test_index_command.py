"""`patho index`: what it prints, and the audit log of a step."""

import csv

import pytest

from patho_api import names, resource
from patho_trainer.data import index, sampler
from tests.trainer import slides
from tests.trainer.cli.test_cli import call, make_manifest


@pytest.fixture
def manifest(tmp_path):
    for number in range(3):
        recipe = slides.Recipe(mpp=0.5, vendor=True, sizes=((384, 256), (192, 128)), seed=number)
        slides.write(tmp_path / "slides" / f"s{number}.svs", recipe)
    slides.write(tmp_path / "slides" / "mute.tif", slides.Recipe(resolution=False))
    return make_manifest(tmp_path)


def test_the_index_of_a_run_is_built_with_its_own_settings_and_says_what_results(manifest, tmp_path):
    result = call("index", manifest)
    assert result.exit_code == 0, result.output
    assert f"3 slides in {tmp_path}/index (version " in result.output
    assert "0.50 um/px: 100% of the patches" in result.output
    assert "rejected 1 (NoMpp)" in result.output
    assert index.load(f"{tmp_path}/index").slides[0].accepted[0].size_px == 64


def test_a_step_is_explained_slide_by_slide_and_corner_by_corner(manifest, tmp_path):
    call("index", manifest)
    first, *lines = call("index", manifest, "--explain", "7").output.splitlines()
    (res,) = resource.load(manifest)
    found = index.load(f"{tmp_path}/index")
    expected = sampler.requests(found, res.spec, 0, 7)
    rows = list(csv.DictReader(lines))
    assert first == f"# small, step 7, seed 0, index {tmp_path}/index version {found.version}"
    assert [(int(r["slot"]), r["slide"], int(r["x"]), int(r["y"])) for r in rows] == [
        (r.slot, found.slides[r.slide].id, r.x, r.y) for r in expected
    ]


def test_a_step_is_explained_with_the_index_that_the_run_has_pinned(manifest, tmp_path):
    call("index", manifest)
    pinned = index.load(f"{tmp_path}/index").version
    before = call("index", manifest, "--explain", "5").output
    (tmp_path / "slides" / "s1.svs").unlink()
    call("index", manifest)
    assert call("index", manifest, "--explain", "5").output != before
    assert call("index", manifest, "--explain", "5", "--index-version", pinned).output == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["s3://b/slides/"], "needs --out, the folder of the index"),
        (["s3://b/slides/", "--out", "i", "--explain", "1"], "--explain needs the FILE of a run"),
        (["s3://b/slides/", "--out", "i", "--foreground", "Masks"], "Masks needs it: a url pattern with {id} or {name}"),
        (["s3://b/slides/", "--out", "i", "--foreground", "Masks", "--masks", "s3://m/a.png"], "one mask for all slides"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(arguments, words):
    result = call("index", *arguments)
    assert result.exit_code == names.EXIT_INVALID_CONFIGURATION
    assert words in " ".join(result.output.split())


def test_explaining_before_there_is_an_index_says_how_to_make_one(manifest):
    result = call("index", manifest, "--explain", "0")
    assert result.exit_code == names.EXIT_NO_DATA
    assert "build one with `patho index" in " ".join(result.output.split())
