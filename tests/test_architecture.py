"""Who may import whom; and that dvc.yaml, the steps and params.yaml agree."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from promptgen.config.build import FACTORIES
from promptgen.config.params import Params, load_params
from promptgen.config.registry import CLASSIFIERS, ENERGIES, GENERATORS, MODELS
from promptgen.experiments.presets import read_presets
from promptgen.model_files.cards import load_cards

ROOT = Path(__file__).parents[1]
LAYERS = ("promptgen", "steps", "pipelines")
WORKFLOW = {"prefect", "mlflow", "dvc"}
LAZY = {factory.module for factory in FACTORIES.values()} | {*GENERATORS, *MODELS, *CLASSIFIERS, *ENERGIES}
"""Modules that tables name."""
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PRESETS = read_presets(ROOT / "experiments")


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@cache
def imports(path: Path) -> frozenset[str]:
    """Return the dotted names that a file imports, at its top or inside functions; `a.b` for `from a import b`, too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and node.value in LAZY:
            names.add(str(node.value).partition(":")[0])
    return frozenset(names)


def file_of(module: str) -> Path | None:
    """Return the project's file of a module, if it is one of the project's."""
    stem = ROOT / Path(*module.split("."))
    return next((path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file()), None)


def closure(module: str) -> set[Path]:
    """Return the project's files that running a module may import, its packages' `__init__` included."""
    found: set[Path] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        path = file_of(name)
        if path is not None and path not in found:
            found.add(path)
            todo += imports(path)
            todo += [name.rpartition(".")[0]] if "." in name else []
    return found


@pytest.mark.parametrize("package", LAYERS)
def test_layers_import_only_what_is_below_them(package):
    forbidden = set(LAYERS[LAYERS.index(package) + 1 :]) | {"tests"}
    if package == "promptgen":
        forbidden |= WORKFLOW
    if package == "steps":
        forbidden |= {"prefect", "dvc"}
    if package == "pipelines":
        forbidden |= {"mlflow", "dvc", "torch"}
    for path in modules(package):
        roots = {name.partition(".")[0] for name in imports(path)}
        assert not roots & forbidden, path


def test_benchmarks_import_the_library_alone_and_nothing_imports_them():
    for path in modules("benchmarks"):
        roots = {name.partition(".")[0] for name in imports(path)}
        assert not roots & {*LAYERS[1:], *WORKFLOW, "tests"}, path
    for path in [path for package in LAYERS for path in modules(package)]:
        assert "benchmarks" not in {name.partition(".")[0] for name in imports(path)}, path


@pytest.mark.parametrize("room", ["flows", "moments", "metrics", "energies"])
def test_the_method_imports_no_configuration(room):
    """The maths works on arrays and modules: what params.yaml calls them is the business of the rooms above."""
    for path in modules(f"promptgen/{room}"):
        assert not any(name.startswith("promptgen.config") for name in imports(path)), path


def test_the_engine_knows_no_other_room_and_ray_is_imported_in_one_function():
    """What is evaluated is the business of the rooms above, and whoever has no Ray can use everything else."""
    rooms = {path.parent.name for path in (ROOT / "promptgen").glob("*/__init__.py")} - {"engine", "networks"}
    for path in modules("promptgen/engine"):
        assert not {name.split(".")[1] for name in imports(path) if name.startswith("promptgen.")} & rooms, path
    for path in [path for package in (*LAYERS, "benchmarks") for path in modules(package)]:
        assert "ray" not in imports(path) or path.name == "ray_cluster.py", path
        top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import)]
        assert "ray" not in {alias.name for node in top for alias in node.names}, path


def test_library_runs_without_workflow_tools():
    """Every module of the library is imported in a process in which Prefect, MLflow and DVC cannot be."""
    names = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules("promptgen")]
    wanted = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = f"""
import importlib, sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WORKFLOW!r}:
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
for name in {wanted!r}:
    importlib.import_module(name)
assert not {WORKFLOW!r} & {{name.partition(".")[0] for name in sys.modules}}
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_parameters_are_read_without_models():
    """Fetching files, reading parameters and listing models or experiments needs neither torch nor a model's code."""
    code = """
import sys
import steps.experiments, steps.fetch, steps.list_models
from promptgen.config.params import load_params
load_params("params.yaml")
print(steps.experiments.listing(steps.experiments.Path()))
assert not {"torch", "scipy", "numpy", "pandas", "seaborn", "prefect", "mlflow", "open_clip"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def command_module(stage: str) -> str:
    """Return the module that a stage runs."""
    words = STAGES[stage]["cmd"].split()
    assert words[:2] == ["python", "-m"]
    return words[2]


def paths_of(entries: list) -> list[str]:
    """Return the paths of a stage's deps, outs, metrics or plots."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_all_code_that_it_runs(stage):
    deps = [ROOT / dep for dep in paths_of(STAGES[stage]["deps"]) if "$" not in dep]
    for dep in deps:
        assert dep.exists() or dep.name in ("models", "used.json", "metrics.json"), dep
    ignored = {ROOT / package / "__init__.py" for package in ("promptgen", "steps", "steps/shared")}
    for path in closure(command_module(stage)) - ignored:
        assert any(path == dep or dep in path.parents for dep in deps), f"{stage} does not depend on {path}"


@pytest.mark.parametrize("stage", STAGES)
def test_stage_names_existing_parameters(stage):
    for name in STAGES[stage].get("params", []):
        assert name in Params.model_fields, name


def test_debias_depends_on_every_parameter_of_the_loop():
    # When, where and how it runs, not what it finds.
    elsewhere = {"schedule", "models", "world", "device", "engine", "compile"}
    assert set(STAGES["debias"]["params"]) == set(Params.model_fields) - elsewhere


@pytest.mark.parametrize("name", [*PRESETS, "examples/own.yaml", "params.yaml"])
def test_every_experiment_has_the_parameters_that_dvc_reads(name):
    """DVC refuses a params.yaml without one, also where the project has a default."""
    given = PRESETS[name].content() if name in PRESETS else yaml.safe_load((ROOT / name).read_text())
    assert [key for stage in STAGES.values() for key in stage.get("params", []) if key not in given] == []


def test_experiment_fetches_just_what_it_uses():
    params = load_params(ROOT / "params.yaml")
    assert set(params.cards) == set(params.models) <= set(load_cards())


def test_reports_are_for_git_and_artifacts_for_the_dvc_cache():
    for stage in STAGES.values():
        for entry in stage.get("outs", []) + stage.get("metrics", []):
            if isinstance(entry, dict):
                ((path, options),) = entry.items()
                assert options == ({"cache": False} if path.startswith("reports/") else {"persist": True}), path


def test_plots_are_outputs_of_the_report():
    outs = set(paths_of(STAGES["report"]["outs"]))
    plots = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    drawn = {path for plot in plots for path in ([plot] if isinstance(plot, str) else next(iter(plot.values()))["y"])}
    assert drawn < outs
