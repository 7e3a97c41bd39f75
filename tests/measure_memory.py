"""Peak memory of a pass's measuring steps, for several numbers of samples: python -m tests.measure_memory 1000 50000.

The images are tiny, so that what grows with the samples shows: 256 features, 128 numbers of an identity, a pose and
a condition of each. Every number of samples has a process of its own, which imports the same and ends with its peak.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor

from tests import tiny
from tests.memory import peak_memory

FEATURES, IDENTITY = 256, 128


def features() -> object:
    """Return a network from images to `FEATURES` features."""
    return lambda image: _wide(image, FEATURES)


def identity() -> object:
    """Return a network from images to unit embeddings of `IDENTITY` numbers."""
    return lambda image: torch.nn.functional.normalize(_wide(image, IDENTITY), dim=1)


def _wide(image: Tensor, dim: int) -> Tensor:
    directions = torch.randn(3, dim, generator=torch.Generator().manual_seed(0))
    return (3 * image.mean(dim=(2, 3)) @ directions).sin()


def content(samples: int) -> dict:
    """Return a params.yaml that measures so many samples of a generator that takes no condition."""
    params = tiny.conditional_params()
    networks = {
        name: {"type": "custom", "factory": f"tests.measure_memory:{name}", "arguments": {}}
        for name in ("features", "identity")
    }
    params["evaluation"] |= {"samples": samples, "batch": 256, "fit_samples": 256, **networks}
    return params


def measure(samples: int) -> None:
    """Draw, evaluate and confirm pass 0 with so many samples, and print the peak in MiB and the seconds of each."""
    from promptgen.tracking import NullTracker
    from steps import confirm, evaluate, sample
    from steps.shared.common import Pass, Project

    with tempfile.TemporaryDirectory() as folder:
        run_pass = Pass(Project.load(tiny.write_params(Path(folder), content(samples))), 0)
        for step in (sample, evaluate, confirm):
            started = time.perf_counter()
            step.run(run_pass, NullTracker())
            seconds = time.perf_counter() - started
            print(f"{samples} {step.__name__.rpartition('.')[2]} {peak_memory():.0f} {seconds:.1f}", flush=True)


def peak(samples: int) -> float:
    """Return the peak memory, MiB, of a process that measures so many samples."""
    command = [sys.executable, "-m", "tests.measure_memory", "--here", str(samples)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    print(lines.stdout, end="")
    return float(lines.stdout.split()[-2])


if __name__ == "__main__":
    if sys.argv[1] == "--here":
        measure(int(sys.argv[2]))
    else:
        for number in map(int, sys.argv[1:]):
            peak(number)
