"""The local control plane, used as docs/install.md says: a newcomer's commands, one after the other, in one shell."""

import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from tests.chart import prometheus
from tests.cluster import controlplane, tools
from tests.docs import pages

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(400)]
BLOCKS = [block for block in pages.blocks(pages.ROOT / "docs" / "install.md") if block.section.startswith("No cluster at hand")]
NEEDED = ("charts", "examples", "tests")  # of the checkout, in the folder where the commands run


@pytest.fixture
def folder() -> Iterator[pathlib.Path]:
    """A folder like a checkout; what the commands started there is stopped, whatever happened."""
    if missing := tools.missing():
        pytest.skip(f"NOT RUN: {', '.join(missing)} not built: {tools.BUILD_HINT}")
    with tempfile.TemporaryDirectory(prefix="patho-", ignore_cleanup_errors=True) as name:
        made = pathlib.Path(name)
        for part in NEEDED:
            (made / part).symlink_to(pages.ROOT / part)
        (made / ".venv").symlink_to(sys.prefix)
        yield made
        if (made / f"pathoscale-cluster-{os.getuid()}").exists():
            subprocess.run([sys.executable, "-m", "tests.cluster.down"], cwd=made, env=os.environ | {"TMPDIR": name}, check=True)


def commands(folder: pathlib.Path) -> str:
    """The page's blocks as one script, on free ports and with its own folder for /tmp; make's targets as what they run."""
    prometheus_port = str(controlplane.free_port())
    parts = []
    for block in BLOCKS:
        told = block.text.replace("/tmp/", f"{folder}/").replace("9090", prometheus_port)
        text = f"cat > prometheus.yml <<'END'\n{told}END\n" if block.language == "yaml" else told
        parts.append(re.sub(r"make cluster-(\w+)", rf"{sys.executable} -m tests.cluster.\1", text))
    text = "\n".join(parts)
    return text.replace("127.0.0.1:8080", f"127.0.0.1:{controlplane.free_port()}")


def test_a_newcomer_has_a_run_and_its_metrics(folder: pathlib.Path):
    prometheus.path("prometheus")
    text = commands(folder)
    port = re.findall(r'targets: \["127.0.0.1:(\d+)"\]', text)[0]
    shell = subprocess.Popen(
        ["bash", "-ec", text],
        cwd=folder,
        env=os.environ | {"TMPDIR": str(folder), "PATHO_PORT": port},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = shell.communicate(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)  # where a command has failed: the operator and Prometheus
    assert shell.returncode == 0, said
    assert re.search(r'patho_run_phase\{.*name="vits16-try".*phase="(Starting|Running)".*\} => 1', said)
    assert re.search(r"^vits16-try +Succeeded", said, re.MULTILINE)
    assert "the cluster is down" in said
