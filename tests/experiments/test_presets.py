"""The ready-made experiments: all there, with the published numbers, and clear when something is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from promptgen.config.build import build_classifier
from promptgen.config.models import CardModel, ClipLabelsModel, CustomModel, JointModel
from promptgen.errors import ConfigError
from promptgen.experiments.presets import DEFAULTS_NAME, find_preset, laid_over, read_presets
from promptgen.labels import class_index, classes, target_shares
from promptgen.model_files.cards import load_cards
from promptgen.perception.ages import EDGES, age_labels
from promptgen.perception.faceapi import EXPRESSIONS
from promptgen.perception.faceapi import GENDERS as PERCEIVED_GENDERS
from promptgen.perception.fairface import ATTRIBUTES as FAIRFACE
from promptgen.world.scene import ATTRIBUTES as WORLD

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments"
PRESETS = read_presets(FOLDER)
CARDS = load_cards()

FFHQ, METFACES, LANDSCAPE = "stylegan2-ffhq-1024", "stylegan2-metfaces-1024", "stylegan2-landscape-256"
FFHQ_ADA = "stylegan2-ada-ffhq-1024"
BIGGAN, DIFFAE, STYLENERF = "biggan-deep-512", "diffae-ffhq-256", "stylenerf-ffhq-1024"

TEXTS = {
    # name: (generator, truncation, text, weight, steps, batch)
    "text-baby": (FFHQ, 0.7, "a photo of a baby", 600, 1280, 8),
    "text-boy": (FFHQ, 0.7, "a photo of a boy", 600, 1280, 8),
    "text-girl": (FFHQ, 0.7, "a photo of a girl", 600, 1280, 8),
    "text-asian-man": (FFHQ, 0.7, "a photo of an asian man", 800, 1280, 8),
    "text-baby-ada": (FFHQ_ADA, 0.7, "a photo of a baby", 600, 1280, 8),
    "text-boy-ada": (FFHQ_ADA, 0.7, "a photo of a boy", 600, 1280, 8),
    "text-girl-ada": (FFHQ_ADA, 0.7, "a photo of a girl", 600, 1280, 8),
    "text-asian-man-ada": (FFHQ_ADA, 0.7, "a photo of an asian man", 800, 1280, 8),
    "text-baby-diffae": (DIFFAE, None, "a photo of a baby", 500, 1280, 8),
    "text-baby-stylenerf": (STYLENERF, 0.7, "a photo of a baby", 600, 1280, 8),
    "text-autumn": (LANDSCAPE, 0.7, "autumn scene", 500, 1280, 8),
    "text-winter": (LANDSCAPE, 0.7, "winter scene", 500, 1280, 8),
    "text-dog-biggan": (BIGGAN, 0.4, "a photo of a glow and light dog", 5000, 3840, 4),
    "text-church-biggan": (BIGGAN, 0.4, "an ink wash of a church near forest under moonlight", 2000, 3840, 4),
    "text-robot-biggan": (BIGGAN, 0.4, "a painting of a melancholy robot", 10000, 3840, 4),
    "reporting-bias-makeup": (FFHQ, 0.7, "a photo of a person without makeup", 1000, 5120, 2),
}

GENDERS = {"female": ("gender", "Female"), "male": ("gender", "Male")}
GLASSES = {"glasses": ("glasses", "with"), "no-glasses": ("glasses", "without")}
AGES = {"young": ("age", "young"), "old": ("age", "old")}
HAIR = {"blond": ("hair", "blond"), "not-blond": ("hair", "other")}
COMBINATIONS = [
    *([gender] for gender in GENDERS),
    *([gender, other] for gender in GENDERS for other in (*GLASSES, *AGES)),
    *([glasses, age] for glasses in GLASSES for age in AGES),
]
CLASSES = {  # name: (wanted labels, weight), all of FFHQ, 1280 x 8
    **{
        f"class-{'-'.join(words)}": ([(GENDERS | GLASSES | AGES)[word] for word in words], 100)
        for words in COMBINATIONS
    },
    "class-male-young": ([GENDERS["male"], AGES["young"]], 150),
    "class-glasses": ([GLASSES["glasses"]], 300),
    "class-no-glasses": ([GLASSES["no-glasses"]], 150),
    "class-blond": ([HAIR["blond"]], 300),
    "class-not-blond": ([HAIR["not-blond"]], 100),
}
BETAS = {
    f"beta-{attribute}-{name}": (generator, attribute)
    for name, generator in (("ffhq", FFHQ), ("metfaces", METFACES))
    for attribute in ("race", "gender", "age")
}
DEBIASED = {  # name: (generator, attribute, lambda), all 2000 x 256
    f"debias-{attribute}{suffix}-{weight}": (generator, attribute, weight)
    for generator, suffix, attributes in (
        (FFHQ, "", ("race", "age")),
        (FFHQ_ADA, "-ffhq-ada", ("race", "age")),
        (METFACES, "-metfaces", ("race", "age", "gender")),
    )
    for attribute in attributes
    for weight in (1, 2)
}

PUBLISHED = {*TEXTS, *CLASSES, *BETAS, *DEBIASED, "pose"}

each_preset = pytest.mark.parametrize("name", PRESETS)


def test_all_published_experiments_are_there():
    assert set(PRESETS) >= PUBLISHED
    assert len(CLASSES) == 18


@each_preset
def test_every_preset_is_an_experiment(name):
    params = PRESETS[name].params()
    assert params.experiment == name
    assert set(params.cards) == set(params.models) <= set(CARDS)
    assert "\n" not in PRESETS[name].about


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_flow_and_evaluation_are_the_published_ones(name):
    params = PRESETS[name].params()
    assert (params.flow.blocks, params.flow.hidden, params.flow.log_scale_bound) == (8, 256, 2)
    assert params.evaluation.samples == 4096


@each_preset
def test_every_label_is_known_to_who_reads_it(name):
    params = PRESETS[name].params()
    for spec in (params.debias.classifier, params.debias.judge):
        drawn = params.generator.drawn(Path("models"))
        known = attributes_of(spec) | ({drawn.name: drawn.labels} if drawn else {})
        target_shares(classes(known, params.debias.attribute), params.debias.target)
    for attribute, label in (params.control.measure if params.control else {}).items():
        class_index(attributes_of(params.debias.classifier), attribute, label)


def attributes_of(spec) -> dict[str, tuple[str, ...]]:
    """Return the labels that a classifier reads, by its card alone if it has one."""
    if isinstance(spec, ClipLabelsModel):
        return {name: tuple(texts) for name, texts in spec.attributes.items()}
    if isinstance(spec, JointModel):
        return {name: labels for part in spec.classifiers for name, labels in attributes_of(part).items()}
    if isinstance(spec, CustomModel):
        return dict(build_classifier(spec, Path("models")).attributes)
    assert isinstance(spec, CardModel)
    card = CARDS[spec.model]
    gender_and_age = {"gender": PERCEIVED_GENDERS, "age": age_labels(EDGES)}
    known = {
        "fairface": dict(FAIRFACE),
        "world-network": dict(WORLD),
        "faceapi_expression": {"expression": EXPRESSIONS},
        "human_emotion": {"expression": EXPRESSIONS},
        "faceapi_age_gender": gender_and_age,
        "human_faceres": gender_and_age,
    }
    if card.type in known:
        return known[card.type]
    return {card.arguments["attribute"]: tuple(card.arguments["labels"])}


@pytest.mark.parametrize("name", TEXTS)
def test_texts_are_the_published_ones(name):
    generator, truncation, text, weight, steps, batch = TEXTS[name]
    params = PRESETS[name].params()
    (energy,) = params.control.energies.values()
    assert (params.generator.model, getattr(params.generator, "truncation", None)) == (generator, truncation)
    assert (energy.text, energy.weight, energy.models) == (text, weight, {"clip-vit-b-32": 1.0})
    assert energy.augmentations == 50
    assert_trained(params.control.training, steps, batch)
    assert params.flow.parts == ((128, 128) if generator == BIGGAN else None)


@pytest.mark.parametrize("name", TEXTS)
def test_no_clip_judges_itself(name):
    params = PRESETS[name].params()
    controls = {"clip-vit-b-32"}
    readers = [spec.cards() for spec in (params.debias.classifier, params.debias.judge)]
    assert readers[0] != readers[1]
    assert not controls & {name for names in readers for name in names}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_the_published_ones(name):
    wanted, weight = CLASSES[name]
    params = PRESETS[name].params()
    assert (params.generator.model, params.generator.truncation) == (FFHQ, 0.7)
    assert [dict(energy.labels) for energy in params.control.energies.values()] == [dict([each]) for each in wanted]
    for energy in params.control.energies.values():
        (attribute,) = energy.labels
        assert energy.weight == weight
        assert energy.classifier.model == f"celeba-{attribute}"
        class_index(attributes_of(energy.classifier), attribute, energy.labels[attribute])
    assert params.control.measure == dict(wanted)
    assert params.debias.attribute == " x ".join(attribute for attribute, _ in wanted)
    steering = [energy.classifier.model for energy in params.control.energies.values()]
    assert params.debias.classifier.cards() == steering
    assert not set(params.debias.judge.cards()) & set(steering)
    assert_trained(params.control.training, 1280, 8)


@pytest.mark.parametrize("name", BETAS)
def test_multipliers_are_fitted_without_a_flow(name):
    generator, attribute = BETAS[name]
    params = PRESETS[name].params()
    assert (params.generator.model, params.generator.truncation) == (generator, 0.7)
    assert params.control is None
    assert params.only_fits
    assert_uniform(params.debias, attribute)


@pytest.mark.parametrize("name", DEBIASED)
def test_debiasing_is_the_published_one(name):
    generator, attribute, weight = DEBIASED[name]
    params = PRESETS[name].params()
    assert (params.generator.model, params.generator.truncation) == (generator, 0.7)
    assert params.control is None
    assert (params.debias.weight, params.debias.dual, params.debias.max_passes) == (weight, None, 1)
    assert_uniform(params.debias, attribute)
    assert_trained(params.debias.training, 2000, 256)


def test_the_diffusion_takes_few_steps_in_training_alone():
    generator = PRESETS["text-baby-diffae"].params().generator
    assert (generator.latent_steps, generator.image_steps) == (5, 5)
    assert (generator.sampling_latent_steps, generator.sampling_image_steps) == (100, 100)


def test_reporting_bias_has_both_passes():
    debias = PRESETS["reporting-bias-makeup"].params().debias
    assert (debias.weight, debias.dual, debias.max_passes) == (2, None, 1)
    assert_uniform(debias, "gender")
    assert_trained(debias.training, 2000, 256)


def test_pose_is_the_published_one():
    params = PRESETS["pose"].params()
    energies = params.control.energies
    assert (params.generator.model, params.generator.truncation) == (FFHQ, 0.7)
    assert {name: energy.weight for name, energy in energies.items()} == {"pose": 200, "identity": 10}
    assert energies["pose"].canonical == (0.3, 0, 0)
    assert {name: pytest.approx(ends) for name, ends in params.condition.ranges.items()} == {
        "pitch": (-0.349066, 0.349066),
        "yaw": (-0.349066, 0.349066),
    }
    assert_trained(params.control.training, 2560, 4)


def assert_trained(training, steps, batch):
    assert (training.steps, training.batch) == (steps, batch)
    assert (training.learning_rate, training.clip) == (1e-3, 1.0)


def assert_uniform(debias, attribute):
    labels = FAIRFACE[attribute]
    assert (debias.attribute, debias.features) == (attribute, "soft")
    assert list(debias.target) == list(labels)
    assert list(debias.target.values()) == pytest.approx([1 / len(labels)] * len(labels), abs=1e-6)


def test_laying_over_merges_sections_and_replaces_choices():
    below = {
        "a": {"x": 1, "y": 2},
        "list": [1, 2],
        "generator": {"type": "stylegan2", "model": "m", "truncation": 0.7},
        "control": {"energies": {"text": {"weight": 1}}, "training": {"steps": 1}},
        "target": {"short": 0.5, "long": 0.5},
    }
    above = {
        "a": {"y": 3},
        "list": [3],
        "generator": {"type": "biggan", "model": "n"},
        "control": {"energies": {"other": {"weight": 2}}},
        "target": {"Male": 1},
    }
    assert laid_over(below, above) == {
        "a": {"x": 1, "y": 3},
        "list": [3],
        "generator": {"type": "biggan", "model": "n"},
        "control": {"energies": {"other": {"weight": 2}}, "training": {"steps": 1}},
        "target": {"Male": 1},
    }
    assert laid_over(below, {"generator": {"truncation": 0.5}})["generator"]["type"] == "stylegan2"
    assert laid_over(below, {"control": None})["control"] is None
    on_policy = {"training": {"method": "on_policy", "steps": 200}}
    assert laid_over(on_policy, {"training": {"steps": 5}})["training"] == {"method": "on_policy", "steps": 5}
    assert laid_over(on_policy, {"training": {"method": "reuse"}})["training"] == {"method": "reuse"}
    assert below["a"] == {"x": 1, "y": 2}


def test_an_unknown_name_is_told_its_neighbours():
    with pytest.raises(ConfigError, match="there is no experiment called 'text-babe'; did you mean text-baby"):
        find_preset("text-babe", FOLDER)


@pytest.mark.parametrize(
    ("family", "message"),
    [
        ("experiments: {}", r"mine.yaml: experiments: "),
        ("- 1", r"mine.yaml: expected keys and values, got list"),
        ("experimnts: {a: {about: b}}", r"mine.yaml: experimnts is unknown; did you mean experiments\?"),
        ("experiments: {a: {control: null}}", r"mine.yaml: a: about is missing"),
        ("experiments: {A b: {about: c}}", r"mine.yaml: experiments.A b"),
        ("experiments: {text-baby: {about: c}}", r"text.yaml: text-baby is in .*mine.yaml, too; rename one"),
        ("experiments: {a: {about: b}\n", r"mine.yaml is not YAML"),
    ],
)
def test_what_is_no_family_is_refused(tmp_path, family, message):
    for name in (DEFAULTS_NAME, "text.yaml"):
        (tmp_path / name).write_text((FOLDER / name).read_text())
    (tmp_path / "mine.yaml").write_text(family)
    with pytest.raises(ConfigError, match=message) as caught:
        read_presets(tmp_path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).count("mine.yaml") == 1


def test_a_wrong_key_is_told_with_file_and_experiment(tmp_path):
    (tmp_path / DEFAULTS_NAME).write_text((FOLDER / DEFAULTS_NAME).read_text())
    family = yaml.safe_load((FOLDER / "text.yaml").read_text())
    family["experiments"] = {"mine": family["experiments"]["text-baby"] | {"debias": {"max_pases": 3}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(family))
    with pytest.raises(ConfigError, match=r"mine.yaml: mine: debias.max_pases is unknown; did you mean max_passes\?"):
        find_preset("mine", tmp_path).params()


def test_without_a_folder_the_way_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no folder .* here; run this in the project's folder"):
        read_presets(tmp_path / "experiments")
