"""Several prompts in params.yaml, and target shares within each of them, or within each drawn class."""

import pytest
import yaml

from promptgen.config.generators import generator_spec
from promptgen.config.params import Params, load_params
from promptgen.errors import ConfigError
from promptgen.experiments.plan import plan_of
from promptgen.experiments.plan_text import plan_text
from promptgen.generators.classes import class_shares, drawn_classes
from promptgen.model_files.cards import find_card
from promptgen.strict import validate
from tests import tiny

PROMPTS = {"a nurse": 0.25, "a builder": 0.75}


def content(**debias):
    """The content of a params.yaml whose generator draws two prompts."""
    wanted = tiny.params()
    wanted["generator"]["prompts"] = PROMPTS
    wanted["debias"] |= debias
    return wanted


def test_within_stands_for_the_product(tmp_path):
    path = tiny.write_params(tmp_path, content(within="prompt", target={"short": 0.4, "long": 0.6}))
    debias = load_params(path).debias
    assert debias.attribute == "prompt x hair"
    assert debias.shares == pytest.approx(
        {"a builder x short": 0.3, "a builder x long": 0.45, "a nurse x short": 0.1, "a nurse x long": 0.15}
    )
    product = content(attribute=debias.attribute, target=debias.shares)
    assert validate(Params, product).debias == debias


def test_params_that_were_read_are_read_again_as_they_are():
    read = validate(Params, content(within="prompt"))
    assert validate(Params, read.model_dump(mode="json")) == read


def test_within_takes_the_other_notations_of_a_target(tmp_path):
    path = tiny.write_params(tmp_path, content(within="prompt", target="{1::short|3::long}"))
    assert load_params(path).debias.shares["a nurse x long"] == pytest.approx(0.25 * 0.75)


def test_a_product_can_be_wanted_within_each_prompt():
    wanted = {"short x without": 0.25, "short x with": 0.25, "long x without": 0.25, "long x with": 0.25}
    debias = validate(Params, content(within="prompt", attribute="hair x makeup", target=wanted)).debias
    assert debias.attribute == "prompt x hair x makeup"
    assert debias.shares["a builder x long x with"] == pytest.approx(0.75 / 4)


def test_classes_are_drawn_as_prompts_are(tmp_path):
    wanted = content(within="class")
    keys = {"type": "r3gan", "model": "r3gan-cifar10-32", "weights": "random"}
    wanted["generator"] = {**keys, "classes": {3: 0.75, 0: 0.25}}
    assert list(validate(Params, wanted).debias.shares.items())[-1] == ("3 x long", pytest.approx(0.375))

    uniform = generator_spec({**keys, "classes": "uniform"})
    assert uniform.drawn(tmp_path).shares == {str(number): 0.1 for number in range(10)}
    assert uniform.shape(find_card(uniform.model)).held == 1
    for classes in (3, {3: 1.0}):
        assert generator_spec({**keys, "classes": classes}).drawn(tmp_path) is None
    assert drawn_classes(class_shares("uniform", 1, "a network")) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"type": "custom", "factory": "tests.tiny:TinyGenerator"},
        {"type": "diffusers", "model": "./turbo", "prompt": "a cat"},
    ],
)
def test_a_section_without_prompts_is_written_as_ever(keys):
    """Else the evaluations of earlier versions would be made again."""
    assert "prompts" not in generator_spec(keys).model_dump()
    several = {key: value for key, value in keys.items() if key != "prompt"} | {"prompts": PROMPTS}
    assert generator_spec(several).model_dump()["prompts"] == PROMPTS


@pytest.mark.parametrize(
    ("prompts", "words"),
    [
        ({"a nurse": 0.5, "a builder": 0.6}, "shares must sum to 1, these sum to 1.1"),
        ({"a nurse": 1.0}, "write a single one as `prompt`"),
        ({"a nurse": 1.5, "a builder": -0.5}, "should be greater than 0"),
    ],
)
@pytest.mark.parametrize("kind", ["custom", "diffusers"])
def test_shares_of_prompts_that_cannot_be_are_told_in_one_line(kind, prompts, words):
    keys = {"custom": {"factory": "tests.tiny:TinyGenerator"}, "diffusers": {"model": "./turbo"}}[kind]
    with pytest.raises(ConfigError, match=words) as error:
        generator_spec({"type": kind, **keys, "prompts": prompts})
    assert str(error.value).startswith("generator.prompts")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"type": "diffusers", "model": "./turbo", "prompt": "a cat"}, "and only one of these"),
        ({"type": "diffusers", "model": "./turbo", "embeddings": "cat.safetensors"}, "and only one of these"),
        (
            {"type": "custom", "factory": "tests.tiny:TinyGenerator", "arguments": {"prompt": "a cat"}},
            "either `prompts` or 'prompt' among the arguments",
        ),
    ],
)
def test_prompts_go_with_nothing_else(keys, words):
    with pytest.raises(ConfigError, match=words) as error:
        generator_spec({**keys, "prompts": PROMPTS})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"debias": {"within": "class"}}, "the generator draws no class; give it shares, such as `classes: {0: 0.5"),
        ({"debias": {"within": "hair"}}, "debias.within"),
        ({"debias": {"within": "prompt", "target": {"images": "photos"}}}, "needs the share of each label"),
        ({"generator": {"prompts": None}, "debias": {"within": "prompt"}}, "the generator draws no prompt; give it"),
    ],
)
def test_a_target_within_nothing_is_told_in_one_line(tmp_path, change, words):
    wanted = content()
    for section, values in change.items():
        wanted[section] |= values
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(wanted))
    with pytest.raises(ConfigError, match=words) as error:
        load_params(tmp_path / "params.yaml")
    assert "\n" not in str(error.value)


def test_the_plan_tells_the_prompts(tmp_path):
    plan = plan_of(validate(Params, content(within="prompt")), tmp_path / "models")
    text = plan_text(plan)
    assert "prompts a builder 0.75 a nurse 0.25" in text
    assert "de-bias prompt x hair" in text
