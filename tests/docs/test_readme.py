"""Every block of the README is parsed: manifests by the contract, commands by the programs that they name."""

import pathlib
import re
import shlex
import subprocess

import pytest
import yaml

from patho_api import resource
from patho_trainer import cli

ROOT = pathlib.Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The commands of all bash blocks as words, line continuations joined, comments left out."""
    text = "\n".join(body for language, body in BLOCKS if language == "bash").replace("\\\n", " ")
    return [words for words in (shlex.split(line, comments=True) for line in text.splitlines()) if words]


def of(program: str) -> list[list[str]]:
    return [words for words in commands() if pathlib.PurePath(words[0]).name == program]


def test_every_block_is_bash_yaml_or_what_a_terminal_shows():
    assert {language for language, _ in BLOCKS} == {"bash", "yaml", "text"}
    assert {pathlib.PurePath(words[0]).name for words in commands()} == {"make", "patho", "docker", "helm", "kubectl"}


@pytest.mark.parametrize("text", [body for language, body in BLOCKS if language == "yaml"])
def test_a_manifest_is_valid(text):
    assert resource.parse(yaml.safe_load(text)).spec


@pytest.mark.parametrize("words", of("patho"), ids=" ".join)
def test_a_patho_command_is_understood_and_its_files_exist(words):
    command = cli.main.commands[words[1]]
    context = command.make_context(words[1], list(words[2:]))
    assert (ROOT / context.params["file"]).exists()


@pytest.mark.parametrize("words", of("make"), ids=" ".join)
def test_a_make_target_exists(words):
    subprocess.run(["make", "--dry-run", *words[1:]], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.parametrize("words", of("kubectl") + of("helm"), ids=" ".join)
def test_a_cluster_command_names_files_that_exist(words):
    paths = [w for w in words if w.startswith(("examples/", "charts/"))]
    assert all((ROOT / p).exists() for p in paths)


@pytest.mark.parametrize("words", of("docker"), ids=" ".join)
def test_a_docker_command_names_a_target_of_the_dockerfile(words):
    targets = re.findall(r"^FROM .* AS (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert words[words.index("--target") + 1] in targets


def test_links_lead_to_files():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert links
    assert all((ROOT / link).exists() for link in links)
