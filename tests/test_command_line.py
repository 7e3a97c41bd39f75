"""The command line: every command explains itself and refuses wrong arguments at once, before slow imports."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import get_args

import pytest

from promptgen.command_line import COMMANDS, GROUPS, load, main, page
from promptgen.commands.command import whole_number
from promptgen.flows.exact import Method
from promptgen.world.config import ModelName
from steps import commands
from steps.experiments import ACTIONS
from tests.commands import typed

ROOT = Path(__file__).parents[1]
CPU_SECONDS = 1.5
SLOW = ("torch", "scipy", "numpy", "pandas", "seaborn", "prefect", "mlflow")

WRONG: dict[str, list[str]] = {
    "experiments": ["lost"],
    "check": ["--lost"],
    "run": ["--params", "a", "--experiment", "b"],
    "step": ["sample", "--pass", "one"],
    "report": ["--lost"],
    "draw": ["--pass", "1", "--out", "x", "--n", "0"],
    "audit": ["--images", "x"],
    "fetch": ["a", "b", "--from", "x"],
    "list-models": ["lost"],
    "store": ["a", "b"],
    "inspect": [],
    "cost": ["model", "--batch", "0"],
    "build-world": ["--only", "lost"],
    "ui": ["--mlflow-port", "0"],
    "serve": ["--prefect-port", "99999"],
    "serve-model": ["--port", "0"],
    "sync": ["lost"],
    "doctor": ["--lost"],
}
"""Wrong arguments of every command."""

MODULES = {
    **{f"step {name}": f"steps.{name}" for name in commands.STEPS},
    **{name: f"steps.{name.replace('-', '_')}" for name in ("audit", "build-world", "check", "draw", "fetch")},
    **{name: f"steps.{name.replace('-', '_')}" for name in ("list-models", "report", "sync")},
    **{"run": "pipelines.debias", "serve": "pipelines.serve", "ui": "pipelines.ui"},
}
"""Modules that `python -m` runs as commands."""

MEASURED = """
import json, resource, subprocess, sys
run = subprocess.run([sys.executable, *sys.argv[1:]], capture_output=True, text=True)
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(json.dumps([run.returncode, run.stdout, run.stderr, used.ru_utime + used.ru_stime]))
"""


def measured(*words: str) -> tuple[int, str, str]:
    """Run Python with these words, in the project's folder; return status, output and errors if it was fast enough.

    The faster of two runs counts, since the first may have to compile modules.
    """
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", MEASURED, *words], cwd=ROOT, capture_output=True, check=True)
        status, output, errors, seconds = json.loads(run.stdout)
        if seconds <= CPU_SECONDS:
            return status, output, errors
    raise AssertionError(f"{' '.join(words)} took {seconds:.2f} s of processor time")


def one_line(errors: str) -> str:
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_comes_at_once(name):
    status, output, errors = measured("-m", "promptgen", name, "--help")
    assert (status, errors) == (0, "")
    assert output.startswith(f"usage: promptgen {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_wrong_argument_is_refused_at_once_in_a_line(name):
    status, output, errors = measured("-m", "promptgen", name, *WRONG[name])
    assert (status, output) == (2, "")
    assert f"promptgen {name}" in one_line(errors)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_is_the_same_command(name):
    status, output, errors = measured("-m", MODULES[name], "--help")
    assert (status, errors) == (0, "")
    assert output.startswith(f"usage: promptgen {name.partition(' ')[0]}")


@pytest.mark.parametrize("name", ACTIONS)
def test_every_help_about_experiments_comes_at_once(name):
    status, output, errors = measured("-m", "promptgen", "experiments", name, "--help")
    assert (status, errors) == (0, "")
    assert output.startswith(f"usage: promptgen experiments {name}")


def test_the_experiments_are_listed_at_once():
    status, output, _ = measured("-m", "promptgen", "experiments", "list")
    assert status == 0
    assert "text-baby" in output


def test_the_experiments_are_listed_from_any_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert typed("experiments", "list") == 0
    assert "text-baby" in capsys.readouterr().out


def test_nothing_slow_is_imported_before_the_arguments_are_read():
    code = f"""
import sys
from promptgen.command_line import COMMANDS, main
for name in COMMANDS:
    try:
        main([name, "--help"])
    except SystemExit as end:
        assert not end.code, name
    assert not {set(SLOW)!r} & set(sys.modules), name
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def test_the_page_has_every_command_once_with_a_line():
    lines = page().splitlines()
    for title in GROUPS:
        assert f"{title}:" in lines
    for name, command in COMMANDS.items():
        assert len([line for line in lines if re.fullmatch(rf"  {name} +{re.escape(command.about)}", line)]) == 1
    assert max(map(len, lines)) <= 100


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_the_page_is_the_help(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out == f"{page()}\n"


@pytest.mark.parametrize(("words", "message"), [([], "the command is missing"), (["rum"], "there is no command 'rum'")])
def test_a_wrong_command_is_refused_in_a_line(words, message, capsys):
    assert main(words) == 2
    line = one_line(capsys.readouterr().err)
    assert message in line
    assert all(name in line for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_leads_somewhere(name):
    assert callable(load(name))


def test_the_library_alone_says_what_a_command_needs():
    """With the library alone, its own commands run; a command of the steps or pipelines ends with one line."""
    code = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"steps", "pipelines"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.partition(".")[0])
sys.meta_path.insert(0, Refuse())
from promptgen.command_line import main
sys.exit(main(sys.argv[1:]))
"""
    for name, package in (("fetch", "steps"), ("run", "pipelines")):
        run = subprocess.run([sys.executable, "-c", code, name], cwd=ROOT, capture_output=True, text=True)
        assert run.returncode == 2
        assert f"`promptgen {name}` needs the package {package}" in one_line(run.stderr)
    inspect = ["inspect", "promptgen/world/weights/world-pose.safetensors"]
    assert subprocess.run([sys.executable, "-c", code, *inspect], cwd=ROOT, capture_output=True).returncode == 0


def test_the_console_script_is_the_command_line():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"promptgen": f"{main.__module__}:{main.__name__}"}
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {command.work.partition(".")[0] for command in COMMANDS.values()} == {name.rstrip("*") for name in packages}


def test_choices_are_those_of_the_library():
    assert get_args(Method) == commands.EXACT_METHODS
    assert get_args(ModelName) == commands.WORLD_MODELS


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999", "http"])
@pytest.mark.parametrize("argument", [("ui", "--mlflow-port"), ("ui", "--prefect-port"), ("serve", "--prefect-port")])
def test_a_port_that_cannot_be_is_refused(argument, port, capsys):
    assert typed(*argument, port) == 2
    assert f"expected a whole number from 1 to 65535, got '{port}'" in one_line(capsys.readouterr().err)


def test_whole_numbers_have_ends():
    assert [whole_number(1, 65535)(word) for word in ("1", "65535")] == [1, 65535]
    assert whole_number(0)("0") == 0
