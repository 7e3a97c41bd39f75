"""Ready-made experiments: files that state only what differs, merged by name into complete parameters.

A folder holds `defaults.yaml`, which all experiments share, and one file per family:

    defaults:                 # merged into defaults.yaml
      generator: {...}
    experiments:
      text-baby:              # merged into both
        about: one line
        control: {...}

Mappings merge key by key. Lists, mappings whose `type` changes, and mappings with keys of one's own choice (`WHOLE`)
are replaced as a whole. The experiment's name and the models to fetch are filled in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from promptgen.errors import ConfigError
from promptgen.strict import Name, Section, did_you_mean, read_yaml, validate

if TYPE_CHECKING:
    from promptgen.config.params import Params

FOLDER_NAME = "experiments"
DEFAULTS_NAME = "defaults.yaml"

WHOLE = {"classes", "condition", "energies", "measure", "prompts", "target", "watch"}
"""Keys whose mapping replaces the one below as a whole: half a target and half another make no sense."""

KINDS = ("type", "method")
"""Keys that tell of what kind a section is, and so which other keys it has."""


class Family(Section):
    """A file of experiments.

    Attributes:
        defaults: what the experiments of the file share.
        experiments: what each adds, by name, with a line `about` it.
    """

    defaults: Annotated[dict[str, Any], Field(default_factory=dict)]
    experiments: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True)
class Preset:
    """One ready-made experiment.

    Attributes:
        name: its name, and that of its folder in artifacts/.
        about: one line on what it does.
        origin: the file that it comes from.
        layers: the mappings to merge, the most general first.
    """

    name: str
    about: str
    origin: Path
    layers: tuple[Mapping[str, Any], ...]

    def content(self) -> dict[str, Any]:
        """Return the content of a params.yaml of this experiment, its sections in their usual order.

        Raises:
            ConfigError: a key is unknown, missing, ill-typed or out of range; the error names file and experiment.
        """
        from promptgen.config.debias import Debias
        from promptgen.config.params import Control, Params  # names are listed without them, which is faster

        content: dict[str, Any] = {}
        for layer in self.layers:
            content = laid_over(content, layer)
        content |= {"experiment": self.name, "models": []}
        try:
            content["models"] = validate(Params, content).cards
        except ConfigError as error:
            raise ConfigError(f"{self.origin}: {self.name}: {error}") from error
        for key, section in (("control", Control), ("debias", Debias)):
            content[key] = content[key] and _in_order(content[key], section)
        return _in_order(content, Params)

    def params(self) -> Params:
        """Return the parameters; errors as of `content`."""
        from promptgen.config.params import Params

        return validate(Params, self.content())


def read_presets(folder: Path) -> dict[str, Preset]:
    """Return the experiments of a folder by name, in the order of its files.

    Raises:
        ConfigError: there is no such folder, a file does not hold experiments, or a name appears twice.
    """
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder} here; run this in the project's folder")
    common = _mapping(folder / DEFAULTS_NAME)
    presets: dict[str, Preset] = {}
    for path in sorted(folder.glob("*.yaml")):
        for preset in _read_family(path, common) if path.name != DEFAULTS_NAME else ():
            if preset.name in presets:
                raise ConfigError(f"{path}: {preset.name} is in {presets[preset.name].origin}, too; rename one")
            presets[preset.name] = preset
    return presets


def find_preset(name: str, folder: Path) -> Preset:
    """Return the experiment called `name` of a folder.

    Raises:
        ConfigError: there is no such experiment, and the error names similar ones; or as of `read_presets`.
    """
    presets = read_presets(folder)
    if name not in presets:
        raise ConfigError(f"there is no experiment called {name!r}{did_you_mean(name, presets)}")
    return presets[name]


def laid_over(content: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """Return `content` with `change` merged into it, but replace a section of another kind; neither is altered."""
    merged = dict(content)
    for key, value in change.items():
        below = merged.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping) and key not in WHOLE:
            same_kind = all(value.get(key, below.get(key)) == below.get(key) for key in KINDS)
            value = laid_over(below, value) if same_kind else value
        merged[key] = value
    return merged


def _read_family(path: Path, common: Mapping[str, Any]) -> list[Preset]:
    content = _mapping(path)
    try:
        family = validate(Family, content)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    presets = []
    for name, entry in family.experiments.items():
        about = entry.get("about")
        if not isinstance(about, str) or not about.strip():
            raise ConfigError(f"{path}: {name}: about is missing: say in one line what the experiment does")
        changes = {key: value for key, value in entry.items() if key != "about"}
        presets.append(Preset(name, about, path, (common, family.defaults, changes)))
    return presets


def _in_order(content: Mapping[str, Any], section: type[Section]) -> dict[str, Any]:
    """Return the content of a section with its keys in the usual order."""
    return {key: content[key] for key in section.model_fields if key in content}


def _mapping(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected keys and values, got {type(content).__name__}")
    return content
