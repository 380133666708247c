"""The blocks of a page: what is shown to a reader as code."""

import dataclasses
import pathlib
import re
import shlex

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@dataclasses.dataclass(frozen=True)
class Block:
    """`language` is bash, yaml, text or python; `before` the paragraph above it, `section` the heading."""

    page: pathlib.Path
    language: str
    text: str
    before: str
    section: str = ""


def blocks(page: pathlib.Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    parts = re.split(r"^```", page.read_text(), flags=re.MULTILINE)  # text, block, text, block, ..., text
    found, section = [], ""
    for before, part in zip(parts[0::2], parts[1::2], strict=False):
        section = (re.findall(r"^#+ (.*)$", before, re.MULTILINE) or [section])[-1]
        found.append(Block(page, *part.split("\n", 1), before.strip().rsplit("\n\n", 1)[-1], section))
    return found


def every(language: str) -> list[Block]:
    """The blocks of all pages in a language."""
    return [block for page in PAGES for block in blocks(page) if block.language == language]


def commands(block: Block) -> list[list[str]]:
    """The commands of a bash block as words, line continuations joined, comments left out."""
    text = block.text.replace("\\\n", " ")
    return [words for words in (shlex.split(line, comments=True) for line in text.splitlines()) if words]
