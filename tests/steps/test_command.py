"""How a command ends, in a process of its own, as a shell sees it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from promptgen.commands.command import run_command
from promptgen.errors import DataError


def ended(body: str, shell: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Return how a command whose `main` has this body ends, its output piped through `shell` if that is given."""
    start = "import sys\nfrom promptgen.commands.command import run_command"
    code = f"{start}\nsys.exit(run_command(lambda words: {body}, []))"
    pipe = f'set -o pipefail; "$0" -c "$1" {shell}'
    return subprocess.run(
        ["bash", "-c", pipe, sys.executable, code], capture_output=True, text=True, check=False, env=environment
    )


@pytest.mark.parametrize("body", ["print('line\\n' * 100_000)", "print('few lines')"])
def test_who_reads_the_output_may_stop_reading(body):
    found = ended(body, "| true")
    assert (found.returncode, found.stderr) == (0, "")


def test_what_the_terminal_cannot_show_is_a_question_mark():
    found = ended(r"print('50\u202f% é')", PYTHONIOENCODING="ascii")
    assert (found.returncode, found.stdout, found.stderr) == (0, "50?% ?\n", "")


def test_an_error_of_the_project_is_one_line_and_status_2(capsys):
    def fail(words: object) -> None:
        raise DataError("no\nimages")

    assert run_command(fail, []) == 2
    assert capsys.readouterr().err == "error: no images\n"
