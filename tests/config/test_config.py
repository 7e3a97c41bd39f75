"""params.yaml: what is accepted, and in what words the rest is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from promptgen.config.energies import ClipTextSpec
from promptgen.config.models import CardModel
from promptgen.config.params import load_params
from promptgen.errors import ConfigError
from promptgen.strict import read_yaml
from tests import tiny

ROOT = Path(__file__).parents[2]


def change(content: dict, path: str, value: object) -> dict:
    """Set the key at a dotted path."""
    *sections, last = path.split(".")
    inner = content
    for section in sections:
        inner = inner[section]
    inner[last] = value
    return content


def refusal(tmp_path: Path, content: object) -> str:
    """Return the message about `content`, which must be one line and name the file."""
    path = tmp_path / "params.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False))
    with pytest.raises(ConfigError) as caught:
        load_params(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value).removeprefix(f"{path}: ")


def test_default_experiment_is_valid():
    params = load_params(ROOT / "params.yaml")
    assert params.generator.type == "world"
    assert params.control is not None
    assert isinstance(params.control.energies["text"], ClipTextSpec)
    assert params.debias.judge == CardModel(model="world-judge")


POSE = {"type": "pose", "weight": 1.0, "estimator": "world-pose"}
IDENTITY = {"type": "identity", "weight": 1.0, "embedder": "world-identity"}


def with_condition(condition: object, **energies: dict) -> dict:
    content = tiny.params()
    content["control"] |= {"condition": condition}
    content["control"]["energies"] |= energies
    return content


def test_a_condition_has_columns_in_alphabetical_order(tmp_path):
    for condition in ({"yaw": [-0.3, 0.3], "pitch": [-0.1, 0]}, {"pitch": [-0.1, 0], "yaw": [-0.3, 0.3]}):
        params = load_params(tiny.write_params(tmp_path, with_condition(condition, pose=POSE, identity=IDENTITY)))
        assert list(params.condition.ranges.items()) == [("pitch", (-0.1, 0.0)), ("yaw", (-0.3, 0.3))]
        assert params.control.condition_is_read
    assert not load_params(tiny.write_params(tmp_path)).condition


@pytest.mark.parametrize(
    ("condition", "energies", "message"),
    [
        ({"yaw": [0.3, -0.3]}, {}, "control.condition: the range of yaw must rise, got 0.3 to -0.3: give its lower"),
        ({"yaw": [0.1, 0.3]}, {}, "control.condition: the range of yaw must contain 0, the null condition"),
        ({"yaw": [0.3]}, {}, "control.condition.yaw"),
        ({}, {}, "control.condition"),
        (None, {"pose": POSE}, "the energy pose (pose) needs a condition, such as `condition: {yaw: [-0.3, 0.3]}`"),
        (None, {"face": IDENTITY}, "the energy face (identity) needs a condition"),
        (
            None,
            {"either": {"type": "any_of", "weight": 1.0, "energies": {"pose": POSE}}},
            "the energy either (pose) needs a condition",
        ),
        ({"light": [-1, 1]}, {"pose": POSE}, "the energy pose (pose) reads pitch, yaw, roll; condition names none"),
    ],
)
def test_conditions_that_make_no_sense_are_refused(tmp_path, condition, energies, message):
    assert message in refusal(tmp_path, with_condition(condition, **energies))


def test_parts_of_the_latent(tmp_path):
    content = change(tiny.params(), "flow.parts", [2, 2])
    assert load_params(tiny.write_params(tmp_path, content)).flow.parts == (2, 2)
    assert "flow.parts" in refusal(tmp_path, change(tiny.params(), "flow.parts", [4]))
    assert "flow.parts" in refusal(tmp_path, change(tiny.params(), "flow.parts", [1, 3]))


def test_parameters_are_frozen():
    params = load_params(ROOT / "params.yaml")
    with pytest.raises(ValueError, match="frozen"):
        params.seed = 2


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("debias.max_pases", 3, "debias.max_pases is unknown; did you mean max_passes?"),
        ("flow.depth", 3, "flow.depth is unknown; known are blocks, hidden, log_scale_bound, parts"),
        ("debias.training.stepz", 3, "debias.training.stepz is unknown; did you mean steps?"),
        ("debias.dual.rte", 3, "debias.dual.rte is unknown; did you mean rate?"),
        ("debias.judge.arguments", None, "debias.judge.arguments: should be an object, got null"),
        ("debias.judge.facory", "a:b", "debias.judge.facory is unknown; did you mean factory?"),
        ("control.energies.wish.wieght", 1.0, "control.energies.wish.wieght is unknown; did you mean weight?"),
        ("control.energies.wish.type", "cstom", "control.energies.wish.type: 'cstom' is unknown; did you mean custom?"),
        ("control.energies.wish.type", "music", "known are clip_text, classifier, moment, pose, identity,"),
        ("generator.type", "stylegan", "generator.type: 'stylegan' is unknown; did you mean stylegan3 or stylegan2"),
        ("generator.factory", "tests.tiny", "generator.factory: should match pattern"),
        ("seed", "1", 'seed: should be a valid integer, got "1"'),
        ("seed", 1.5, "seed: should be a valid integer"),
        ("seed", True, "seed: should be a valid integer, got true"),
        ("debias.max_passes", -1, "debias.max_passes: should be greater than or equal to 0, got -1"),
        ("debias.training.steps", 0, "debias.training.steps: should be greater than or equal to 1, got 0"),
        ("evaluation.samples", 3, "evaluation.samples: should be greater than or equal to 30, got 3"),
        ("evaluation.samples", 79, "evaluation: features need at least 80 samples, got samples: 79"),
        ("debias.samples", 3, "debias.samples: should be greater than or equal to 30, got 3"),
        ("debias.target", {"short": 0.5, "long": 0.6}, "debias.target: the shares must sum to 1, these sum to 1.1"),
        ("debias.target", {"short": 0.0, "long": 1.0}, "debias.target.short: should be greater than 0, got 0.0"),
        ("debias.target", {"long": 1.0}, "debias.target: Dictionary should have at least 2 items"),
        ("experiment", "../x", "experiment: should match pattern"),
        ("evaluation.confidence", float("inf"), "evaluation.confidence: should be a finite number"),
        ("debias.features", "medium", "debias.features: should be 'hard' or 'soft', got \"medium\""),
    ],
)
def test_wrong_values_are_refused_by_name(tmp_path, path, value, message):
    assert message in refusal(tmp_path, change(tiny.params(), path, value))


def test_missing_key_is_named(tmp_path):
    content = tiny.params()
    del content["debias"]["target"]
    assert refusal(tmp_path, content) == "debias.target is missing"


def test_all_mistakes_are_told_at_once(tmp_path):
    content = change(change(tiny.params(), "seed", "one"), "flow.block", 2)
    assert (
        refusal(tmp_path, content)
        == 'flow.block is unknown; did you mean blocks?; seed: should be a valid integer, got "one"'
    )


def test_energies_nest(tmp_path):
    wish = tiny.params()["control"]["energies"]["wish"]
    nested = {"type": "any_of", "weight": 1.0, "energies": {"a": wish, "b": wish}}
    inverse = {"type": "not", "weight": 2.0, "bound": 5.0, "energy": nested}
    content = change(tiny.params(), "control.energies.inverse", inverse)
    params = load_params(tiny.write_params(tmp_path, content))
    assert params.control.energies["inverse"].energy.energies["b"].function == "tests.tiny:wish"
    nested["energies"]["b"] = {**wish, "functon": "x:y"}
    message = "control.energies.inverse.energy.energies.b.functon is unknown; did you mean function?"
    assert message in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: 1\nseed: 2\n", "the key seed appears twice, line 2"),
        ("seed: [1\n", "is not YAML"),
        ("? [1]\n: 2\n", "a key must be a name"),
        ("- 1\n", "the file: should be an object, got [1]"),
        ("", "the file: should be an object, got null"),
    ],
)
def test_what_is_no_mapping_is_refused(tmp_path, text, message):
    assert message in refusal(tmp_path, text)


def test_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*params.yaml \(No such file or directory\)"):
        load_params(tmp_path / "params.yaml")


def test_yaml_is_read_as_dvc_reads_it(tmp_path):
    path = tmp_path / "some.yaml"
    path.write_text("a: 1e-3\nb: yes\nc: 007\nd: 12\ne: [1.5, ~, null, true, -3, .5, -1.0e+2]\nf: 2024-01-01\n1: x\n")
    assert read_yaml(path) == {
        "a": 0.001,
        "b": "yes",
        "c": "007",
        "d": 12,
        "e": [1.5, None, None, True, -3, 0.5, -100.0],
        "f": "2024-01-01",
        1: "x",
    }


def test_labels_that_look_like_numbers_stay_labels(tmp_path):
    content = change(tiny.params(), "debias.target", {1: 0.5, 2: 0.5})
    assert load_params(tiny.write_params(tmp_path, content)).debias.target == {"1": 0.5, "2": 0.5}


def test_passes_are_numbered_after_the_control(tmp_path):
    params = load_params(tiny.write_params(tmp_path))
    assert [params.kind_of(number) for number in range(params.last_pass + 1)] == [
        "generator",
        "control",
        "debias",
        "debias",
    ]
    with pytest.raises(ConfigError, match="pass 4 is not in this experiment, whose passes are 0 to 3"):
        params.kind_of(4)
    without = load_params(tiny.write_params(tmp_path, change(tiny.params(), "control", None)))
    assert [without.kind_of(number) for number in range(without.last_pass + 1)] == ["generator", "debias", "debias"]


def test_measuring_alone_has_no_debiasing_pass(tmp_path):
    assert load_params(tiny.write_params(tmp_path)).stops_by_count
    params = load_params(tiny.write_params(tmp_path, change(tiny.params(), "debias.max_passes", 0)))
    assert not params.stops_by_count
    assert (params.last_measured_pass, params.last_pass, params.only_fits) == (1, 1, False)
    with pytest.raises(ConfigError, match="whose passes are 0 to 1"):
        params.kind_of(2)
    alone = load_params(tiny.write_params(tmp_path, change(params_measuring(), "control", None)))
    assert (alone.last_measured_pass, alone.last_pass) == (0, 0)


def params_measuring() -> dict:
    return change(tiny.params(), "debias.max_passes", 0)


def test_fitting_alone_has_a_pass_that_is_not_measured(tmp_path):
    params = load_params(tiny.write_params(tmp_path, change(tiny.params(), "debias.training", None)))
    assert params.only_fits
    assert not params.stops_by_count
    assert (params.last_measured_pass, params.last_pass, params.kind_of(2)) == (1, 2, "debias")
    neither = load_params(tiny.write_params(tmp_path, change(params_measuring(), "debias.training", None)))
    assert (neither.last_measured_pass, neither.last_pass, neither.only_fits) == (1, 1, False)


def test_a_classifier_may_be_made_of_words(tmp_path):
    words = {"type": "clip_labels", "model": "world-clip", "attributes": {"hair": {"short": "short hair"}}}
    content = change(tiny.params(), "debias.judge", words)
    assert "debias.judge.attributes.hair: " in refusal(tmp_path, content)
    words["attributes"]["hair"]["long"] = "long hair"
    assert load_params(tiny.write_params(tmp_path, content)).debias.judge.attributes["hair"]["long"] == "long hair"
    assert "evaluation.identity.type: 'clip_labels' is unknown" in refusal(
        tmp_path, change(content, "evaluation.identity", words)
    )


REUSE = {"budget": {"images": 4096}}
ON_POLICY = tiny.params()["debias"]["training"]


def with_training(section: str, training: object, **values: object) -> dict:
    content = tiny.reuse_params()
    content[section] |= {"training": training, **values}
    return content


def test_training_reuses_evaluations_by_default(tmp_path):
    params = load_params(tiny.write_params(tmp_path, with_training("debias", {})))
    assert (params.debias.training.method, params.debias.training.budget.images) == ("reuse", 8192)
    assert [params.reuses(number) for number in (0, 1, 2)] == [False, True, True]
    params = load_params(tiny.write_params(tmp_path, with_training("debias", {"budget": {"minutes": 5}})))
    assert (params.debias.training.budget.images, params.debias.training.budget.minutes) == (None, 5.0)
    params = load_params(tiny.write_params(tmp_path, with_training("debias", ON_POLICY | {"method": "plain"})))
    assert params.debias.training.estimator == "plain"
    assert [params.reuses(number) for number in (0, 1, 2)] == [False, True, False]


@pytest.mark.parametrize(
    ("section", "training", "message"),
    [
        ("debias", {"method": "reus"}, "debias.training.method: 'reus' is unknown; did you mean reuse?"),
        ("debias", {"method": "reuse", "steps": 5}, "debias.training.steps is unknown; known are method, budget,"),
        ("debias", ON_POLICY | REUSE, "debias.training.budget is unknown"),
        ("control", ON_POLICY | {"estimator": "path"}, "control.training.estimator is unknown"),
        ("control", {"budget": {}}, "control.training.budget: give either images or minutes, such as"),
        ("control", {"budget": {"images": 4096, "minutes": 3}}, "control.training.budget: give either images or"),
        ("control", {"budget": {"images": 100}}, "control.training.budget.images: should be greater than or equal to"),
        ("control", {"budget": {"minutes": 0}}, "control.training.budget.minutes: should be greater than 0"),
        ("control", {"budget": 4096}, "control.training.budget: should be an object, got 4096"),
        ("control", {"ess": 1.0}, "control.training.ess: should be less than 1, got 1.0"),
        ("control", {"micro_batch": 0}, "control.training.micro_batch: should be greater than or equal to 1"),
        ("control", 5, "control.training: should be an object, got 5"),
    ],
)
def test_trainings_that_make_no_sense_are_refused(tmp_path, section, training, message):
    assert message in refusal(tmp_path, with_training(section, training))


def without_gradient(section: dict) -> dict:
    return section | {"gradient": "none"}


def test_what_only_the_other_method_can_do_is_refused_by_name(tmp_path):
    classifier = without_gradient(tiny.params()["debias"]["classifier"])
    for values, message in (
        ({"dual": {"rate": 0.5}}, "debias: dual belongs to the method on_policy"),
        ({"weight": 2.0}, "debias: a weight other than 1 needs the method on_policy or plain"),
    ):
        assert message in refusal(tmp_path, with_training("debias", REUSE, **values))
    load_params(tiny.write_params(tmp_path, with_training("debias", REUSE, classifier=classifier)))
    message = "debias: the classifier has no gradient, which the method on_policy needs: use reuse"
    assert message in refusal(tmp_path, with_training("debias", ON_POLICY, classifier=classifier))

    energies = {"wish": without_gradient(tiny.params()["control"]["energies"]["wish"])}
    load_params(tiny.write_params(tmp_path, with_training("control", REUSE, energies=energies)))
    message = "control: the energy wish has no gradient: use the method reuse"
    assert message in refusal(tmp_path, with_training("control", ON_POLICY, energies=energies))

    pose = {"energies": {"face": IDENTITY}, "condition": {"yaw": [-0.3, 0.3]}}
    load_params(tiny.write_params(tmp_path, with_training("control", ON_POLICY, **pose)))
    message = "control: the energy face compares two images, but the method reuse records each one by itself"
    assert message in refusal(tmp_path, with_training("control", REUSE, **pose))
