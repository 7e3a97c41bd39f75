"""MLflow's database of a project: of another version, damaged, or at a place that it cannot have."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing

import pytest

from promptgen.errors import PromptGenError
from steps import sync
from steps.recording.mlflow_store import connect, make_database
from tests.recording.recorded_loop import events_of, run_loop

pytestmark = pytest.mark.faults


def of_another_version(path):
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("update alembic_version set version_num = 'ffffffffffff'")


def damaged(path):
    path.write_bytes(b"\0damaged" * 1000)


@pytest.mark.parametrize("spoil", [of_another_version, damaged])
def test_a_database_that_mlflow_cannot_read_ends_no_run(root, caplog, capsys, spoil):
    spoil(root / "mlruns" / "mlflow.db")
    with pytest.raises(PromptGenError) as caught:
        connect(root)
    assert "\n" not in str(caught.value)
    assert "then run `promptgen sync`" in str(caught.value)
    folder = run_loop(root, until=1, interval=0.01)
    assert events_of(folder / "journal.jsonl")[-1]["status"] == "FINISHED"
    assert len(caplog.messages) == 2  # what is wrong, and that MLflow lacks something
    assert sync.run(root) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_folder_with_a_question_mark_is_told(root, empty_database, caplog):
    folder = root / "is it?mode=ro"
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(empty_database, folder / "mlruns" / "mlflow.db")
    with pytest.raises(PromptGenError, match="rename the folder with the question mark"):
        connect(folder)
    run_loop(folder, until=1, interval=0.01)
    assert len(caplog.messages) == 2


def test_what_a_killed_process_left_of_a_database_is_removed(bare_root):
    folder = bare_root / "mlruns"
    folder.mkdir()
    for name in (".mlflow.0123456789ab.part.db", ".mlflow.0123456789ab.part.db-journal"):
        (folder / name).write_bytes(b"half")
    make_database(folder / "mlflow.db")
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
