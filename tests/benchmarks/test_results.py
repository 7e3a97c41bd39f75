"""Results are kept by task, method, seed and code; tables and curves are read from them."""

from __future__ import annotations

import math

import pytest

from benchmarks.jobs import make_jobs
from benchmarks.page import write_page
from benchmarks.plot import curve
from benchmarks.registry import METHODS
from benchmarks.results import Results, code_of
from benchmarks.table import table, units_to_goal
from benchmarks.tasks import TASKS, dim_of
from promptgen.errors import DataError


def row(units, kl, ess=None, error=None):
    measured = {"units": units, "seconds": 1.5, "samples": 100, "kl": kl, "ess": ess, "gap": 0.1}
    return {**measured, "bystander": 0.01, "bystander_low": -0.01, "bystander_high": 0.03, "error": error}


def test_results_are_read_as_written_and_a_run_is_replaced_as_a_whole(tmp_path):
    path, key = tmp_path / "results.csv", ("two-64", "prior", 0)
    results = Results(path)
    assert not results.has(key, "a")
    results.replace(key, "a", [row(512, 0.5), row(1024, 0.25, ess=0.75)])
    results.replace(("two-64", "prior", 1), "a", [row(512, None, error="class 3, is missing")])
    again = Results(path)
    assert again.has(key, "a")
    assert not again.has(key, "b")
    assert again.runs == results.runs
    assert [[line["kl"] for line in run] for run in again.of("two-64", "prior")] == [[0.5, 0.25], [None]]
    again.replace(key, "b", [row(512, 0.125)])
    assert [line["kl"] for line in Results(path).runs[key]] == [0.125]
    assert Results(path).has(("two-64", "prior", 1), "a")


def test_code_covers_what_a_method_imports_and_its_settings():
    ours, theirs = "benchmarks.methods.on_policy", "benchmarks.methods.prior"
    assert code_of(ours, 1) == code_of(ours, 1)
    assert len({code_of(ours, 1), code_of(ours, 2), code_of(theirs, 1)}) == 3


def test_code_ignores_words_and_follows_imports(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.results.ROOT", tmp_path)
    (tmp_path / "room").mkdir()
    method, library = tmp_path / "room" / "method.py", tmp_path / "room" / "library.py"
    method.write_text("from room import library\n")

    def code(text):
        library.write_text(text)
        code_of.cache_clear()
        return code_of("room.method")

    plain = code("def f():\n    return 1\n")
    assert code('"""Words."""\n\ndef f():\n    """Say more."""\n    return 1  # one\n') == plain
    assert code("def f():\n    return 2\n") != plain
    code_of.cache_clear()


def test_units_to_the_goal_are_those_from_which_on_it_holds():
    run = [row(1000, 0.01, 0.7), row(2000, 0.03, 0.7), row(4000, 0.01, 0.5), row(8000, 0.01, 0.7)]
    assert units_to_goal(run) == 4000
    assert units_to_goal(run, ess=0.6) == 8000
    assert units_to_goal([*run, row(9000, None, error="stopped")]) == math.inf
    assert units_to_goal(run[:2]) == math.inf


def test_the_page_keeps_its_words_and_fails_are_in_the_table(tmp_path):
    results = Results(tmp_path / "results.csv")
    results.replace(("two-64", "on_policy", 0), "a", [row(512, 0.1, 0.2), row(1024, 0.01, 0.8)])
    results.replace(("two-64", "on_policy", 1), "a", [row(512, 0.2, 0.1), row(1536, 0.03, 0.6)])
    results.replace(("two-64", "on_policy", 2), "a", [row(700, None, error="no good")])
    page = tmp_path / "page.md"
    page.write_text(
        "Before.\n<!-- ratios -->\n<!-- end of ratios -->\n<!-- table -->\nold\n<!-- end of table -->\n\nAfter.\n"
    )
    write_page(results, page)
    text = page.read_text()
    assert text.startswith("Before.\n")
    assert text.endswith("After.\n")
    assert "old" not in text
    cells = [cell.strip() for cell in table(results).splitlines()[-1].strip("|").split("|")]
    assert cells[:6] == ["two-64", "on-policy path gradient", "3, 1 failed", "> 1,536", "> 1,536", "1,280 (1,536)"]
    assert cells[6:9] == ["0.0200 (0.0300)", "0.70 (0.60)", "0.10"]
    assert (tmp_path / "figures" / "benchmarks.png").read_bytes().startswith(b"\x89PNG")
    write_page(results, page)
    assert page.read_text() == text
    page.write_text("A page without the marks of the tables.\n")
    with pytest.raises(DataError, match="marks"):
        write_page(results, page)


def test_a_curve_has_the_kl_of_every_run_between_its_measurements():
    units, kl = curve([[row(100, 1.0), row(10_000, 0.01)], [row(200, 0.1), row(20_000, 0.1)]])
    assert (units[0], units[-1]) == pytest.approx((200, 10_000))
    assert kl.shape == (2, len(units))
    assert kl[0, -1] == pytest.approx(0.01)
    assert kl[1] == pytest.approx(0.1)
    assert len(curve([[row(5, None, error="no good")]])[0]) == 0


def test_every_method_runs_on_every_task_but_for_those_that_its_budgets_leave_out():
    jobs = make_jobs(TASKS, METHODS, seeds=1)
    assert [dim_of(job.task) for job in jobs] == sorted((dim_of(job.task) for job in jobs), reverse=True)
    left_out = {(task, name) for task in TASKS for name in METHODS} - {(job.task, job.method) for job in jobs}
    assert left_out == {("two-4096", "published")}
    assert all(job.budget <= 8192 for job in make_jobs(TASKS, METHODS, seeds=2, quick=True))
