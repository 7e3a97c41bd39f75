"""Runs of the loop without a Prefect server of their own: each starts one for itself, which may fail or die."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests import tiny
from tests.loop.runs import STATE, children_of, one_pass, start, two_passes

pytestmark = [pytest.mark.long, pytest.mark.server, pytest.mark.faults, pytest.mark.timeout(600)]


def test_without_a_server_the_history_is_kept_and_ctrl_c_is_quick(project_folder, prefect_home):
    tiny.write_params(project_folder, tiny.lean(two_passes()))
    prefect_home(project_folder / ".prefect")
    run = start(project_folder, hold=STATE)
    run.wait_for(STATE)
    asked = time.monotonic()
    run.signal(signal.SIGINT)
    run.wait()
    assert run.status == 130, run.output.read_text()
    assert time.monotonic() - asked < 60
    start(project_folder).end()
    with closing(sqlite3.connect(project_folder / ".prefect/prefect.db")) as database:
        states = [state for (state,) in database.execute("select state_type from flow_run where name = 'tiny'")]
    assert len(states) == 2
    assert "COMPLETED" in states


def test_a_server_that_dies_ends_no_run(project_folder, prefect_home):
    tiny.write_params(project_folder, tiny.lean(two_passes()))
    prefect_home(project_folder / ".prefect")
    (project_folder / "hold").touch()
    run = start(project_folder, hold=Path("hold"))
    run.wait_for(STATE.parent)
    os.kill(children_of(run.process.pid)[-1], signal.SIGKILL)
    (project_folder / "hold").unlink()
    output = run.end()
    assert output.count("the run continues without Prefect") == 1
    assert output.count("\n") < 25
    assert (
        json.loads((project_folder / "reports/metrics.json").read_text())["stopped"] == "only measuring was asked for"
    )
    timing = json.loads((project_folder / "artifacts/tiny/timing.json").read_text())
    assert 0 < timing["steps"] < timing["total"]


def test_a_database_of_another_version_ends_no_run(project_folder):
    tiny.write_params(project_folder, tiny.lean(one_pass()))
    (project_folder / ".prefect").mkdir()
    with closing(sqlite3.connect(project_folder / ".prefect/prefect.db")) as database, database:
        database.execute("create table alembic_version (version_num varchar(32) not null)")
        database.execute("insert into alembic_version values ('ffffffffffff')")
    output = start(project_folder).end()
    (line,) = [line for line in output.splitlines() if "the run continues without Prefect" in line]
    assert "Can't locate revision identified by 'ffffffffffff'" in line
    assert f"move {project_folder / '.prefect/prefect.db'} away" in line
    assert output.count("\n") < 10
    assert (project_folder / "reports/metrics.json").exists()
