"""The loop as users start it: with a Prefect server and without, killed, interrupted, and with bad input.

Three runs are fresh processes. The others are forks of one that has imported everything, which costs seconds.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.request
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from pipelines.servers import prefect_server
from promptgen.command_line import main
from promptgen.flows.training import STATE_NAME
from promptgen.records import Metrics
from steps.recording.mlflow_store import ROOT
from tests import tiny
from tests.faults import HOLD, RUN_SECONDS, unused_port, wait_for, with_ctrl_c
from tests.steps.test_arguments import write_presets

pytestmark = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]

FORKS = multiprocessing.get_context("forkserver")
STATE = Path("artifacts/tiny/pass-1/train_flow/state")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of a Prefect server, which forks talk to."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(tmp_path_factory.mktemp("prefect")))
        port = unused_port()
        with prefect_server(port).running():
            address = f"http://127.0.0.1:{port}/api"
            for name, value in environment(address).items():
                patch.setenv(name, value)
            patch.delenv("MLFLOW_TRACKING_URI", raising=False)
            FORKS.set_forkserver_preload(["pipelines.debias", "steps.report", "tests.test_pipeline"])
            first = FORKS.Process(target=int)  # starts the process that forks come from, with this environment
            first.start()
            first.join()
            yield address


@pytest.fixture(scope="module")
def finished(server, tmp_path_factory):
    """The folder of a project whose loop has run to its end, and what the run said."""
    folder = tmp_path_factory.mktemp("finished")
    tiny.write_params(folder)
    return folder, start(folder, server).end()


class Run:
    """A running command, in a session of its own, so that it is killed with its children."""

    def __init__(self, process: subprocess.Popen[bytes] | BaseProcess, output: Path) -> None:
        self.process, self.output = process, output
        RUNS.append(self)

    @property
    def status(self) -> int | None:
        """Exit status, minus a signal's number where one ended it; None while it runs."""
        if isinstance(self.process, subprocess.Popen):
            return self.process.poll()
        return self.process.exitcode

    def wait_for(self, path: Path) -> None:
        """Wait until it has written a path of its project."""
        wait_for(self.output.parent / path, lambda: self.status is None)

    def signal(self, number: int) -> None:
        """Send a signal to it and its children."""
        os.killpg(self.process.pid, number)

    def wait(self) -> str:
        """Wait for its end and return what it said."""
        deadline = time.monotonic() + RUN_SECONDS
        while self.status is None:
            assert time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.05)
        return self.output.read_text()

    def end(self, status: int = 0) -> str:
        """Wait for its end, check it, and return what it said."""
        said = self.wait()
        assert self.status == status, said
        assert "Traceback" not in said
        return said


RUNS: list[Run] = []


@pytest.fixture(autouse=True)
def _leave_nothing_running():
    """Kill what a failed test has left."""
    yield
    while RUNS:
        run = RUNS.pop()
        if run.status is None:
            run.signal(signal.SIGKILL)
            run.wait()


def environment(server: str | None) -> dict[str, str]:
    """Return what a run's environment has beside that of the tests."""
    return {"PYTHONPATH": str(ROOT)} | ({"PREFECT_API_URL": server} if server else {})


def start(folder: Path, server: str | None, hold: Path | None = None) -> Run:
    """Start the loop of the project in `folder`; it stands still in its next energy once the path `hold` exists."""
    variables = {**os.environ, **environment(server)}
    variables.pop("MLFLOW_TRACKING_URI", None)
    if server is None:
        variables.pop("PREFECT_API_URL", None)
        variables["PREFECT_HOME"] = str(folder / ".prefect")
    if hold:
        variables[HOLD] = str(folder / hold)
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(
            with_ctrl_c("-m", "pipelines.debias"),
            cwd=folder,
            env=variables,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    return Run(process, output)


def fork(folder: Path, *arguments: str, command: str = "run", hold: Path | None = None) -> Run:
    """Start a command of the project in `folder` in a fork; `hold` as in `start`."""
    output = folder / f"output-{len(list(folder.iterdir()))}.txt"
    process = FORKS.Process(target=_work, args=(folder, output, command, arguments, hold))
    process.start()
    return Run(process, output)


def _work(folder: Path, output: Path, command: str, arguments: tuple[str, ...], hold: Path | None) -> None:
    """Do what ``promptgen command arguments`` does in `folder`."""
    os.setsid()
    os.chdir(folder)
    with output.open("wb") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hold:
        os.environ[HOLD] = str(folder / hold)
    sys.exit(main([command, *arguments]))


def error_of(output: str) -> str:
    """Return the one line that says what is wrong."""
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    return line


def metrics_without_seconds(folder: Path) -> dict:
    metrics = json.loads((folder / "reports/metrics.json").read_text())
    for record in metrics["passes"]:
        assert all(seconds >= 0 for seconds in record.pop("seconds").values())
    return metrics


def confirmation_in(folder: Path) -> dict | None:
    return json.loads((folder / "reports/metrics.json").read_text())["confirmation"]


def ask(server: str, what: str) -> list[dict]:
    """Return everything of a kind that the Prefect server knows."""
    request = urllib.request.Request(f"{server}/{what}/filter", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def test_the_loop_runs_to_its_target(finished):
    folder, output = finished
    content = json.loads((folder / "reports/metrics.json").read_text())
    metrics = Metrics.parse(content, "metrics.json")
    assert [record.kind for record in metrics.passes][:3] == ["generator", "control", "debias"]
    assert metrics.stopped in ("interval contains the target", "maximum of passes reached")
    assert f"stopped after pass {len(metrics.passes) - 1}: {metrics.stopped}" in output
    assert "s in steps" in output
    timing = json.loads((folder / "artifacts/tiny/timing.json").read_text())
    assert 0 < timing["steps"] < timing["total"]


def test_the_last_pass_is_counted_once_more(finished):
    folder, output = finished
    metrics = Metrics.parse(json.loads((folder / "reports/metrics.json").read_text()), "metrics.json")
    last, found = metrics.passes[-1], metrics.confirmation
    assert (found.number, found.n) == (last.number, last.n)
    assert f"pass {last.number} counted again on {found.n} fresh samples: hair short " in output
    assert [record.number for record in metrics.passes if "confirm" in record.seconds] == [last.number]
    assert json.loads((folder / "reports/summary.json").read_text())["confirmed"]["shares"].keys() == {"short", "long"}


def test_it_is_counted_also_where_passes_run_out(server, tmp_path):
    content = tiny.params()
    content["debias"]["max_passes"] = 1
    content["evaluation"]["confidence"] = 0.001  # no interval is wide enough to contain anything
    tiny.write_params(tmp_path, content)
    output = fork(tmp_path).end()
    assert "stopped after pass 2: maximum of passes reached" in output
    assert "pass 2 counted again on 512 fresh samples" in output
    summary = json.loads((tmp_path / "reports/summary.json").read_text())
    assert summary["confirmed"]["contains_target"] is False


def test_prefect_shows_the_run(finished, server):
    runs = [run for run in ask(server, "flow_runs") if run["state_type"] == "COMPLETED"]
    assert runs
    assert {run["name"] for run in runs} == {"tiny"}
    tasks = {run["name"] for run in ask(server, "task_runs") if run["flow_run_id"] == runs[0]["id"]}
    assert {"sample 0", "train-flow 1", "fit-moments 2", "train-flow 2", "estimate-bias 2"} <= tasks
    artifacts = {artifact["key"]: artifact for artifact in ask(server, "artifacts")}
    assert artifacts["tiny-grid"]["data"].startswith("data:image/png;base64,")
    assert "| pass | kind | hair short | hair long |" in artifacts["tiny-summary"]["data"]
    assert "counted again on 512 fresh samples" in artifacts["tiny-summary"]["data"]
    assert f"confirm {confirmation_in(finished[0])['pass']}" in tasks
    assert any(artifact["type"] == "progress" and artifact["data"] == 100 for artifact in artifacts.values())


def test_mlflow_has_a_run_per_pass(finished):
    folder, _ = finished
    with closing(sqlite3.connect(folder / "mlruns/mlflow.db")) as database:
        names = {name for (name,) in database.execute("select name from runs where status = 'FINISHED'")}
    assert {"tiny", "0 generator", "1 control", "2 debias"} <= names


def test_mlflow_has_the_confirming_count_by_the_loop_and_by_its_pass(finished):
    folder, _ = finished
    confirmation = confirmation_in(folder)
    query = "select name, value from runs join latest_metrics using (run_uuid) where key = ?"
    for reader in ("classifier", "judge", "truth"):
        with closing(sqlite3.connect(folder / "mlruns/mlflow.db")) as database:
            told = dict(database.execute(query, [f"confirmed/share/long/{reader}/value"]))
        value = confirmation["by"][reader]["shares"]["long"]["value"]
        assert told == {"tiny": value, f"{confirmation['pass']} debias": value}


def test_the_loop_ends_with_the_multipliers_where_no_flow_is_wanted(server, tmp_path):
    content = tiny.params()
    content["control"] = content["debias"]["training"] = None
    tiny.write_params(tmp_path, content)
    output = fork(tmp_path).end()
    assert "stopped after pass 0: only fitting the multipliers was asked for" in output
    assert sorted(path.name for path in (tmp_path / "artifacts/tiny/pass-1").iterdir()) == ["fit_moments"]
    assert confirmation_in(tmp_path) is None
    fork(tmp_path, command="report").end()
    page = (tmp_path / "reports/index.html").read_text()
    assert "multipliers that would correct it were fitted, but no flow was trained with them" in page
    assert "Multipliers of de-biasing" in page


def test_the_loop_ends_with_the_control_where_only_measuring_is_wanted(server, tmp_path):
    content = tiny.params()
    content["debias"]["max_passes"] = 0
    tiny.write_params(tmp_path, content)
    output = fork(tmp_path).end()
    assert "stopped after pass 1: only measuring was asked for" in output
    assert confirmation_in(tmp_path) is None
    assert not list(tmp_path.glob("artifacts/tiny/pass-*/confirm"))
    fork(tmp_path, command="report").end()
    assert "de-biasing was not requested" in (tmp_path / "reports/index.html").read_text()


def test_a_ready_made_experiment_runs_by_name(server, tmp_path):
    write_presets(tmp_path)
    output = fork(tmp_path, "--experiment", "mine").end()
    assert "Flow run 'mine'" in output
    assert json.loads((tmp_path / "reports/metrics.json").read_text())["experiment"] == "mine"


def test_a_second_run_does_nothing_again(finished, server):
    folder, _ = finished
    content = (folder / "reports/metrics.json").read_bytes()
    before = {path: path.stat().st_mtime_ns for path in folder.glob("artifacts/tiny/pass-*/*/*")}
    fork(folder).end()
    assert (folder / "reports/metrics.json").read_bytes() == content
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.faults
def test_a_killed_run_ends_with_the_same_numbers(finished, server, tmp_path):
    """SIGKILL in the middle of a training, then the same command: what was done stays, and nothing else differs."""
    tiny.write_params(tmp_path)
    run = fork(tmp_path, hold=STATE / STATE_NAME)
    run.wait_for(STATE / STATE_NAME)
    run.signal(signal.SIGKILL)
    run.wait()
    assert not (tmp_path / "artifacts/tiny/pass-1/train_flow/manifest.json").exists()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("artifacts/tiny/pass-0/*/manifest.json")}
    assert len(before) == 3
    fork(tmp_path).end()
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert metrics_without_seconds(tmp_path) == metrics_without_seconds(finished[0])


@pytest.fixture(scope="module")
def reused(server, tmp_path_factory):
    """The same with `method: reuse`, the default."""
    folder = tmp_path_factory.mktemp("reused")
    tiny.write_params(folder, tiny.reuse_params())
    return folder, fork(folder).end()


def test_the_loop_runs_to_its_target_on_evaluations_that_are_kept(reused):
    folder, output = reused
    metrics = Metrics.parse(json.loads((folder / "reports/metrics.json").read_text()), "metrics.json")
    assert metrics.stopped == "interval contains the target"
    assert (
        "256 of 512 evaluations reused" in output
    )  # the final fit of the control made half of the multipliers' samples
    for record in metrics.passes[1:]:
        assert 0 < record.reuse.units <= record.reuse.budget
        assert record.reuse.used > record.reuse.units // 3
    assert "evaluations" in fork(folder, command="store").end()


@pytest.mark.faults
def test_a_run_that_is_killed_while_it_evaluates_ends_with_the_same_numbers(reused, server, tmp_path):
    """SIGKILL once the first shard is written; it is not made again."""
    shards = reused[0].glob("artifacts/tiny/evaluations/*/*.safetensors")
    first = min(shards, key=lambda path: path.stat().st_mtime_ns).relative_to(reused[0])
    tiny.write_params(tmp_path, tiny.reuse_params())
    run = fork(tmp_path, hold=first)
    run.wait_for(first)
    run.signal(signal.SIGKILL)
    run.wait()
    written = (tmp_path / first).stat().st_mtime_ns
    fork(tmp_path).end()
    assert (tmp_path / first).stat().st_mtime_ns == written
    assert metrics_without_seconds(tmp_path) == metrics_without_seconds(reused[0])


@pytest.mark.faults
def test_one_folder_has_one_run_and_ctrl_c_is_quick(server, tmp_path):
    tiny.write_params(tmp_path)
    first = fork(tmp_path, hold=STATE)
    first.wait_for(STATE)
    error = error_of(fork(tmp_path).end(2))
    assert "artifacts/tiny is held by another run: wait for it to end, or stop it" in error
    asked = time.monotonic()
    first.signal(signal.SIGINT)
    assert "interrupted; run the same command again" in first.end(130)
    assert time.monotonic() - asked < 30


@pytest.mark.faults
def test_without_a_server_the_history_is_kept_and_ctrl_c_is_quick(tmp_path):
    content = tiny.params()
    content["debias"]["max_passes"] = 0  # two passes show as much
    tiny.write_params(tmp_path, content)
    run = start(tmp_path, None, hold=STATE)
    run.wait_for(STATE)
    asked = time.monotonic()
    run.signal(signal.SIGINT)
    run.wait()
    assert run.status == 130, run.output.read_text()
    assert time.monotonic() - asked < 30
    start(tmp_path, None).end()
    with closing(sqlite3.connect(tmp_path / ".prefect/prefect.db")) as database:
        states = [state for (state,) in database.execute("select state_type from flow_run where name = 'tiny'")]
    assert len(states) == 2
    assert "COMPLETED" in states


def two_passes(folder: Path) -> None:
    """Write an experiment of two passes, which show as much as a whole loop."""
    content = tiny.params()
    content["debias"]["max_passes"] = 0
    tiny.write_params(folder, content)


def children_of(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [each for child in map(int, text.split()) for each in (child, *children_of(child))]


@pytest.mark.faults
def test_a_server_that_dies_ends_no_run(tmp_path):
    two_passes(tmp_path)
    (tmp_path / "hold").touch()
    run = start(tmp_path, None, hold=Path("hold"))
    run.wait_for(STATE.parent)
    os.kill(children_of(run.process.pid)[-1], signal.SIGKILL)
    (tmp_path / "hold").unlink()
    output = run.end()
    assert output.count("has gone: the run goes on without Prefect") == 1
    assert output.count("\n") < 25
    assert json.loads((tmp_path / "reports/metrics.json").read_text())["stopped"] == "only measuring was asked for"
    timing = json.loads((tmp_path / "artifacts/tiny/timing.json").read_text())
    assert timing["steps"] > 0


@pytest.mark.faults
def test_a_database_of_another_version_ends_no_run(tmp_path):
    two_passes(tmp_path)
    (tmp_path / ".prefect").mkdir()
    with closing(sqlite3.connect(tmp_path / ".prefect/prefect.db")) as database, database:
        database.execute("create table alembic_version (version_num varchar(32) not null)")
        database.execute("insert into alembic_version values ('ffffffffffff')")
    output = start(tmp_path, None).end()
    (line,) = [line for line in output.splitlines() if "the run goes on without Prefect" in line]
    assert "Can't locate revision identified by 'ffffffffffff'" in line
    assert f"move {tmp_path / '.prefect/prefect.db'} away" in line
    assert output.count("\n") < 10
    assert (tmp_path / "reports/metrics.json").exists()


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("debias", "max_passes", -1, "debias.max_passes: should be greater than or equal to 0, got -1"),
        ("debias", "atribute", "hair", "debias.atribute is unknown; did you mean attribute?"),
        ("debias", "judge", "world-judge", "world-judge.safetensors is missing; fetch it with"),
    ],
)
def test_bad_input_is_one_line_before_anything_starts(server, tmp_path, section, key, value, message):
    content = tiny.params()
    content[section][key] = value
    tiny.write_params(tmp_path, content)
    output = fork(tmp_path).end(2)
    assert output.count("\n") == 1
    assert output.startswith("error: ")
    assert message in output
    assert not (tmp_path / "reports/metrics.json").exists()
    assert not list(tmp_path.rglob("manifest.json"))


def test_an_error_in_a_step_ends_the_run_with_one_line(server, tmp_path):
    content = tiny.params()
    content["control"] = None
    content["debias"]["classifier"]["factory"] = "tests.tiny:short_only"
    tiny.write_params(tmp_path, content)
    assert "cannot be reached, observed share" in error_of(fork(tmp_path).end(2))
    assert not (tmp_path / "reports/metrics.json").exists()
