"""A new kind of generator or energy: one class, one line, and it is built, planned, described and listed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import yaml

from promptgen.config.registry import import_object, union
from promptgen.config.spec import EnergyBase
from promptgen.errors import ConfigError
from tests import tiny

ROOT = Path(__file__).parents[2]

KINDS = """
from collections import Counter
from typing import Literal

from promptgen.config.models import ReaderSpec
from promptgen.config.spec import EnergyBase, GeneratorBase, Name, Shape


class Patch(GeneratorBase):
    type: Literal["patch"]
    model: Name
    side: int

    @property
    def name(self):
        return self.model

    def build(self, models, *, sampling=False):
        from tests.tiny import TinyGenerator

        return TinyGenerator()

    def cards(self):
        return [self.model]

    def settings(self):
        return {"side": self.side}

    def shape(self, card):
        return Shape(self.side, {"z": 4})


class Bright(EnergyBase):
    type: Literal["bright"]
    judged_by: ReaderSpec

    def build(self, models, condition):
        return lambda sample: -sample.image.mean(dim=(1, 2, 3))

    def views(self):
        return Counter(3 * self.judged_by.names())

    def asks_for(self, name):
        return "a bright image"
"""

SCRIPT = """
import json
from pathlib import Path

from promptgen.config import registry

registry.GENERATORS.append("kinds:Patch")
registry.ENERGIES.append("kinds:Bright")

from promptgen.config.build import build_energies, identities
from promptgen.config.params import load_params
from promptgen.errors import ConfigError
from promptgen.experiments.plan import Images, plan_of
from promptgen.experiments.plan_text import plan_text
from promptgen.reporting.settings import Settings
from steps import list_models

params, models = load_params("params.yaml"), Path("models")
plan = plan_of(params, models)
text = plan_text(plan)
assert "world-generator, 4 x 4 pixels, latent of 4 numbers, side 4" in text, text
assert "control: a bright image, weight 2" in text, text
steps = params.control.training.steps * params.control.training.batch
expected = {"world-generator": Images(steps, steps), "world-pose": Images(6 * steps, 6 * steps)}
assert plan.passes[1].usage["training"] == expected, plan.passes[1].usage
roles = {model.name: model.roles for model in plan.models}
assert roles["world-pose"] == ("energy bright", "energy either"), roles
assert Settings.of(params).asked == "a bright image and either"
list_models.run(params, models)
assert set(json.loads(Path("models/used.json").read_text())) == {"world-generator", "world-pose"}
assert params.model_dump()["generator"] == {"type": "patch", "model": "world-generator", "side": 4}

from promptgen.energies.base import Sample

generator = params.generator.build(models)
latent = generator.prior.sample(2, __import__("torch").Generator())
energy = build_energies({"bright": params.control.energies["bright"]}, models)
assert energy(Sample(latent, generator(latent))).tolist() == (-2 * generator(latent).mean(dim=(1, 2, 3))).tolist()
content = Path("params.yaml").read_text()
Path("params.yaml").write_text(content.replace("type: patch", "type: pach"))
try:
    load_params("params.yaml")
except ConfigError as error:
    assert "generator.type: 'pach' is unknown; did you mean patch?" in str(error), error
"""


def test_a_new_kind_is_one_class_and_one_line(tmp_path):
    content = tiny.params()
    bright = {"type": "bright", "weight": 2.0, "judged_by": "world-pose"}
    content["generator"] = {"type": "patch", "model": "world-generator", "side": 4}
    content["control"]["energies"] = {
        "bright": bright,
        "either": {"type": "any_of", "weight": 1.0, "energies": {"bright": bright}},
    }
    content["models"] = ["world-generator", "world-pose"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    (tmp_path / "kinds.py").write_text(KINDS)
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n{SCRIPT}"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_energy_that_cannot_be_planned_cannot_be_used():
    class Silent(EnergyBase):
        type: Literal["silent"]

        def build(self, models, condition):
            return None

    with pytest.raises(TypeError, match="views"):
        Silent(type="silent", weight=1.0)


def test_a_line_that_leads_nowhere_is_refused():
    with pytest.raises(ConfigError, match=r"the registry names promptgen\.config\.energies:Clip, which cannot be"):
        union(["promptgen.config.energies:Clip"])
    with pytest.raises(ConfigError, match=r"the test names promptgen\.nowhere:x, which cannot be imported: No module"):
        import_object("promptgen.nowhere:x", "the test")
