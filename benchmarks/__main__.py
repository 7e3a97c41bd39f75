"""Run the comparison: ``python -m benchmarks``. What the results have already is not run again."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from promptgen.commands.command import run_command, whole_number
from promptgen.errors import ConfigError

RESULTS, PAGE = Path("benchmarks/results.csv"), Path("docs/benchmarks.md")
QUICK = Path("artifacts/benchmarks")


def main(words: Sequence[str]) -> None:
    """Run what is missing, then write the table and the figure."""
    arguments = _arguments(words)
    # Slow packages are imported when the arguments have been read.
    from benchmarks.jobs import make_jobs, run_jobs
    from benchmarks.page import write_page
    from benchmarks.registry import METHODS
    from benchmarks.results import Results
    from benchmarks.tasks import TASKS

    tasks = _chosen(arguments.tasks, [name for name in TASKS if not arguments.quick or name.endswith("-64")], "task")
    methods = _chosen(arguments.methods, list(METHODS), "method")
    results = Results(arguments.results or (QUICK / "quick.csv" if arguments.quick else RESULTS))
    jobs = make_jobs(tasks, methods, 1 if arguments.quick else arguments.seeds, arguments.quick)
    missing = [job for job in jobs if not results.has(job.key, job.code)]
    print(f"{len(missing)} of {len(jobs)} runs are missing in {results.path}")
    started = time.monotonic()
    for done, job in enumerate(run_jobs(missing, results, arguments.processes), start=1):
        last = results.runs[job.key][-1]
        outcome = last["error"] or f"KL {last['kl']:.4f}" + (f", ESS {last['ess']:.2f}" if last["ess"] else "")
        spent = f"{last['units']:,} units, {last['seconds']:.1f} s"
        so_far = f"{done}/{len(missing)} after {time.monotonic() - started:.0f} s"
        print(f"{so_far}: {job.task}, {job.method}, seed {job.seed}: {outcome}, {spent}", flush=True)
    kept = [job for job in make_jobs(TASKS, METHODS, 10, arguments.quick) if job.key in results.runs]
    if old := sum(not results.has(job.key, job.code) for job in kept):
        print(f"{old} runs in {results.path} are those of older code; run all tasks and methods to repeat them")
    write_page(results, QUICK / "benchmarks.md" if arguments.quick or arguments.results else PAGE)


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description="Compare samplers on counted tasks.")
    parser.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks to run; default: all")
    parser.add_argument("--methods", nargs="+", metavar="METHOD", help="methods to run; default: all")
    parser.add_argument("--seeds", type=whole_number(1, 10), default=10, metavar="N", help="at most 10, the default")
    parser.add_argument("--processes", type=whole_number(1), default=2, metavar="N", help="default: 2")
    parser.add_argument("--results", type=Path, metavar="FILE", help=f"CSV of all measurements; default: {RESULTS}")
    parser.add_argument("--quick", action="store_true", help="small runs with one seed, apart from the results")
    return parser.parse_args(words)


def _chosen(words: Sequence[str] | None, names: Sequence[str], kind: str) -> Sequence[str]:
    """Return the names that were asked for, or all.

    Raises:
        ConfigError: there is no such name.
    """
    for word in words or ():
        if word not in names:
            raise ConfigError(f"there is no {kind} {word!r}, expected one of {', '.join(names)}")
    return words or names


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
