"""MLflow's database of a project: of another version, damaged, or in a folder with an odd name."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from promptgen.errors import PromptGenError
from steps import sync
from steps.recording.mlflow_store import connect, experiment_id, make_database
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


@pytest.mark.parametrize("name", ["is it?mode=ro", "50% of #1 ü", "what?100%"])
def test_the_database_of_a_folder_of_any_name_lies_in_it(bare_root, monkeypatch, name):
    monkeypatch.chdir(bare_root)
    folder = bare_root / name
    client = connect(folder)
    run = client.create_run(experiment_id(client, folder, "any"))
    client.log_text(run.info.run_id, "text", "a.txt")
    assert [file.path for file in connect(folder).list_artifacts(run.info.run_id)] == ["a.txt"]
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database:
        assert database.execute("select count(*) from runs").fetchone() == (1,)
    assert [path.name for path in bare_root.iterdir()] == [name]


def test_what_a_killed_process_left_of_a_database_is_removed(bare_root):
    folder = bare_root / "mlruns"
    folder.mkdir()
    for name in (".mlflow.0123456789ab.part.db", ".mlflow.0123456789ab.part.db-journal"):
        (folder / name).write_bytes(b"half")
    make_database(folder / "mlflow.db")
    assert [path.name for path in folder.iterdir()] == ["mlflow.db"]
