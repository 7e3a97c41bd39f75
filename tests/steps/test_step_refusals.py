"""Steps that cannot do their work say so in one line, and leave nothing half-written."""

from __future__ import annotations

import pytest

from promptgen.errors import (
    ConfigError,
    DataError,
    InfeasibleTargetError,
    NonFiniteEnergyError,
)
from promptgen.tracking import NullTracker
from steps import evaluate, fit_moments, sample, train_flow
from steps.shared.common import Pass
from tests import tiny
from tests.steps.projects import project_in, run_command, run_pass


def test_steps_out_of_order_are_refused(tmp_path):
    project = project_in(tmp_path)
    with pytest.raises(DataError, match=r"samples.json is missing; write it with `promptgen step sample --pass 0`"):
        evaluate.run(Pass(project, 0), NullTracker())
    with pytest.raises(DataError, match=r"write it with `promptgen step train_flow --pass 1`"):
        sample.run(Pass(project, 1), NullTracker())
    with pytest.raises(DataError, match=r"moments.json is missing|chain.safetensors is missing"):
        train_flow.run(Pass(project, 2), NullTracker())
    with pytest.raises(ConfigError, match="pass 0"):
        train_flow.run(Pass(project, 0), NullTracker())
    with pytest.raises(ConfigError, match=r"pass 1 .*2"):
        fit_moments.run(Pass(project, 1), NullTracker())


def test_broken_energy_is_named(tmp_path):
    content = tiny.params()
    content["control"]["energies"]["wish"]["function"] = "tests.tiny:broken_wish"
    with pytest.raises(NonFiniteEnergyError, match="broken_wish"):
        train_flow.run(Pass(project_in(tmp_path, content), 1), NullTracker())
    assert not (tmp_path / "artifacts/tiny/pass-1/train_flow/manifest.json").exists()


def test_unreachable_target_names_the_class(tmp_path):
    content = tiny.params()
    content["control"] = None
    content["debias"]["classifier"]["factory"] = "tests.tiny:short_only"
    project = project_in(tmp_path, content)
    run_pass(project, 0)
    with pytest.raises(InfeasibleTargetError, match=r"target 0.5 of 'hair:\w+'.*[01]"):
        fit_moments.run(Pass(project, 1), NullTracker())


@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
def test_commands_end_with_one_line(tmp_path, monkeypatch, capsys):
    path = str(tiny.write_params(tmp_path))
    assert run_command(monkeypatch, "steps.sample", "--params", path, "--pass", "0") == 0
    assert capsys.readouterr().out.startswith("artifacts/tiny/pass-0/sample: ")
    assert run_command(monkeypatch, "steps.sample", "--params", path, "--pass", "9") == 2
    error = capsys.readouterr().err
    assert error == "error: pass 9 is not in this experiment, whose passes are 0 to 3\n"
    assert run_command(monkeypatch, "steps.check", "--params", str(tmp_path / "nowhere.yaml")) == 2
    assert capsys.readouterr().err.startswith("error: cannot read ")
    assert run_command(monkeypatch, "steps.fetch", "world-jugde", "--models", str(tmp_path)) == 2
    assert "did you mean world-judge" in capsys.readouterr().err
