"""The plan of an experiment: what it counts is what really happens, and what it does not know it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from promptgen.conditions import Condition
from promptgen.config.params import Params, load_params
from promptgen.experiments import plan as plan_module
from promptgen.experiments.plan import Images, plan_of, usage_of_pass
from promptgen.experiments.plan_text import plan_text
from promptgen.experiments.presets import find_preset, read_presets
from promptgen.flows.config import FlowConfig, TrainingConfig
from promptgen.flows.flow import Flow
from promptgen.model_files.addresses import shown
from promptgen.model_files.cards import Cost, find_card, load_cards
from promptgen.model_files.pins import Pin, record
from promptgen.moments.config import DualConfig
from promptgen.strict import validate
from promptgen.tracking import NullTracker
from steps import confirm, fit_moments, sample, train_flow
from steps.shared.common import Pass, Project
from tests import tiny
from tests.commands import typed

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments"
PRESETS = read_presets(FOLDER)

TRAINING = ("training", "choosing the best flow", "exploring", "refining", "landing", "judging the fit")
"""What a training makes images for."""

CONTENTS = {
    "plain": tiny.params(),
    "conditional": tiny.conditional_params(),
    "reuse": tiny.reuse_params(),
    "conditional reuse": tiny.reuse_params(tiny.conditional_params()),
    "reuse after on policy": {**tiny.params(), "debias": tiny.reuse_params()["debias"]},
}


def params_of(name: str) -> Params:
    return find_preset(name, FOLDER).params()


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_plan_without_any_file(name, tmp_path):
    plan = plan_of(PRESETS[name].params(), tmp_path / "models", PRESETS[name].about)
    text = plan_text(plan)
    assert text.startswith(f"{name}: {PRESETS[name].about}\n")
    # Only its code knows the shape of a custom one, and only the pipeline's folder that of another.
    assert (plan.shape is None) == (plan.params.generator.type in ("custom", "diffusers"))
    urls = [file.urls for model in plan.models for file in find_card(model.name).files if model.files]
    assert all(f"not fetched ({shown(addresses[0]) if addresses else 'no direct link'})" in text for addresses in urls)
    assert "not fetched" in text
    assert json.loads(json.dumps(plan.as_dict()))["experiment"] == name
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("name", "image_size", "latent"),
    [
        ("text-baby", 1024, {"z": 512}),
        ("text-autumn", 256, {"z": 512}),
        ("text-baby-diffae", 256, {"code": 512}),
        ("text-baby-stylenerf", 1024, {"z": 512}),
        ("text-dog-biggan", 512, {"z": 128, "class embedding": 128}),
    ],
)
def test_shapes_come_from_cards(name, image_size, latent):
    generator = params_of(name).generator
    shape = generator.shape(find_card(generator.model))
    assert (shape.image_size, dict(shape.latent)) == (image_size, latent)


def test_the_worlds_shape_is_that_of_its_shipped_file(tmp_path):
    plan = plan_of(load_params(ROOT / "params.yaml"), tmp_path)
    assert (plan.shape.image_size, plan.shape.dim) == (64, 64)


@pytest.mark.parametrize(
    ("dim", "fields", "names", "held"),
    [
        (8, {}, (), 0),
        (9, {"blocks": 3, "hidden": 5}, ("pitch", "yaw"), 0),
        (10, {"parts": [4, 6], "hidden": 7}, (), 0),
        (9, {"blocks": 3, "hidden": 5}, ("pitch", "yaw"), 1),
        (11, {"parts": [4, 6], "hidden": 7}, (), 1),
    ],
)
def test_flow_parameters_are_exact(dim, fields, names, held):
    config = validate(FlowConfig, fields)
    flow = Flow(dim, config, Condition(dict.fromkeys(names, (-1.0, 1.0))), held=held)
    assert config.parameters(dim, len(names), held) == sum(parameter.numel() for parameter in flow.parameters())


def test_images_of_a_text(tmp_path):
    """1280 x 8 samples, 50 copies of each; held-out samples at 0, 128, ... and at the end."""
    plan = plan_of(params_of("text-baby"), tmp_path)
    training = plan.passes[1].usage["training"]
    assert training == {
        "stylegan2-ffhq-1024": Images(10240, 10240),
        "clip-vit-b-32": Images(512000, 512000),
    }
    assert plan.passes[1].usage["choosing the best flow"]["stylegan2-ffhq-1024"] == Images(11 * 256)
    assert plan.passes[1].micro_batch == 2
    assert plan.images["fairface"] == Images(2 * 4096)


def test_an_anchor_doubles_the_generators_images_but_not_the_poses(tmp_path):
    training = plan_of(params_of("pose"), tmp_path, number=1).passes[0].usage["training"]
    assert training["stylegan2-ffhq-1024"] == Images(20480, 20480)
    assert training["arcface"] == Images(20480, 20480)
    assert training["deca"] == Images(10240, 10240)


def test_fitting_alone_trains_and_measures_nothing_more(tmp_path):
    plan = plan_of(params_of("beta-race-ffhq"), tmp_path)
    assert [planned.training for planned in plan.passes] == [None, None]
    assert list(plan.passes[1].usage) == ["multipliers"]
    assert plan.flow_parameters == {}
    assert "multipliers for race, without a flow" in plan_text(plan)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("content", CONTENTS.values(), ids=CONTENTS)
def test_counts_are_those_of_a_real_run(tmp_path, content):
    """Every step of the tiny world says how many images it really made."""
    content = content | {"debias": content["debias"] | {"max_passes": 1}}
    project = Project.load(tiny.write_params(tmp_path, content))
    generator = project.params.generator.name
    steps = {"multipliers": fit_moments, "training": train_flow, "measuring": sample, "confirming": confirm}
    for number in range(3):
        this = Pass(project, number)
        planned = usage_of_pass(project.params, number)
        made: dict[str, Images] = {}
        for purpose, images in planned.items():
            name = "training" if purpose in TRAINING else purpose
            made[name] = made.get(name, Images()) + images[generator]
        for name, images in made.items():
            counted = steps[name].run(this, NullTracker())["result"]["generator_evaluations"]
            assert counted == {"forward": images.forward, "backward": images.backward}, (number, name)
    assert "confirming" in made


@pytest.mark.parametrize(
    ("fields", "dual", "expected"),
    [
        ({"steps": 40, "validate_every": 20}, None, 3),
        ({"steps": 41, "validate_every": 20}, None, 4),
        ({"steps": 40, "validate_every": 20}, DualConfig(hold=0.2), 2),
        ({"steps": 40, "validate_every": 20}, DualConfig(hold=0.0), 1),
    ],
)
def test_held_out_samples_are_drawn_as_often_as_training_does(fields, dual, expected):
    training = TrainingConfig(batch=1, validation_samples=7, **fields)
    fixed_from = dual.phases(training.steps)[1] if dual else 0
    assert training.samples(0, fixed_from)["choosing the best flow"] == 7 * expected


COST = Cost(parameters=1, gmac=2.0, weights_mib=100.0, forward_mib=10.0, backward_mib=30.0)


def test_estimates_add_up_what_was_measured(tmp_path, monkeypatch):
    measured = {name: card.model_copy(update={"cost": COST}) for name, card in load_cards().items()}
    monkeypatch.setattr(plan_module, "find_card", lambda name, models: measured[name])
    plan = plan_of(params_of("text-baby"), tmp_path)
    control = plan.passes[1]
    flow = plan.flow_parameters["control"] * 16 / 2**20
    # Two samples at a time: weights of generator and CLIP, two images, and fifty copies of each.
    assert control.training_mib.value == pytest.approx(2 * 100 + 2 * 30 + 2 * 50 * 30 + flow)
    # Five networks in memory, one of which looks at eight images.
    assert control.measuring_mib.value == pytest.approx(5 * 100 + 8 * 10)
    images = plan.images.values()
    assert plan.giga_macs.value == pytest.approx(2.0 * sum(each.forward + each.backward for each in images))
    assert "memory, training a control pass, 2 at a time: about 3.2 GiB" in plan_text(plan)


def test_a_diffusion_costs_what_its_steps_cost(tmp_path, monkeypatch):
    """Measured with 5 steps for an image; the images that are counted on take 100."""
    measured = {name: card.model_copy(update={"cost": COST}) for name, card in load_cards().items()}
    monkeypatch.setattr(plan_module, "find_card", lambda name, models: measured[name])
    plan = plan_of(params_of("text-baby-diffae"), tmp_path, number=0)
    images = sum(each.forward for each in plan.images.values())
    assert plan.giga_macs.value == pytest.approx(2.0 * (images + 19 * 4128))


@pytest.mark.parametrize("change", [{"max_passes": 0}, {"training": None}])
def test_nothing_is_confirmed_where_no_count_ends_the_loop(tmp_path, change):
    content = tiny.params()
    params = load_params(tiny.write_params(tmp_path, content))
    confirming = [number for number in range(params.last_pass + 1) if "confirming" in usage_of_pass(params, number)]
    assert confirming == [params.last_pass]
    content["debias"] |= change
    params = load_params(tiny.write_params(tmp_path, content))
    assert not any("confirming" in usage_of_pass(params, number) for number in range(params.last_pass + 1))


def test_what_is_not_measured_is_said(tmp_path, monkeypatch):
    costs = {"fairface": COST}
    cards = {name: card.model_copy(update={"cost": costs.get(name)}) for name, card in load_cards().items()}
    monkeypatch.setattr(plan_module, "find_card", lambda name, models: cards[name])
    plan = plan_of(params_of("debias-race-1"), tmp_path)
    assert plan.passes[1].training_mib.unmeasured == ("stylegan2-ffhq-1024",)
    text = plan_text(plan)
    assert (
        "memory, training a debias pass, 4 at a time: at least 244 MiB; the cost of stylegan2-ffhq-1024 is not" in text
    )
    costs.clear()
    cards["fairface"] = cards["fairface"].model_copy(update={"cost": None})
    assert "arithmetic: not known; the cost of " in plan_text(plan_of(params_of("debias-race-1"), tmp_path))


def test_what_an_earlier_fetch_recorded_is_told(tmp_path):
    models = tmp_path / "models"
    models.mkdir()
    record(models, "fairface/res34_fair_align_multi_7_20190809.pt", Pin(sha256="a" * 64, size=85_000_000, url=None))
    text = plan_text(plan_of(params_of("beta-race-ffhq"), models))
    assert f"85.0 MB, sha256 {'a' * 64} (from models.lock)" in text


def test_custom_models_have_a_plan_too(tmp_path):
    project = Project.load(tiny.write_params(tmp_path))
    text = plan_text(plan_of(project.params, project.models))
    assert "tests.tiny:TinyGenerator, image and latent known once it is built" in text
    assert "control: wish, weight 1" in text
    assert "de-bias hair (at the most)" in text


@pytest.fixture
def here(monkeypatch):
    """The project's folder as the current one."""
    monkeypatch.chdir(ROOT)


@pytest.mark.usefixtures("here")
def test_the_command_lists_one_preset_a_line(capsys):
    assert typed("experiments", "list") == 0
    names, abouts = zip(*(line.split("  ", 1) for line in capsys.readouterr().out.splitlines()), strict=True)
    assert list(names) == list(PRESETS)
    assert [about.strip() for about in abouts] == [preset.about for preset in PRESETS.values()]


@pytest.mark.usefixtures("here")
def test_the_command_plans_by_name(capsys):
    assert typed("experiments", "plan", "text-baby") == 0
    assert capsys.readouterr().out.startswith("text-baby: ")
    assert typed("experiments", "plan", "text-baby", "--pass", "1", "--json") == 0
    assert [each["number"] for each in json.loads(capsys.readouterr().out)["passes"]] == [1]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text-babe"], "there is no experiment called 'text-babe'; did you mean text-ba"),
        (["text-baby", "--params", "x.yaml"], "not allowed with argument"),
        (["text-baby", "--pass", "7"], "pass 7 is not in this experiment"),
    ],
)
def test_the_command_refuses_in_a_line(capsys, arguments, message):
    assert typed("experiments", "plan", *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
