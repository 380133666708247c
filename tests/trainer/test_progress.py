"""What a run tells while it runs, and when it ends."""

import json
import time
import urllib.error
import urllib.request

import pytest

from patho_api import names, report, status
from patho_trainer import lastwords, metrics, progress, server, workspace


@pytest.fixture
def space(tmp_path):
    return workspace.Workspace(tmp_path)


@pytest.fixture
def served(space):
    space.metrics.mkdir()
    with server.start(space, 0) as running:
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read()


def reporter(space, clock=time.time):
    return progress.Reporter(space, "run-1", enabled=True, clock=clock)


def test_pace_is_a_mean_over_the_latest_steps():
    pacer = progress.Pacer(batch_size=64, total_steps=110)
    for _ in range(10):
        pacer.add(2.0, 0.5)
    assert pacer.pace(10) == progress.Pace(images_per_second=32.0, data_wait_percent=25.0, eta_seconds=200)


def test_a_slow_start_is_forgotten():
    pacer = progress.Pacer(batch_size=1, total_steps=1000)
    pacer.add(1000.0, 0.0)
    for _ in range(progress.WINDOW_STEPS):
        pacer.add(1.0, 0.0)
    assert pacer.pace(51).images_per_second == 1.0


def test_a_report_keeps_what_was_said_before(space):
    now = [0.0]
    told = reporter(space, lambda: now[0])
    told.tell(stage="Training", step=1, total_steps=5, loss=2.5)
    now[0] = 10.0
    told.tell(step=2)
    found = progress.read(space)
    assert (found.step, found.total_steps, found.loss, found.time) == (2, 5, 2.5, "1970-01-01T00:00:10Z")


def test_reports_are_written_twice_a_second_and_when_the_stage_changes(space):
    told = reporter(space, lambda: 0.1)
    told.tell(stage="Training", step=1)
    told.tell(step=2)
    assert progress.read(space).step == 1
    told.tell(stage="Saving")
    assert progress.read(space).step == 2


def test_only_one_process_reports(space):
    progress.Reporter(space, "run-1", enabled=False).tell(stage="Training")
    assert progress.read(space) is None


def test_progress_is_what_the_operator_reads(space, served):
    reporter(space).tell(stage="Training", step=3, total_steps=9)
    found = report.ProgressReport.model_validate_json(get(served + "/progress"))
    assert (found.run_id, found.step) == ("run-1", 3)


@pytest.mark.parametrize("path", ["/progress", "/secrets"])
def test_what_is_not_there_is_404(served, path):
    with pytest.raises(urllib.error.HTTPError) as error:
        get(served + path)
    assert error.value.code == 404
    error.value.close()


def test_a_taken_port_is_replaced_by_a_free_one(space, capsys):
    with server.start(space, 0) as first, server.start(space, first.server_port) as second:
        assert second.server_port != first.server_port
        assert "is taken" in capsys.readouterr().out
        first.shutdown()
        second.shutdown()


def test_health_and_metrics_are_served(served):
    assert get(served + "/healthz") == b"ok\n"
    assert get(served + "/metrics") == b""


def test_every_metric_has_a_name_of_the_contract():
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    metrics.TrainMetrics(registry)
    ours = {m.name if m.type != "counter" else m.name + "_total" for m in registry.collect()}
    assert ours <= {value for key, value in vars(names).items() if key.startswith(("TRAIN_", "STREAM_", "CHECKPOINT_"))}


def test_counters_advance_by_what_totals_have_grown():
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    found = metrics.TrainMetrics(registry)
    advance = metrics.Advance()
    advance(found.bytes, [(("gs",), 10)])
    advance(found.bytes, [(("gs",), 25)])
    assert registry.get_sample_value(names.STREAM_BYTES, {"store": "gs"}) == 25


def test_last_words_go_where_the_environment_says(tmp_path):
    file = tmp_path / "words"
    words = report.LastWords(reason="Diverged", message="lower it", step=3, checkpoint=status.CheckpointRef(step=2, url="gs://b/x"))
    lastwords.say(words, {names.ENV_TERMINATION_LOG: str(file)})
    assert report.LastWords.model_validate(json.loads(file.read_bytes())) == words


def test_last_words_fit_into_a_termination_message():
    result = status.TaskResult(task="t" * 64, metric="m" * 64, mean=0.5, std=0.1, runs=5, samples=10)
    words = report.LastWords(reason="Completed", message="é" * 2048, results=[result] * 16)
    data = lastwords.fit(words)
    assert len(data) <= report.MAX_LAST_WORDS_BYTES
    assert report.LastWords.model_validate_json(data).message.endswith("...")
