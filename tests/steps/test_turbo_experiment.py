"""The ready-made experiment on a text-to-image pipeline, with a tiny pipeline in the place of the published one."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch

from promptgen.config.generators import generator_spec
from promptgen.errors import ModelFileError
from promptgen.experiments.plan import plan_of
from promptgen.experiments.presets import find_preset
from promptgen.flows.latent_sampler import load_sampler
from promptgen.seeding import stream
from promptgen.tracking import NullTracker
from steps import check, confirm
from steps.measuring.records import pass_record
from steps.shared.common import Pass
from tests.steps.projects import project_in, run_pass

pytest.importorskip("diffusers")

from tests.generators import tiny_pipelines

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers and transformers warn of their own deprecations

FOLDER = Path(__file__).parents[2] / "experiments"


class Corner:
    """Calls an image female where its upper left corner is redder than a threshold."""

    attributes: ClassVar = {"gender": ("female", "male"), "age": ("young", "old")}

    def __init__(self, threshold, spread):
        self.threshold, self.spread = threshold, spread

    def __call__(self, image):
        score = 6 * (redness(image) - self.threshold) / self.spread
        both = torch.stack([score, torch.zeros_like(score)], dim=1)
        return {"gender": both, "age": both.flip(1)}


def redness(image):
    return image[:, 0, :8, :8].mean(dim=(1, 2))


def content(**corner):
    """Return params.yaml of the experiment, with small images, few of them, and classifiers that take no download."""
    params = find_preset("turbo-nurse", FOLDER).content() | {"models": []}
    params["generator"] |= {"height": 16, "width": 16}
    classifier = {"type": "custom", "factory": f"{__name__}:Corner", "arguments": corner}
    params["debias"] |= {"classifier": classifier, "judge": classifier, "samples": 256, "bootstrap": 50}
    params["debias"]["training"]["budget"]["images"] = 1024
    params["evaluation"] |= {"samples": 256, "batch": 64, "fit_samples": 128, "bootstrap": 100, "grid": 4}
    params["evaluation"] |= {"features": None}
    return params


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project's folder with a pipeline in it."""
    root = tmp_path_factory.mktemp("turbo")
    tiny_pipelines.build("sd-turbo", text=True).save_pretrained(root / "sd-turbo")
    return root


@pytest.mark.slow
@pytest.mark.usefixtures("fewer_steps")
def test_it_is_debiased_and_hands_out_latents(folder):
    generator = generator_spec(content()["generator"]).build(folder / "models")
    with torch.no_grad():
        plain = redness(generator(generator.prior.sample(512, stream(0, "plain"))))
    project = project_in(folder, content(threshold=float(plain.quantile(0.8)), spread=float(plain.std())))
    assert plan_of(project.params, project.models).shape.dim == 4 * 8 * 8
    check.run(project)
    for number in range(2):
        run_pass(project, number)
    confirm.run(Pass(project, 1), NullTracker())
    before, after = (pass_record(Pass(project, number)).by["judge"].shares["female"] for number in range(2))
    assert before.high < 0.3
    assert after.low < 0.5 < after.high
    chain = project.artifacts / "pass-1" / "train_flow" / "chain.safetensors"
    assert load_sampler(chain).latents(3, seed=1).shape == (3, 4, 8, 8)


def test_without_the_folder_the_check_says_what_is_missing(tmp_path):
    with pytest.raises(ModelFileError, match="sd-turbo is not a folder, expected the folder of a pipeline") as error:
        check.run(project_in(tmp_path, content(threshold=0.5, spread=1.0)))
    assert "\n" not in str(error.value)
