"""Peak memory and processor time of an audit of many rows of labels: python -m tests.measure_audit 1000 1000000.

The table is as a data set's: a file name, which is another one in each row, three attributes of which some are missing,
a score, and a column of groups. Every number of rows has a process of its own.
"""

from __future__ import annotations

import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.memory import peak_memory

ATTRIBUTES = {"gender": ("Female", "Male"), "age": ("young", "middle", "old", ""), "hair": ("black", "brown", "blond")}


def write_table(path: Path, rows: int) -> Path:
    """Write a table of so many rows and return its path."""
    rng = random.Random(0)
    with path.open("w") as file:
        file.write(f"file,{','.join(ATTRIBUTES)},score,job\n")
        for row in range(rows):
            labels = ",".join(rng.choice(found) for found in ATTRIBUTES.values())
            file.write(f"images/{row:08d}.jpg,{labels},{rng.random():.6f},job {rng.randrange(50)}\n")
    return path


def measure(path: Path) -> None:
    """Audit the table and print the peak in MiB and the processor time in seconds."""
    from promptgen.audit.request import Request
    from steps.audit import run

    run(Request(path, groups="job", attributes=[*ATTRIBUTES, "gender x age"]), path.parent / "out")
    assert "torch" not in sys.modules  # which takes more than all of the rest
    used = resource.getrusage(resource.RUSAGE_SELF)
    print(f"{peak_memory():.0f} {used.ru_utime + used.ru_stime:.1f}")


def cost(rows: int) -> tuple[float, float]:
    """Return the peak memory, MiB, and the processor time, s, of a process that audits so many rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_table(Path(folder) / "labels.csv", rows)
        command = [sys.executable, "-m", "tests.measure_audit", "--here", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    peak, seconds = map(float, done.stdout.split())
    return peak, seconds


if __name__ == "__main__":
    if sys.argv[1] == "--here":
        measure(Path(sys.argv[2]))
    else:
        for number in map(int, sys.argv[1:]):
            print("{} rows: {:.0f} MiB, {:.1f} s".format(number, *cost(number)))
