"""Two processes that train one flow together, on the CPU, end with what one process ends with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from promptgen.networks.distributed import from_first, gathered, is_first, keep_equal, mean, share, size
from promptgen.tracking import NullTracker
from steps import train_flow
from steps.shared.common import Pass
from tests import tiny
from tests.networks import trained_together
from tests.quick import COUNTS, shortened
from tests.steps.projects import project_in

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def together(*words, cwd=ROOT):
    """Run a command in two processes; return what it printed."""
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PROMPTGEN_QUIET": "1"}
    done = subprocess.run([*TORCHRUN, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("method", ["on_policy", "reuse"])
def test_two_processes_train_the_flow_that_one_trains(tmp_path, method):
    status, output = together(trained_together.__file__, method, str(tmp_path))
    assert status == 0, output
    first, second = (torch.load(tmp_path / f"rank-{rank}.pt", weights_only=True) for rank in range(2))
    for name, value in first["flow"].items():
        assert torch.equal(value, second["flow"][name]), name  # not a rounding apart
    assert first["fit"] == second["fit"]
    with shortened(COUNTS):
        flow, history, fit = getattr(trained_together, method)(tmp_path / "alone")
    tolerance = {"rtol": 1e-8, "atol": 1e-8} if method == "on_policy" else {"rtol": 1e-3, "atol": 1e-3}
    assert len(history) == len(first["history"]) > 3
    for row, expected in zip(first["history"], history, strict=True):
        assert row == pytest.approx(expected, rel=tolerance["rtol"], abs=tolerance["atol"])
    if method == "on_policy":  # in double precision; in single precision, Adam makes roundings of small gradients large
        for name, value in flow.state_dict().items():
            torch.testing.assert_close(first["flow"][name], value, msg=name, **tolerance)
    for name in ("log_z", "ess_fraction", "kl_gap"):
        assert first["fit"][name] == pytest.approx(getattr(fit, name), rel=1e-2, abs=1e-2), name


@pytest.mark.long
@pytest.mark.slow
def test_a_step_trains_with_two_processes_and_the_first_one_writes(tmp_path):
    content = tiny.params()
    project = project_in(tmp_path, content)
    status, output = together("-m", "promptgen", "step", "train_flow", "--pass", "1", cwd=tmp_path)
    assert status == 0, output
    assert output.count("artifacts/tiny/pass-1/train_flow") == 1
    run_pass = Pass(project, 1)
    before = run_pass.chain.stat().st_mtime_ns
    result = train_flow.run(run_pass, NullTracker())  # one process takes it for its own
    assert run_pass.chain.stat().st_mtime_ns == before
    assert result["result"]["fit"]["n"] == content["evaluation"]["fit_samples"]
    status, output = together("-m", "promptgen", "step", "sample", "--pass", "1", cwd=tmp_path)
    assert status != 0
    assert "only train_flow runs under torchrun" in output


def test_one_process_is_the_first_and_has_all():
    values = torch.arange(6.0)
    assert is_first()
    assert size() == 1
    assert share(5) == slice(0, 5)
    assert from_first(lambda: values) is values
    assert gathered(values) is mean(values) is values
    keep_equal(torch.nn.Linear(2, 2))


def test_an_error_of_the_first_process_is_raised():
    with pytest.raises(KeyError, match="lost"):
        from_first(lambda: {}["lost"])
