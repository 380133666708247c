"""What commands show on a terminal of 80 columns, for the README. `python -m tests.docs.captures` runs `patho demo` and writes its screen;
that of `kubectl get ppt --watch` comes from tests/cluster/test_dashboards.py, as the dashboards' pictures do."""

import pathlib
import re
import sys
import tempfile
from collections.abc import Sequence

from tests.docs import pages, terminal

README = pages.ROOT / "README.md"


def put(name: str, lines: Sequence[str], page: pathlib.Path = README) -> None:
    """Replace the block below the page's comment `captured: NAME`."""
    block = re.compile(rf"(<!-- captured: {name} -->\n```text\n).*?(^```$)", re.MULTILINE | re.DOTALL)
    text = "".join(f"{line}\n" for line in lines)
    changed, count = block.subn(lambda found: found[1] + text + found[2], page.read_text())
    assert count == 1, f"{page} has no block that is captured: {name}"
    page.write_text(changed)


def demo() -> list[str]:
    """The screen after `patho demo`."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(pathlib.Path(sys.executable).with_name("patho")), "demo", "--out", "runs/demo"]
        code, output = terminal.run(command, cwd=folder)
    if code:
        raise SystemExit(output)
    return terminal.screen(output)


if __name__ == "__main__":
    put("demo", demo())
