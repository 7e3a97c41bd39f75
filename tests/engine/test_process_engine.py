"""The engine of several processes: equal results whatever happens to its workers, and no process that stays."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from promptgen.engine.base import InlineEngine, in_order
from promptgen.engine.config import ProcessConfig, open_engine
from promptgen.engine.dispatch import ATTEMPTS, Dispatcher
from promptgen.engine.processes import ProcessCrew, gpu_names
from promptgen.errors import ConfigError, EngineError
from tests.engine.recipes import BUILDS, Sight, Squares

ROOT = Path(__file__).parents[2]
NUMBERS = list(range(6))
EXPECTED = [number**2 for number in NUMBERS]


@pytest.fixture(scope="module")
def engine():
    engine = Dispatcher(2, ProcessCrew)
    yield engine
    engine.close()


def squares(engine, recipe, numbers=NUMBERS):
    return list(in_order(engine.map(recipe, numbers)))


def running(folder):
    """Return the processes that worked and still exist."""
    return [path.name for path in folder.iterdir() if path.name.isdigit() and _exists(int(path.name))]


def _exists(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(folder):
    deadline = time.monotonic() + 120
    while running(folder):
        assert time.monotonic() < deadline, f"{running(folder)} still run"
        time.sleep(0.05)


def test_results_are_those_of_one_process(engine):
    assert squares(engine, Squares()) == squares(InlineEngine(), Squares()) == EXPECTED
    assert squares(engine, Squares(), []) == []


def test_a_worker_makes_its_function_once(engine, tmp_path):
    for _ in range(2):
        squares(engine, Squares(folder=tmp_path))
    assert {path.read_text() for path in tmp_path.glob(f"*{BUILDS}")} == {"x"}


@pytest.mark.parametrize("fault", ["kill", "exit", "hang", "error"])
def test_a_shard_whose_worker_fails_is_made_again(engine, monkeypatch, tmp_path, caplog, fault):
    if fault == "hang":
        monkeypatch.setattr(engine, "deadline", 2.0)
    with caplog.at_level(logging.WARNING):
        assert squares(engine, Squares(fault, folder=tmp_path, once=True)) == EXPECTED
    (line,) = caplog.messages
    assert "shard 3 of 6" in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("fault", "error", "attempts"),
    [
        ("config", ConfigError, 1),
        ("build", ConfigError, 1),
        ("error", ZeroDivisionError, ATTEMPTS),
        ("own error", EngineError, 1),
        ("kill", EngineError, ATTEMPTS),
    ],
)
def test_a_fault_that_stays_ends_the_work_with_its_error(engine, tmp_path, caplog, fault, error, attempts):
    with caplog.at_level(logging.WARNING), pytest.raises(error) as caught:
        squares(engine, Squares(fault, folder=tmp_path))
    assert sum("shard 3 of 6" in line for line in caplog.messages) == attempts - 1
    assert squares(engine, Squares()) == EXPECTED  # and harms no later work
    if fault == "error":
        assert "_go_wrong" in "".join(caught.value.__notes__)  # where it was raised


def test_an_error_of_a_shard_leaves_no_worker_busy(engine, tmp_path):
    recipe = Squares("config", folder=tmp_path, seconds=0.2)
    with pytest.raises(ConfigError):
        squares(engine, recipe)
    assert not any(isinstance(seat.task, int) for seat in engine.seats)


def test_a_worker_with_other_weights_is_refused(engine, tmp_path, monkeypatch):
    secret = tmp_path / "weights"
    secret.write_text("one")
    assert squares(engine, Squares(secret=secret)) == EXPECTED
    monkeypatch.setenv("PROMPTGEN_TEST", "another")  # of the driver alone: the workers run already
    with pytest.raises(EngineError, match="differs from the driver in weights"):
        squares(engine, Squares(secret=secret))


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_driver(tmp_path, end):
    code = f"""
import signal
from pathlib import Path
from promptgen.engine.dispatch import Dispatcher
from promptgen.engine.processes import ProcessCrew
from tests.engine.recipes import Squares
signal.signal(signal.SIGINT, signal.default_int_handler)
list(Dispatcher(2, ProcessCrew).map(Squares("hang", folder=Path({str(tmp_path)!r}), seconds=0.3), list(range(1000))))
"""
    driver = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        deadline = time.monotonic() + 120
        while len(running(tmp_path)) < 2:
            assert driver.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        driver.send_signal(end)
        driver.wait(120)
        wait_until_gone(tmp_path)
    finally:
        driver.kill()


def test_one_process_has_each_engine_once():
    config = ProcessConfig(type="process", workers=2)
    assert open_engine(config) is open_engine(ProcessConfig(type="process", workers=2))
    assert open_engine(config) is not open_engine(ProcessConfig(type="process", workers=3))


def test_every_worker_sees_a_gpu_of_its_own_and_its_successor_the_same(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    engine = Dispatcher(2, lambda: ProcessCrew(gpu_names(2)))
    try:
        first = dict(seen for _, seen in engine.map(Sight(), [0.5] * 6))
        assert sorted(first.values()) == ["3", "5"]
        lost = next(process for process, gpu in first.items() if gpu == "3")
        os.kill(lost, signal.SIGKILL)
        second = dict(seen for _, seen in engine.map(Sight(), [0.5] * 6))
        assert sorted(second.values()) == ["3", "5"]
        assert lost not in second
    finally:
        engine.close()


@pytest.mark.parametrize("gpus", [0, 1])
def test_workers_see_what_the_driver_sees_without_several_gpus(monkeypatch, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    engine = Dispatcher(1, lambda: ProcessCrew(gpu_names(gpus)))
    try:
        assert [gpu for _, (_, gpu) in engine.map(Sight(), [0.0])] == ["7"]
    finally:
        engine.close()
