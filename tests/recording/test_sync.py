"""A journal's copy in MLflow: servers that are away or slow, kills, and a database that was deleted."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time

import pytest

from promptgen.files import sha256_of
from steps import sync
from steps.recording.events import Artifact
from steps.recording.journal import Journal
from steps.recording.mlflow_store import ROOT, TrackingError, connect
from steps.recording.replay import STATE_NAME, push
from tests.faults import dead_server, silent_server
from tests.recording.recorded_loop import history_of, project_of, run_loop, runs_of


def test_a_run_made_just_before_a_kill_is_found_again(root):
    folder = run_loop(root, until=1)
    (folder / STATE_NAME).unlink()  # killed between making the runs and noting their ids
    push(folder, root)
    assert sorted(runs_of(root)) == ["0 generator", "tiny"]


@pytest.mark.faults
def test_a_dead_server_costs_no_time_and_the_journal_replays(root, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", dead_server())
    connect(root)  # pays for the import, so that the time below is the recording's own
    start = time.monotonic()
    folder = run_loop(root, interval=0.01)
    assert time.monotonic() - start < 30
    assert "promptgen sync" in caplog.text
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert push(folder, root) > 10
    assert sorted(runs_of(root)) == ["0 generator", "1 control", "tiny"]
    assert push(folder, root) == 0


@pytest.mark.faults
def test_a_server_that_never_answers_holds_nothing_up(root, monkeypatch):
    with silent_server() as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", silent)
        connect(root)
        start = time.monotonic()
        run_loop(root, interval=0.01, patience=0.5)
        assert time.monotonic() - start < 5  # a single call would wait as long


def test_replaying_from_the_start_changes_nothing(root):
    folder = run_loop(root)
    before = {name: run.data.to_dictionary() for name, run in runs_of(root).items()}
    (folder / STATE_NAME).unlink()
    assert push(folder, root) > 0
    assert {name: run.data.to_dictionary() for name, run in runs_of(root).items()} == before
    assert history_of(root, "1 control", "train/loss") == [(0, 1.0), (1, 1 / 2), (2, 1 / 3)]


@pytest.mark.long
def test_a_deleted_database_is_made_again_from_the_journal(root):
    folder = run_loop(root)
    shutil.move(root / "mlruns", root / "lost")
    code = (  # in a process of its own: MLflow keeps connections to the database that was
        "import sys; from pathlib import Path\n"
        "from steps.recording.replay import push; from tests.recording.recorded_loop import runs_of\n"
        "folder, root = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "push(folder, root)\n"
        "assert sorted(runs_of(root)) == ['0 generator', '1 control', 'tiny']\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(root)], cwd=ROOT, check=True)


def test_a_file_that_changed_since_is_not_sent(root, caplog):
    folder = run_loop(root, until=0)
    report = root / "reports" / "metrics.json"
    journal = Journal(project_of(root))
    journal.write(Artifact(run="loop", path="reports/metrics.json", sha256="0" * 64, folder="later"))
    assert sha256_of(report) != "0" * 64
    push(folder, root)
    assert "reports/metrics.json has changed since it was recorded" in caplog.text
    assert connect(root).list_artifacts(runs_of(root)["tiny"].info.run_id, "later") == []


def test_two_senders_of_one_journal_take_turns(root):
    folder = run_loop(root, until=1, patience=0.0)
    threads = [threading.Thread(target=push, args=(folder, root)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runs_of(root)) == ["0 generator", "tiny"]


def test_sync_says_in_one_line_what_is_wrong(root, monkeypatch, capsys):
    folder = run_loop(root, until=0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(TrackingError, match=r"run `promptgen sync`") as caught:
        push(folder, root)
    assert "secret" not in str(caught.value)
    assert sync.run(root) == 2
    assert capsys.readouterr().err.count("\n") == 1
