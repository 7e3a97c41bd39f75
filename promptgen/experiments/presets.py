"""Ready-made experiments: files that say only what differs, resolved by name into complete parameters.

A folder holds `defaults.yaml`, which all experiments share, and one file per family:

    defaults:                 # laid over defaults.yaml
      generator: {...}
    experiments:
      text-baby:              # laid over both
        about: one line
        control: {...}

Laying one mapping over another merges them key by key. Given whole are lists, mappings whose `type` changes, and the
mappings with keys of one's own choice, `WHOLE`. The experiment's name and the models to fetch follow by themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from promptgen.config.build import cards_of
from promptgen.config.params import Control, Debias, Params
from promptgen.config.specs import Name
from promptgen.errors import ConfigError
from promptgen.strict import Section, did_you_mean, read_yaml, validate

FOLDER_NAME = "experiments"
DEFAULTS_NAME = "defaults.yaml"

WHOLE = {"condition", "energies", "measure", "target", "watch"}
"""Keys whose mapping replaces the one before as a whole: half a target and half another make no sense."""


class Family(Section):
    """A file of experiments.

    Attributes:
        defaults: what they share.
        experiments: what is special in each, by name, with a line `about` it.
    """

    defaults: Annotated[dict[str, Any], Field(default_factory=dict)]
    experiments: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True)
class Preset:
    """One ready-made experiment.

    Attributes:
        name: its name, and that of its folder below artifacts/.
        about: what it is, in one line.
        origin: the file that it comes from.
        layers: what is laid over each other, the most general first.
    """

    name: str
    about: str
    origin: Path
    layers: tuple[Mapping[str, Any], ...]

    def content(self) -> dict[str, Any]:
        """Return the content of a params.yaml of this experiment, its sections in their usual order.

        Raises:
            ConfigError: a key is unknown, missing, ill-typed or out of range; the file and the experiment are named.
        """
        content: dict[str, Any] = {}
        for layer in self.layers:
            content = laid_over(content, layer)
        content |= {"experiment": self.name, "models": []}
        try:
            params = validate(Params, content)
        except ConfigError as error:
            raise ConfigError(f"{self.origin}: {self.name}: {error}") from error
        content["models"] = list(dict.fromkeys(name for spec in params.specs for name in cards_of(spec)))
        for section, model in (("control", Control), ("debias", Debias)):
            content[section] = content[section] and _in_order(content[section], model)
        return _in_order(content, Params)

    def params(self) -> Params:
        """Return the parameters; errors as of `content`."""
        return validate(Params, self.content())


def read_presets(folder: Path) -> dict[str, Preset]:
    """Return the experiments of a folder by name, in the order of its files.

    Raises:
        ConfigError: there is no such folder, a file is none of experiments, or a name is there twice.
    """
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder} here; run this in the project's folder")
    common = _mapping(folder / DEFAULTS_NAME)
    presets: dict[str, Preset] = {}
    for path in sorted(folder.glob("*.yaml")):
        if path.name == DEFAULTS_NAME:
            continue
        for preset in _read_family(path, common):
            if preset.name in presets:
                raise ConfigError(f"{path}: {preset.name} is in {presets[preset.name].origin}, too; rename one")
            presets[preset.name] = preset
    return presets


def find_preset(name: str, folder: Path) -> Preset:
    """Return the experiment called `name` of a folder.

    Raises:
        ConfigError: there is none, and close names are told; or as of `read_presets`.
    """
    presets = read_presets(folder)
    if name not in presets:
        raise ConfigError(f"there is no experiment called {name!r}{did_you_mean(name, presets)}")
    return presets[name]


def laid_over(content: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with what `change` says; neither is altered."""
    result = dict(content)
    for key, value in change.items():
        before = result.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping) and _merge(key, before, value):
            result[key] = laid_over(before, value)
        else:
            result[key] = value
    return result


def _merge(key: str, before: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Tell whether two mappings under one key are about the same thing."""
    return key not in WHOLE and value.get("type", before.get("type")) == before.get("type")


def _read_family(path: Path, common: Mapping[str, Any]) -> list[Preset]:
    content = _mapping(path)
    try:
        family = validate(Family, content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return [_preset(path, name, entry, (common, family.defaults)) for name, entry in family.experiments.items()]


def _preset(path: Path, name: str, entry: Mapping[str, Any], shared: tuple[Mapping[str, Any], ...]) -> Preset:
    about = entry.get("about")
    if not isinstance(about, str) or not about.strip():
        raise ConfigError(f"{path}: {name}: about is missing: say in one line what it is")
    return Preset(name, about, path, (*shared, {key: value for key, value in entry.items() if key != "about"}))


def _in_order(content: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """Return the content of a section with its keys in the usual order."""
    return {key: content[key] for key in section.model_fields if key in content}


def _mapping(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(content).__name__}")
    return content
