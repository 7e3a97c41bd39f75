"""The `engine` section of params.yaml: what it takes, and what its errors say."""

from __future__ import annotations

import subprocess
import sys

import pytest

from promptgen.config.params import Params
from promptgen.engine.config import InlineConfig, ProcessConfig, RayConfig, engine_for, open_engine
from promptgen.errors import ConfigError, EngineError
from promptgen.strict import validate
from tests import tiny
from tests.engine.recipes import Squares
from tests.faults import silent_server, unused_port


def parsed(engine, **others):
    return validate(Params, tiny.params() | {"engine": engine} | others).engine


def test_the_default_is_this_process():
    assert validate(Params, tiny.params()).engine == InlineConfig()


@pytest.mark.parametrize(
    "engine",
    [
        {"type": "inline"},
        {"type": "process", "workers": 1},
        {"type": "process", "workers": 8, "threads": 2, "deadline": 60.0},
        {"type": "ray", "workers": 2, "gpus_per_worker": 0.0},
        {"type": "ray", "address": "ray://head:10001", "workers": 2, "gpus_per_worker": 0.0},
        {"type": "ray", "address": "10.0.0.1:6379", "workers": 2, "gpus_per_worker": 0.0},
    ],
)
def test_known_engines_are_read(engine):
    assert parsed(engine).type == engine["type"]


@pytest.mark.parametrize(
    ("engine", "key"),
    [
        ({"type": "process"}, "workers"),
        ({"type": "process", "workers": 0}, "workers"),
        ({"type": "process", "workers": 10**6}, "workers"),
        ({"type": "process", "workers": 2, "threads": 0}, "threads"),
        ({"type": "process", "workers": 2, "deadline": 0}, "deadline"),
        ({"type": "inline", "workers": 2}, "workers"),
        ({"type": "ray", "workers": 2, "gpus_per_worker": -1}, "gpus_per_worker"),
        ({"type": "ray", "workers": 2, "address": "head"}, "address"),
        ({"type": "ray", "workers": 2, "address": "http://head:1"}, "address"),
        ({"type": "threads", "workers": 2}, "engine"),
    ],
)
def test_bad_engines_are_refused_in_one_line(engine, key):
    with pytest.raises(ConfigError) as caught:
        parsed(engine, device="auto")
    assert key in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 1), ("cuda:1", 1), ("cuda:1", 0)])
def test_ray_needs_a_device_that_suits_it(device, gpus):
    with pytest.raises(ConfigError, match="device"):
        parsed({"type": "ray", "workers": 1, "gpus_per_worker": gpus}, device=device)


def evaluate(config):
    return list(open_engine(config).map(Squares(), [1]))


def test_without_ray_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install -r requirements-ray\.txt"):
        evaluate(RayConfig(type="ray", workers=1, gpus_per_worker=0.0, deadline=11.0))


def test_an_address_that_nobody_answers_is_one_line():
    pytest.importorskip("ray")
    with pytest.raises(EngineError, match=r"engine\.address") as caught:
        evaluate(RayConfig(type="ray", address=f"ray://127.0.0.1:{unused_port()}", workers=1, gpus_per_worker=0.0))
    assert "\n" not in str(caught.value)


JOINING = """
from promptgen.engine import ray_cluster
from promptgen.engine.config import RayConfig
from promptgen.errors import EngineError
ray_cluster.JOIN_SECONDS = 3.0
try:
    ray_cluster.RayCrew(RayConfig(type="ray", address="ADDRESS", workers=1, gpus_per_worker=0.0))
except EngineError as error:
    print(error)
"""
"""A process of its own, since Ray's attempt to join goes on in it."""


def test_an_address_that_takes_connections_and_says_nothing_is_given_up():
    pytest.importorskip("ray")
    with silent_server() as url:
        code = JOINING.replace("ADDRESS", "ray://" + url[7:])
        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert "took longer than 3 s" in ran.stdout


def test_an_engine_of_processes_needs_a_recipe():
    with pytest.raises(ValueError, match="recipe"):
        list(open_engine(ProcessConfig(type="process", workers=1)).map(None, [1], function=abs))


PROCESSES = ProcessConfig(type="process", workers=3)


@pytest.mark.parametrize(
    ("section", "device", "gpus", "expected"),
    [
        (InlineConfig(), "auto", 8, ProcessConfig(type="process", workers=8)),
        (InlineConfig(), "auto", 1, InlineConfig()),
        (InlineConfig(), "auto", 0, InlineConfig()),
        (InlineConfig(), "cuda", 8, InlineConfig()),
        (InlineConfig(), "cuda:3", 8, InlineConfig()),
        (InlineConfig(), "cpu", 8, InlineConfig()),
        (PROCESSES, "auto", 8, PROCESSES),
    ],
)
def test_several_gpus_get_a_worker_each_if_nobody_says_otherwise(section, device, gpus, expected):
    assert engine_for(section, device, gpus) == expected
