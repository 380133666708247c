"""torchrun's agent inside the entrypoint, with small scripts as workers."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from patho_api import common
from patho_trainer import errors, launcher, verdict, workspace
from patho_trainer.task import Task

RUN = "run-1"
VERDICT = verdict.Verdict(run_id=RUN, exit_code=40, reason="InvalidConfiguration", message="spec.x: wrong")


@pytest.fixture
def space(tmp_path):
    return workspace.Workspace(tmp_path)


def script(tmp_path: pathlib.Path, body: str) -> list[str]:
    file = tmp_path / "worker.py"
    file.write_text("import os, pathlib, signal, sys, time\n" + textwrap.dedent(body))
    return [str(file), str(tmp_path)]


def gang(**changes) -> launcher.Gang:
    return launcher.Gang(**({"run_id": RUN, "node_rank": 0, "nodes": 1, "min_nodes": 1, "processes": 1} | changes))


def nobody() -> None:
    return None


def test_workers_that_end_well_end_the_run(tmp_path, space):
    body = "pathlib.Path(sys.argv[1], 'rank' + os.environ['RANK']).touch()"
    assert launcher.run(gang(processes=2), space, script(tmp_path, body), nobody) is None
    assert sorted(p.name for p in tmp_path.glob("rank*")) == ["rank0", "rank1"]


def test_a_killed_worker_is_started_again(tmp_path, space):
    body = """
        starts = pathlib.Path(sys.argv[1], "starts")
        starts.write_text(starts.read_text() + "x" if starts.exists() else "x")
        if len(starts.read_text()) < 3:
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert launcher.run(gang(), space, script(tmp_path, body), nobody) is None
    assert (tmp_path / "starts").read_text() == "xxx"


def test_a_verdict_ends_the_run_without_another_start(tmp_path, space):
    body = f"""
        with open(sys.argv[1] + "/starts", "a") as file:
            file.write("x")
        pathlib.Path(sys.argv[1], "verdict.json").write_text({VERDICT.model_dump_json()!r})
        sys.exit(40)
    """
    assert launcher.run(gang(), space, script(tmp_path, body), nobody) == VERDICT
    assert (tmp_path / "starts").read_text() == "x"


def test_a_peers_verdict_stops_workers_that_still_run(tmp_path, space, monkeypatch):
    monkeypatch.setattr(launcher, "PEERS_SECONDS", 0.0)
    ours = gang(nodes=2, min_nodes=1, rank0="localhost:0")
    assert launcher.run(ours, space, script(tmp_path, "time.sleep(600)"), lambda: VERDICT) == VERDICT


def test_sigterm_reaches_the_workers_and_lets_them_save(tmp_path, space):
    body = """
        def save(*_):
            pathlib.Path(sys.argv[1], "saved").touch()
            sys.exit(143)
        signal.signal(signal.SIGTERM, save)
        pathlib.Path(sys.argv[1], "ready").touch()
        time.sleep(600)
    """

    def stop() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    end = launcher.run(gang(), space, script(tmp_path, body), nobody)
    assert (end.exit_code, end.reason) == (143, "Stopped")
    assert (tmp_path / "saved").exists()


def two_pods(folder: pathlib.Path, body: str) -> list[subprocess.Popen]:
    """Pods 0 and 1, each in a process of its own; `body` is what their workers do."""
    arguments = script(folder, body)
    code = textwrap.dedent(f"""
        import sys, pathlib
        from patho_trainer import launcher, workspace
        k, port = int(sys.argv[1]), sys.argv[2]
        gang = launcher.Gang(run_id="r", node_rank=k, nodes=2, min_nodes=2, processes=1, rank0="localhost:" + port)
        launcher.wait_for_rank0(gang)
        space = workspace.Workspace(pathlib.Path({str(folder)!r}) / str(k))
        space.folder.mkdir()
        sys.exit(launcher.run(gang, space, {arguments!r}, lambda: None) is not None)
    """)
    port = str(free_port())
    environment = os.environ | {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    pods = []
    for k in ("0", "1"):
        with open(folder / f"said-{k}", "w") as said:
            pods.append(subprocess.Popen([sys.executable, "-c", code, k, port], env=environment, stderr=said))
    return pods


def test_two_pods_meet_at_the_first_ones_address(tmp_path):
    pods = two_pods(tmp_path, "pathlib.Path(sys.argv[1], 'of' + os.environ['WORLD_SIZE'] + '-' + os.environ['RANK']).touch()")
    assert [pod.wait(120) for pod in pods] == [0, 0]
    assert sorted(p.name for p in tmp_path.glob("of*")) == ["of2-0", "of2-1"]


@pytest.mark.slow
def test_a_pod_whose_pod_0_is_gone_ends_and_says_so(tmp_path):
    body = """
        pathlib.Path(sys.argv[1], "of" + os.environ["RANK"]).touch()
        agent = os.getppid()
        while os.getppid() == agent:
            time.sleep(0.1)
    """
    host, other = two_pods(tmp_path, body)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.glob("of*"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    host.kill()
    assert (host.wait(10), other.wait(120)) == (-9, 1)
    assert "HostLost: pod 0 does not answer at localhost:" in (tmp_path / "said-1").read_text()


def test_a_pod_0_that_answers_late_is_not_gone():
    with socket.socket() as pod_0:
        pod_0.bind(("127.0.0.1", 0))
        ours = gang(node_rank=1, nodes=2, rank0=f"127.0.0.1:{pod_0.getsockname()[1]}")
        assert launcher.is_gone(ours, lambda _: None)  # it does not listen
        assert not launcher.is_gone(ours, lambda _: pod_0.listen())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize(
    ("rank0", "host", "port"), [("run-pt-1-0.run-pt", "run-pt-1-0.run-pt", 29500), ("localhost:1234", "localhost", 1234)]
)
def test_the_address_of_pod_0_may_name_a_port(rank0, host, port):
    assert (gang(rank0=rank0).host, gang(rank0=rank0).port) == (host, port)


def test_several_pods_need_the_address_of_pod_0():
    todo = Task(kind="PathoPretrain", spec=None, attempt=1, run_id=RUN, node_rank=1, rank0="")
    with pytest.raises(errors.InvalidConfiguration, match="rank0-env"):
        launcher.gang(todo, common.Compute(nodes=2))


def test_an_elastic_gang_may_go_on_with_fewer_pods(space):
    config = launcher.config(gang(nodes=4, min_nodes=2, rank0="h"), space)
    assert (config.min_nodes, config.max_nodes, config.rdzv_endpoint) == (2, 4, "h:29500")
