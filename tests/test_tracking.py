"""Recording a loop: the journal, its MLflow copy in a real database, and servers that are away, slow or deleted."""

from __future__ import annotations

import base64
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from importlib import metadata
from pathlib import Path

import mlflow
import pytest
import yaml

from promptgen import store
from promptgen.checkpoints import save_chain
from promptgen.files import sha256_of
from promptgen.flow import Flow, FlowConfig
from steps import sync
from steps.facts import figures, flatten, provenance
from steps.journal import Journal, read
from steps.mlflow_store import ROOT, TrackingError, connect, make_database, tracking_uri
from steps.registry import REQUIREMENTS, save
from steps.tracking import Recorder, attach

LOOP = "0123456789abcdef0123"


def interval(value):
    return {"value": value, "low": value - 0.1, "high": value + 0.1}


def record(number, kl):
    return {
        "pass": number,
        "kind": "control",
        "n": 10,
        "shares": {"judge": {"short": interval(0.4), "long": interval(0.6)}},
        "kl": {"classifier": interval(kl + 1), "judge": interval(kl)},
        "control": {"makeup.without.judge": interval(0.9), "identity.diversity": interval(0.5)},
        "fit": {
            "ess_fraction": {"value": 0.3, "low": 0.2, "high": 0.4},
            "tail_index": None,
            "trust": "good",
            "n": 64,
        }
        if number
        else None,
        "seconds": {"sample": 1.5},
        "generator_evaluations": {"forward": 10, "backward": 0},
    }


def run_loop(root, *, until=2, interval=60.0, patience=15.0, registered_model=None):
    """Record a small loop; `until` passes are finished, as if the loop had then been killed or had ended."""
    report = root / "reports" / "metrics.json"
    report.parent.mkdir(exist_ok=True)
    report.write_text("{}")
    with Recorder(
        root,
        "tiny",
        LOOP,
        tracking_experiment="tests",
        registered_model=registered_model,
        interval=interval,
        patience=patience,
    ) as recorder:
        recorder.start({"seed": 1, "debias": {"target": {"short": 0.5}}}, {"prefect.flow_run": "abc"})
        for number in range(until):
            with recorder.run_pass(number, "control" if number else "generator") as tracker:
                if number:
                    for step in range(3):
                        tracker.metrics({"loss": 1.0 / (step + 1)}, step)
                    tracker.progress(3, 3)
                tracker.artifact(report)
                tracker.record(record(number, 1.0 / (number + 1)))
        recorder.finish("maximum of passes reached", [report])
    return recorder.folder


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory):
    """Return an empty MLflow database to copy: making one takes seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    make_database(path)
    return path


@pytest.fixture
def bare_root(tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


@pytest.fixture
def root(bare_root, empty_database):
    (bare_root / "mlruns").mkdir()
    shutil.copy(empty_database, bare_root / "mlruns" / "mlflow.db")
    return bare_root


def runs_of(root):
    """Return the runs of the experiment "tests" by title."""
    client = connect(root)
    experiment = client.get_experiment_by_name("tests")
    return {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}


def test_a_loop_is_one_parent_and_a_child_per_pass(root):
    run_loop(root)
    runs = runs_of(root)
    assert sorted(runs) == ["0 generator", "1 control", "tiny"]
    parent, child = runs["tiny"], runs["1 control"]
    assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert parent.data.params == {"seed": "1", "debias.target.short": "0.5"}
    assert parent.data.tags["prefect.flow_run"] == "abc"
    assert parent.data.tags["promptgen.stopped"] == "maximum of passes reached"
    assert child.data.metrics["fit/ess_fraction/value"] == 0.3
    assert child.data.metrics["fit/ess_fraction/high"] == 0.4
    assert not {"fit/tail_index", "fit/trust"} & child.data.metrics.keys()
    assert child.data.metrics["train/loss"] == pytest.approx(1 / 3)
    assert child.data.metrics["control/makeup.without.judge/low"] == pytest.approx(0.8)
    assert child.data.metrics["quality/identity.diversity/high"] == pytest.approx(0.6)
    assert [item.path for item in connect(root).list_artifacts(parent.info.run_id)] == ["metrics.json"]


def test_the_headline_comes_first_and_the_parent_has_it_by_pass(root):
    run_loop(root)
    runs = runs_of(root)
    assert next(iter(runs["1 control"].data.metrics)) == "bias/kl/judge/value"
    assert next(iter(runs["tiny"].data.metrics)) == "bias/kl/judge/value"
    history = connect(root).get_metric_history(runs["tiny"].info.run_id, "bias/kl/judge/value")
    assert [(point.step, point.value) for point in history] == [(0, 1.0), (1, 0.5)]


def test_a_restarted_loop_continues_the_same_runs(root):
    run_loop(root, until=1)
    run_loop(root, until=3)
    runs = connect(root).search_runs([connect(root).get_experiment_by_name("tests").experiment_id])
    assert sorted(run.info.run_name for run in runs) == ["0 generator", "1 control", "2 control", "tiny"]
    history = connect(root).get_metric_history(runs_of(root)["tiny"].info.run_id, "bias/kl/judge/value")
    assert [point.step for point in history] == [0, 1, 2]


def test_a_run_made_just_before_a_kill_is_found_again(root):
    folder = run_loop(root, until=1)
    (folder / sync.STATE_NAME).unlink()  # killed between making the runs and noting their ids
    sync.push(folder, root)
    assert sorted(runs_of(root)) == ["0 generator", "tiny"]


def test_a_failing_pass_is_recorded_as_failed(root):
    def fail():
        with Recorder(root, "tiny", LOOP, tracking_experiment="tests") as recorder:
            recorder.start({}, {})
            with recorder.run_pass(0, "generator"):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert {run.info.status for run in runs_of(root).values()} == {"FAILED"}


def test_a_dead_server_costs_no_time_and_the_journal_replays(root, monkeypatch, caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    connect(root)  # pays for the import, so that the time below is the recording's own
    start = time.monotonic()
    folder = run_loop(root, interval=0.01)
    assert time.monotonic() - start < 5
    assert "python -m steps.sync" in caplog.text
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert sync.push(folder, root) > 10
    assert sorted(runs_of(root)) == ["0 generator", "1 control", "tiny"]
    assert sync.push(folder, root) == 0


def test_a_server_that_never_answers_holds_nothing_up(root, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        connect(root)
        start = time.monotonic()
        run_loop(root, interval=0.01, patience=0.5)
        assert time.monotonic() - start < 3


def test_the_times_are_those_of_the_journal(root):
    folder = run_loop(root, interval=60.0)
    loss = [event for event, _ in read(folder / sync.JOURNAL_NAME) if "train/loss" in event.get("values", {})]
    history = connect(root).get_metric_history(runs_of(root)["1 control"].info.run_id, "train/loss")
    assert [point.timestamp for point in history] == [event["time"] for event in loss]


def test_replaying_from_the_start_changes_nothing(root):
    folder = run_loop(root)
    before = {name: run.data.to_dictionary() for name, run in runs_of(root).items()}
    (folder / sync.STATE_NAME).unlink()
    assert sync.push(folder, root) > 0
    assert {name: run.data.to_dictionary() for name, run in runs_of(root).items()} == before
    history = connect(root).get_metric_history(runs_of(root)["1 control"].info.run_id, "train/loss")
    assert len(history) == 3


def test_a_deleted_database_is_made_again_from_the_journal(root):
    folder = run_loop(root)
    shutil.move(root / "mlruns", root / "lost")
    code = (  # in a process of its own: MLflow keeps connections to the database that was
        "import sys; from pathlib import Path; from steps.sync import push; from tests.test_tracking import runs_of\n"
        "folder, root = Path(sys.argv[1]), Path(sys.argv[2])\n"
        "push(folder, root)\n"
        "assert sorted(runs_of(root)) == ['0 generator', '1 control', 'tiny']\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(root)], cwd=ROOT, check=True)


def test_a_moved_checkout_finds_its_artifacts(root):
    run_loop(root)
    moved = root.with_name(root.name + "_moved")
    shutil.move(root, moved)
    parent = runs_of(moved)["tiny"]
    assert parent.info.artifact_uri.startswith(moved.as_uri())
    assert [item.path for item in connect(moved).list_artifacts(parent.info.run_id)] == ["metrics.json"]


def test_a_file_that_changed_since_is_not_sent(root, caplog):
    folder = run_loop(root, until=0)
    report = root / "reports" / "metrics.json"
    Journal(folder / sync.JOURNAL_NAME).write(
        {"kind": "artifact", "run": "loop", "path": "reports/metrics.json", "sha256": "0" * 64, "folder": "later"}
    )
    assert sha256_of(report) != "0" * 64
    sync.push(folder, root)
    assert "no longer what was recorded" in caplog.text
    assert connect(root).list_artifacts(runs_of(root)["tiny"].info.run_id, "later") == []


def test_the_report_is_attached_to_the_loop_that_ended(root):
    run_loop(root)
    page = root / "reports" / "index.html"
    page.write_text("<p>done</p>")
    attach(root, "tiny", LOOP, page)
    artifacts = connect(root).list_artifacts(runs_of(root)["tiny"].info.run_id, "report")
    assert [item.path for item in artifacts] == ["report/index.html"]


@pytest.mark.timeout(300)
def test_two_processes_may_make_the_database_at_once(bare_root):
    code = (  # enough patience, so that a busy machine changes nothing
        "import sys; from pathlib import Path; from steps.tracking import Recorder\n"
        "root, name = Path(sys.argv[1]), sys.argv[2]\n"
        "with Recorder(root, name, 'f' * 20, tracking_experiment='tests', patience=200) as recorder:\n"
        "    recorder.start({}, {})\n"
    )
    command = [sys.executable, "-c", code, str(bare_root)]
    with (
        subprocess.Popen([*command, "one"], cwd=ROOT) as one,
        subprocess.Popen([*command, "two"], cwd=ROOT) as two,
    ):
        assert [one.wait(), two.wait()] == [0, 0]
    assert sorted(runs_of(bare_root)) == ["one", "two"]


def test_two_senders_of_one_journal_take_turns(root):
    folder = run_loop(root, until=1, patience=0.0)
    threads = [threading.Thread(target=sync.push, args=(folder, root)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(runs_of(root)) == ["0 generator", "tiny"]


def test_sync_says_in_one_line_what_is_wrong(root, monkeypatch, capsys):
    run_loop(root, until=0)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    with pytest.raises(TrackingError, match="cannot be told") as caught:
        sync.push(next(iter(sync.journals(root))), root)
    assert "secret" not in str(caught.value)
    assert sync.main(["--root", str(root)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.fixture
def chain(root):
    """Return the checkpoint of a chain of one flow on the tiny generator."""
    path = root / "artifacts" / "tiny" / "chain.safetensors"
    path.parent.mkdir(parents=True)
    spec = {"type": "custom", "factory": "tests.tiny:TinyGenerator", "arguments": {}}
    save_chain(path, [Flow(4, FlowConfig(blocks=1, hidden=8))], spec, {})
    return path


def test_a_checkpoint_becomes_a_version_that_draws(root, chain):
    def record_passes():
        with Recorder(root, "tiny", LOOP, tracking_experiment="tests", registered_model="tiny") as recorder:
            recorder.start({}, {})
            for number, kl in enumerate([3.0, 1.0, 2.0]):
                with recorder.run_pass(number, "control") as tracker:
                    tracker.record(record(number, kl))
                    if number:
                        tracker.checkpoint(chain, [])
            recorder.finish("maximum of passes reached")
        return recorder.folder

    folder = record_passes()
    (folder / sync.STATE_NAME).unlink()
    sync.push(folder, root)  # replayed: no second version of the same checkpoint
    client = connect(root)
    versions = {version.version: version for version in client.search_model_versions("name = 'tiny'")}
    assert sorted(versions) == [1, 2]
    assert client.get_model_version_by_alias("tiny", "least-biased").version == 1
    assert versions[1].tags["sha256"] == sha256_of(chain)

    mlflow.set_tracking_uri(tracking_uri(root))
    first, second, again = mlflow.pyfunc.load_model("models:/tiny@least-biased").predict([1, 2, 1])
    assert base64.b64decode(first).startswith(b"\x89PNG")
    assert first == again != second


def test_a_model_of_ones_own_card_draws_on_any_machine(root):
    file = {"file": "mine.safetensors", "urls": ["package:world/weights/world-generator.safetensors"]}
    card = {"kind": "generator", "type": "world-generator", "files": [file], "licence": "MIT"}
    (root / "cards.yaml").write_text(yaml.safe_dump({"my-world": card}))
    weights = store.fetch("my-world", root / "models")
    spec = {"type": "world", "model": "my-world", "truncation": 1.0}
    save_chain(root / "chain.safetensors", [Flow(64, FlowConfig(blocks=1, hidden=8))], spec, {})
    saved = root.parent / "saved"
    save(saved, root / "chain.safetensors", weights, root)
    shutil.rmtree(root)
    (picture,) = mlflow.pyfunc.load_model(str(saved)).predict([1])
    assert base64.b64decode(picture).startswith(b"\x89PNG")


class TestJournal:
    def test_half_a_line_left_by_a_kill_is_dropped(self, tmp_path):
        path = tmp_path / "journal.jsonl"
        Journal(path).write({"kind": "status", "run": "loop", "status": "RUNNING"})
        with path.open("a") as file:
            file.write('{"kind": "sta')
        assert len(list(read(path))) == 1
        Journal(path).write({"kind": "status", "run": "loop", "status": "FINISHED"})
        assert [event["status"] for event, _ in read(path)] == ["RUNNING", "FINISHED"]

    def test_a_known_fact_is_not_written_again_but_a_changed_status_is(self, tmp_path):
        journal = Journal(tmp_path / "journal.jsonl")
        fact = {"kind": "metrics", "run": "loop", "step": 1, "values": {"a": 1.0}}
        statuses = [{"kind": "status", "run": "loop", "status": name} for name in ("RUNNING", "FAILED", "RUNNING")]
        assert [journal.write(event) for event in (fact, fact, *statuses, statuses[-1])] == [
            True,
            False,
            True,
            True,
            True,
            False,
        ]
        assert not Journal(journal.path).write(fact)

    def test_infinite_and_missing_numbers_survive(self, root):
        with Recorder(root, "tiny", LOOP, tracking_experiment="tests") as recorder:
            recorder.start({}, {})
            with recorder.run_pass(1, "control") as tracker:
                tracker.metrics({"up": float("inf"), "none": float("nan")}, 0)
        metrics = runs_of(root)["1 control"].data.metrics
        assert metrics["train/up"] > 1e308
        assert metrics["train/none"] != metrics["train/none"]


def test_facts_are_flat():
    assert flatten({"a": {"b": 1, "c": ["x", 2]}, "d": None, "e": {}}) == {
        "a.b": "1",
        "a.c": '["x", 2]',
        "d": "null",
        "e": "{}",
    }
    names = list(figures(record(1, 0.5)))
    assert names[:3] == ["bias/kl/judge/value", "bias/kl/judge/low", "bias/kl/judge/high"]
    assert len(names) == len(set(names))
    assert "fit/n" not in figures(record(0, 0.5))


def test_provenance_names_the_commit_and_the_lock(tmp_path):
    assert provenance(tmp_path) == {}
    (tmp_path / "dvc.lock").write_text("x")
    assert provenance(tmp_path) == {"dvc.lock.sha256": sha256_of(tmp_path / "dvc.lock")}
    git = ["git", "-C", str(tmp_path), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    tags = provenance(tmp_path)
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert tags["git.changed"] == "false"


def test_the_environment_can_name_another_store(root, monkeypatch):
    assert tracking_uri(root) == f"sqlite:///{root}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5001")
    assert tracking_uri(root) == "http://127.0.0.1:5001"
    assert isinstance(ROOT, Path)


def closure_of(packages):
    """Return the normalised names of distributions and of all that they need here, without extras."""
    found, todo = set(), list(packages)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        if name in found:
            continue
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:  # of another system
            continue
        found.add(name)
        todo += [re.match(r"[\w.-]+", each)[0] for each in needed if "extra ==" not in each]
    return found


def test_a_registered_model_draws_with_no_more_packages_than_it_names():
    needed = closure_of(REQUIREMENTS)
    others = [
        module
        for module, owners in metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & {*needed, "promptgen"}
    ]
    code = f"""
import sys
from importlib.machinery import PathFinder
class OnlyNamed:
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {set(others)!r} else PathFinder.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(PathFinder)] = OnlyNamed()
from pathlib import Path
import promptgen.build, promptgen.world
from promptgen.flow import Flow
from promptgen.generators.chained import ChainedGenerator
from promptgen.sampling import generate
from promptgen.world.generator import load_generator
generator = load_generator(Path(promptgen.world.__file__).with_name("weights") / "world-generator.safetensors")
chain = ChainedGenerator(generator, Flow(generator.prior.dim))
next(iter(generate(chain, 1, seed=0, stream="serve", batch=1)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
