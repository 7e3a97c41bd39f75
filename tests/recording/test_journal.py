"""The journal of a loop: whole lines, each fact once, through kills, full disks and damage."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from promptgen.errors import StorageError
from steps import sync
from steps.recording.events import End, Metrics
from steps.recording.journal import Journal
from steps.recording.mlflow_store import ROOT
from steps.recording.replay import published, push
from tests.faults import dead_server, full_disk
from tests.recording.recorded_loop import events_of, history_of, project_of, run_loop, runs_of


@pytest.fixture
def journal(bare_root):
    return Journal(project_of(bare_root))


@pytest.mark.faults
def test_half_a_line_left_by_a_kill_is_dropped(journal, bare_root):
    journal.write(End(run="loop", status="KILLED"))
    with journal.path.open("a") as file:
        file.write('{"kind": "sta')
    Journal(project_of(bare_root)).write(End(run="loop", status="FINISHED"))
    assert [event["status"] for event in events_of(journal.path)] == ["KILLED", "FINISHED"]


def test_a_fact_is_written_once_but_a_status_each_time(journal, bare_root):
    for _ in range(2):
        journal.write(Metrics(run="loop", values={"a": 1.0}, step=1))
    for status in ("FAILED", "FINISHED", "FAILED"):
        journal.write(End(run="loop", status=status))
    again = Journal(project_of(bare_root))
    again.write(Metrics(run="loop", values={"a": 1.0}, step=1))
    again.write(Metrics(run="loop", values={"a": 1.0}, step=2))
    kinds = [event["kind"] for event in events_of(journal.path)]
    assert kinds == ["metrics", "end", "end", "end", "metrics"]


@pytest.mark.faults
def test_a_full_disk_leaves_whole_lines_and_a_restart_goes_on(root):
    project = project_of(root)
    journal = Journal(project)
    journal.write(Metrics(run="loop", values={"a": 1.0}, step=1))
    before = journal.path.read_bytes()
    with full_disk(journal.path.parent, room=20), pytest.raises(StorageError, match=r"cannot write .*journal\.jsonl"):
        journal.write(Metrics(run="loop", values={"a": 2.0}, step=2))  # 20 bytes of the line still fit
    assert journal.path.read_bytes() == before
    journal.write(Metrics(run="loop", values={"a": 2.0}, step=2))
    assert [event["step"] for event in events_of(journal.path)] == [1, 2]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("damaged_kind", "damage"),
    [
        ("metrics", b"\x00\xff\x00"),
        ("metrics", b"[" * 20_000),
        ("metrics", b'{"time": 1, "kind": "metrics", "run": "pass-0", "values": [1], "step": 1}'),
        ("metrics", b'{"time": 1, "kind": ["metrics"], "run": {}}'),
        ("metrics", b'{"time": 1, "kind": "metrics", "run": "pass-0", "values": {}, "step": 9999999999999999999}'),
        ("start", b'{"time": 1, "kind": "start", "run": "pass-0"}'),
        ("start", b'{"kind": "ru'),
        ("start", b"17"),
    ],
)
def test_an_unreadable_line_is_skipped_with_one_warning(root, caplog, monkeypatch, damage, damaged_kind):
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", dead_server())
        folder = run_loop(root, until=1)
    path = folder / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    number = next(n for n, line in enumerate(lines) if json.loads(line)["kind"] == damaged_kind)
    lines[number] = damage + b"\n"
    path.write_bytes(b"".join(lines))
    caplog.clear()
    run_loop(root, until=2)
    assert push(folder, root) == 0
    assert sum("skipped" in record.getMessage() for record in caplog.records) == 1
    runs = runs_of(root)
    assert {"0 generator", "1 control", "tiny"} == runs.keys()
    assert runs["0 generator"].data.tags["mlflow.parentRunId"] == runs["tiny"].info.run_id
    assert runs["0 generator"].data.metrics["bias/kl/judge/value"] == 1.0


def test_infinite_and_missing_numbers_survive(root):
    journal = Journal(project_of(root))
    with published(journal.path.parent, root), journal.run_loop({}), journal.run_pass(1, "control") as run:
        journal.write(Metrics(run=run, values={"up": float("inf"), "none": float("nan")}, step=0))
    metrics = runs_of(root)["1 control"].data.metrics
    assert metrics["up"] > 1e308
    assert metrics["none"] != metrics["none"]


def train(root, steps):
    """Record the curve of a training, slowly."""
    journal = Journal(project_of(root))
    with (
        published(journal.path.parent, root, interval=0.05),
        journal.run_loop({}),
        journal.run_pass(1, "control") as run,
    ):
        for step in steps:
            journal.write(Metrics(run=run, values={"train/loss": 1 / (step + 1)}, step=step))
            time.sleep(0.02)


@pytest.mark.faults
def test_curves_arrive_while_training_and_a_killed_run_continues_them(root):
    """SIGKILL in the middle of a training; the restart repeats some steps, and MLflow has every step once."""
    code = (
        "import itertools, sys; from pathlib import Path; from tests.recording.test_journal import train\n"
        "train(Path(sys.argv[1]), itertools.count())\n"
    )
    run = subprocess.Popen([sys.executable, "-c", code, str(root)], cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        steps = []
        while len(steps) < 5:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.2)
            try:
                steps = history_of(root, "1 control", "train/loss")
            except (AttributeError, KeyError):  # no experiment yet, or no run
                continue
    finally:
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    assert runs_of(root)["1 control"].info.status == "RUNNING"
    (path,) = root.glob("artifacts/tiny/tracking/*/journal.jsonl")
    written = max(event.get("step", 0) for event in events_of(path)) + 1
    train(root, range(written + 3))
    assert sync.run(root) == 0
    assert history_of(root, "1 control", "train/loss") == [(n, 1 / (n + 1)) for n in range(written + 3)]
    assert sorted(runs_of(root)) == ["1 control", "tiny"]
    assert runs_of(root)["1 control"].info.status == "FINISHED"
