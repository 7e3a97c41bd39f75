"""What the documents say is so: links lead somewhere, commands exist, parameters are read, errors read as shown."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import typing
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from promptgen.command_line import COMMANDS
from promptgen.config.params import Params, load_params
from promptgen.errors import ConfigError
from promptgen.experiments.plan import plan_of
from promptgen.experiments.plan_text import plan_text
from promptgen.experiments.presets import find_preset, read_presets
from promptgen.labels import class_index, classes, target_shares
from promptgen.world.scene import ATTRIBUTES
from steps.commands import STEPS
from steps.experiments import ACTIONS
from tests.reporting import made_up_run

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
CONFIGURE = (ROOT / "docs" / "configure.md").read_text()
PARAMS = yaml.safe_load((ROOT / "params.yaml").read_text())

REPLACED = {"generator", "energies", "measure", "target", "models", "training"}
"""Keys whose content a block of YAML gives as a whole; the content of others is laid over that of params.yaml."""

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


def prose(page: Path) -> str:
    """Return a page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def commands(page: Path) -> set[str]:
    """Return the modules of all `python -m MODULE`, also where the line breaks between."""
    return set(re.findall(r"python\s+-m\s+([\w.]*\w)", page.read_text()))


def laid_over(content: dict, change: dict) -> dict:
    """Return `content` with what `change` says."""
    result = dict(content)
    for key, value in change.items():
        inner = result.get(key)
        merge = key not in REPLACED and isinstance(value, dict) and isinstance(inner, dict)
        result[key] = laid_over(inner, value) if merge else value
    return result


def with_value(dotted: str, value: object) -> dict:
    """Return the content of params.yaml with one value changed."""
    content = copy.deepcopy(PARAMS)
    *sections, key = dotted.split(".")
    inner = content
    for section in sections:
        inner = inner[section]
    inner[key] = value
    return content


def written(folder: Path, content: dict) -> Path:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def sections(annotation: object, found: set[type[BaseModel]]) -> set[type[BaseModel]]:
    """Return `found` with every section that an annotation mentions, those of inner sections included."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in found:
        found.add(annotation)
        for field in annotation.model_fields.values():
            sections(field.annotation, found)
    for inner in typing.get_args(annotation):
        sections(inner, found)
    return found


@each_page
def test_relative_links_lead_somewhere(page):
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        place, _, anchor = target.partition("#")
        if "://" in place or place.startswith("mailto:"):
            continue
        path = (page.parent / place).resolve() if place else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(target)
    assert broken == []


@each_page
def test_commands_exist(page):
    assert [name for name in sorted(commands(page)) if importlib.util.find_spec(name) is None] == []


@each_page
def test_commands_of_the_command_line_exist(page):
    used = re.findall(r"(?:^ {4}|`)promptgen ([a-z][\w-]*)(?: ([a-z]\w*))?", page.read_text(), re.MULTILINE)
    choices = {"experiments": ACTIONS, "step": STEPS}
    assert [name for name, _ in used if name not in COMMANDS] == []
    assert [(name, word) for name, word in used if word and name in choices and word not in choices[name]] == []


@each_page
def test_make_targets_exist(page):
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z][\w-]*)", page.read_text(), re.MULTILINE))
    assert named <= targets


@each_page
def test_named_files_exist(page):
    named = re.findall(r"`((?:promptgen|steps|pipelines|docs|examples|tests)/[\w./-]*)`", prose(page))
    made = "examples/reports/"  # by the example, when it is run
    assert [name for name in named if not (ROOT / name).exists() and not name.startswith(made)] == []


@each_page
def test_yaml_blocks_are_read(page, tmp_path):
    """Each block of parameters, laid over params.yaml, is an experiment whose labels the world has."""
    for block in blocks(page, "yaml"):
        change = yaml.safe_load(block)
        if page.name == "bring-your-own.md":
            continue  # its blocks are parts of examples/own.yaml, which a test of its own runs
        assert set(change) <= set(Params.model_fields), block
        params = load_params(written(tmp_path, laid_over(PARAMS, change)))
        drawn = params.generator.drawn(tmp_path / "models")
        known = {**ATTRIBUTES, **({drawn.name: drawn.labels} if drawn else {})}
        target_shares(classes(known, params.debias.attribute), params.debias.target)
        for attribute, label in (params.control.measure if params.control else {}).items():
            class_index(ATTRIBUTES, attribute, label)


def test_the_readme_is_short_and_its_example_prints_what_its_comment_says(capsys):
    page = ROOT / "README.md"
    assert len(page.read_text().splitlines()) <= 100
    (example,) = blocks(page, "python")
    promised = re.search(r"# before: ([\d.]+), after: ([\d.]+)", example)
    exec(compile(example, page.name, "exec"), {"__name__": "example"})
    printed = re.findall(r"mean blue ([\d.]+)", capsys.readouterr().out)
    assert [float(value) for value in printed] == pytest.approx([float(value) for value in promised.groups()], abs=0.03)


def test_the_metrics_are_read_as_shown(tmp_path, monkeypatch, capsys):
    (example,) = blocks(ROOT / "docs" / "report.md", "python")
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "metrics.json").write_text(json.dumps(made_up_run.content()))
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "report.md", "exec"), {})
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["0", "1", "2"]


def test_every_parameter_is_explained():
    """docs/configure.md names each parameter, apart from those of the world."""
    found: set[type[BaseModel]] = set()
    for name, field in Params.model_fields.items():
        if name != "world":
            sections(field.annotation, found)
    known = {*Params.model_fields, *(name for section in found for name in section.model_fields)}
    named = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", CONFIGURE))))
    assert known - named == set()


def test_errors_read_as_shown(tmp_path):
    rows = re.findall(r"^\| `([\w.]+): (.+?)` \| `(.+)` \|$", CONFIGURE, re.MULTILINE)
    assert len(rows) > 4
    for key, value, message in rows:
        path = written(tmp_path, with_value(key, yaml.safe_load(value)))
        with pytest.raises(ConfigError) as error:
            load_params(path)
        assert str(error.value) == f"{path}: {message}"


def test_every_experiment_is_in_the_table_and_its_plan_reads_as_shown():
    page = ROOT / "docs" / "experiments.md"
    presets = read_presets(ROOT / "experiments")
    assert [name for name in presets if f"`{name}`" not in page.read_text()] == []
    published, default, _ = blocks(page, "text")
    for shown, params in (published, presets["text-baby"].params()), (default, load_params(ROOT / "params.yaml")):
        assert shown in plan_text(plan_of(params, ROOT / "no-models")) + "\n"


def test_the_own_experiment_shown_is_one(tmp_path):
    *_, family = blocks(ROOT / "docs" / "experiments.md", "text")
    (tmp_path / "defaults.yaml").write_text((ROOT / "experiments" / "defaults.yaml").read_text())
    (tmp_path / "mine.yaml").write_text(family)
    assert find_preset("text-smile", tmp_path).params().debias.max_passes == 1


def test_architecture_names_every_room_and_no_other():
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = {
        path.parent.relative_to(ROOT).as_posix() + "/"
        for package in ("promptgen", "steps")
        for path in (ROOT / package).glob("*/__init__.py")
    }
    assert set(re.findall(r"^\| `((?:promptgen|steps)/\w+/)` \|", page, re.MULTILINE)) == rooms
    drawing = (ROOT / "docs" / "figures" / "architecture.svg").read_text()
    assert [room for room in rooms if not re.search(rf">{room.split('/')[1]}\b", drawing)] == []


def test_architecture_lists_the_library_in_the_order_of_its_imports():
    """A room imports no room above it in the table, save the command line's own modules, which are in none."""
    page = (ROOT / "docs" / "architecture.md").read_text()
    order = re.findall(r"^\| `promptgen/(\w+)/` \|", page, re.MULTILINE)
    upward = []
    for number, room in enumerate(order):
        for path in (ROOT / "promptgen" / room).rglob("*.py"):
            imported = re.findall(r"^\s*(?:from|import) promptgen\.(\w+)", path.read_text(), re.MULTILINE)
            upward += [f"{path.relative_to(ROOT)} imports {name}" for name in imported if name in order[:number]]
    assert upward == []
