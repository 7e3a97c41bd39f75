"""From what params.yaml names to the things themselves. Nothing is imported before it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from promptgen.config.specs import (
    SAMPLING_FIELDS,
    AnyOfSpec,
    CardModel,
    ClassifierSpec,
    ClipLabelsModel,
    ClipTextSpec,
    CustomEnergySpec,
    CustomModel,
    DiffAESpec,
    EnergySpec,
    GeneratorSpec,
    IdentitySpec,
    JointModel,
    ModelSpec,
    MomentSpec,
    NotSpec,
    PoseSpec,
    PublishedGenerator,
    ReaderSpec,
    Spec,
    WorldSpec,
)
from promptgen.energies.base import Energy, Term, WeightedSum
from promptgen.errors import ConfigError
from promptgen.files import fingerprint, sha256_of
from promptgen.generators.base import Generator
from promptgen.model_files.cards import Card, find_card
from promptgen.model_files.store import digests, resolve
from promptgen.perception.base import Classifier, Embedder
from promptgen.strict import Section, validate

MODELS: Mapping[str, str] = {
    "stylegan2": "promptgen.generators.stylegan2:load_stylegan2",
    "biggan": "promptgen.generators.biggan:load_biggan",
    "nvae": "promptgen.generators.nvae:load_nvae",
    "diffae": "promptgen.generators.diffae:load_diffae",
    "stylenerf": "promptgen.generators.stylenerf:load_stylenerf",
    "open-clip": "promptgen.perception.clip:load_open_clip",
    "fairface": "promptgen.perception.fairface:load_fairface",
    "celeba": "promptgen.perception.celeba:load_celeba",
    "arcface": "promptgen.perception.arcface:load_arcface",
    "deca": "promptgen.perception.deca:load_deca",
    "inception": "promptgen.perception.inception:load_inception",
    "beta": "promptgen.perception.beta:load_beta",
    "world-generator": "promptgen.world.generator:load_generator",
    "world-network": "promptgen.world.networks:load_network",
}
"""What builds a model, by the `type` of its card: called with the paths of its files and the card's arguments."""

RANDOM: Mapping[str, str] = {
    "stylegan2": "promptgen.generators.stylegan2:random_stylegan2",
    "biggan": "promptgen.generators.biggan:random_biggan",
    "nvae": "promptgen.generators.nvae:random_nvae",
    "diffae": "promptgen.generators.diffae:random_diffae",
    "stylenerf": "promptgen.generators.stylenerf:random_stylenerf",
    "open-clip": "promptgen.perception.clip:random_open_clip",
    "fairface": "promptgen.perception.fairface:random_fairface",
    "celeba": "promptgen.perception.celeba:random_celeba",
    "arcface": "promptgen.perception.arcface:random_arcface",
    "deca": "promptgen.perception.deca:random_deca",
    "inception": "promptgen.perception.inception:random_inception",
}
"""What builds a network with random weights, by the `type` of its card: called with the card's arguments alone."""


def build_generator(spec: GeneratorSpec, models: Path, *, sampling: bool = False) -> Generator:
    """Return the frozen generator that `spec` names.

    Args:
        spec: the `generator` section of params.yaml.
        models: folder of the weight files.
        sampling: whether its images are to be measured, shown or handed out; a generator that refines images step by
            step can take more steps for that than in training.

    Raises:
        ConfigError: a name is unknown, or a custom factory returns something else.
        ModelFileError: a weight file is missing or damaged.
    """
    if isinstance(spec, CustomModel):
        return cast(Generator, _custom(spec, "a generator", ("prior", "image_shape")))
    if sampling and isinstance(spec, DiffAESpec):
        spec = spec.for_sampling()
    options = spec.model_dump(exclude={"type", "model", "weights", "arguments", *SAMPLING_FIELDS})
    if isinstance(spec, PublishedGenerator) and spec.weights == "random":
        return cast(Generator, random_model(spec.model, models, "generator", **{**spec.arguments, **options}))
    return cast(Generator, load_model(spec.model, models, "generator", **options))


def build_chain(checkpoint: Path, models: Path, *, sampling: bool = False) -> Generator:
    """Return what a chain's checkpoint describes, its flows on its generator; no control model is needed.

    Args:
        checkpoint: file of the chain.
        models: folder of the weight files.
        sampling: see `build_generator`.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ModelFileError: the generator's weight file is missing or damaged.
    """
    from promptgen.flows.chain_file import load_chain
    from promptgen.flows.chained import ChainedGenerator

    chain = load_chain(checkpoint)
    spec = validate(_HasGenerator, {"generator": chain.generator_spec}).generator
    generator = build_generator(spec, models, sampling=sampling)
    for flow in chain.flows:
        generator = ChainedGenerator(generator, flow)
    return generator


def build_classifier(spec: ReaderSpec, models: Path) -> Classifier:
    """Return the frozen classifier that `spec` names; errors as of `build_generator`."""
    if isinstance(spec, CustomModel):
        made: Classifier = _custom(spec, "a classifier", ("attributes",))
    elif isinstance(spec, ClipLabelsModel):
        from promptgen.perception.zero_shot import ZeroShotClassifier

        made = ZeroShotClassifier(load_model(spec.model, models, "clip"), spec.attributes)
    elif isinstance(spec, JointModel):
        from promptgen.perception.joint import JointClassifier

        made = JointClassifier([build_classifier(part, models) for part in spec.classifiers])
    else:
        made = load_model(spec.model, models, "classifier")
    return made


def build_embedder(spec: ModelSpec, models: Path) -> Embedder:
    """Return the frozen network that tells identities apart; errors as of `build_generator`."""
    if isinstance(spec, CustomModel):
        made: Embedder = _custom(spec, "an embedder")
    else:
        made = load_model(spec.model, models, "identity")
    return made


def build_features(spec: ModelSpec, models: Path) -> Callable[[Tensor], Tensor]:
    """Return the frozen network, images (B, 3, H, W) to features (B, D), that `spec` names.

    A card is one of kind ``features``, or of a classifier that shows what its logits are made from, such as
    ``world-judge``. Errors as of `build_generator`.

    Raises:
        ConfigError: it is a classifier that does not show its features.
    """
    if isinstance(spec, CustomModel):
        made: Callable[[Tensor], Tensor] = _custom(spec, "a feature network")
    elif find_card(spec.model, models).kind == "classifier":
        classifier = load_model(spec.model, models, "classifier")
        if not hasattr(classifier, "features"):
            raise ConfigError(f"{spec.model} does not show its features, expected a classifier such as world-judge")
        made = classifier.features
    else:
        made = load_model(spec.model, models, "features")
    return made


def build_pose_estimator(spec: ModelSpec, models: Path) -> Callable[[Tensor], Tensor]:
    """Return the frozen network that sees rotations, (B, 3, 3), which `spec` names; errors as of `build_generator`."""
    from promptgen.rotations import YawPitchRotation
    from promptgen.world.networks import PoseNet

    if isinstance(spec, CustomModel):
        made: Callable[[Tensor], Tensor] = _custom(spec, "a pose estimator")
    else:
        made = load_model(spec.model, models, "pose")
    return nn.Sequential(made, YawPitchRotation()) if isinstance(made, PoseNet) else made


def build_energies(
    specs: Mapping[str, EnergySpec], models: Path, condition: Sequence[str] = ("pitch", "yaw")
) -> WeightedSum:
    """Return the weighted sum of the energies that `specs` name; arguments and errors as of `build_energy`."""
    return WeightedSum({name: Term(build_energy(spec, models, condition), spec.weight) for name, spec in specs.items()})


def build_energy(spec: EnergySpec, models: Path, condition: Sequence[str] = ("pitch", "yaw")) -> Energy:
    """Return one energy, without its weight; errors as of `build_generator`.

    Args:
        spec: what it is.
        models: folder of the weight files.
        condition: names of the condition's columns, for an energy that reads them.
    """
    match spec:
        case ClipTextSpec():
            from promptgen.energies.clip import ClipText

            clips = {name: (load_model(name, models, "clip"), weight) for name, weight in spec.models.items()}
            return ClipText(clips, spec.text, augmentations=spec.augmentations, resize_first=spec.resize_first)
        case ClassifierSpec():
            from promptgen.energies.classifier import ClassifierEnergy

            return ClassifierEnergy(build_classifier(spec.classifier, models), spec.labels, spec.weights)
        case MomentSpec():
            from promptgen.energies.moment import MomentEnergy

            classifier = build_classifier(spec.classifier, models)
            known = {"attributes": classifier.attributes, "chosen": spec.attributes}
            return MomentEnergy(classifier, spec.attributes, load_model(spec.beta, models, "multipliers", **known))
        case PoseSpec():
            from promptgen.energies.pose import PoseEnergy

            return PoseEnergy(build_pose_estimator(spec.estimator, models), spec.canonical, condition)
        case IdentitySpec():
            from promptgen.energies.identity import IdentityEnergy

            return IdentityEnergy(build_embedder(spec.embedder, models))
        case CustomEnergySpec():
            from promptgen.energies.custom import CustomEnergy

            return CustomEnergy(spec.function)
        case AnyOfSpec():
            from promptgen.energies.compose import AnyOf

            return AnyOf(build_energies(spec.energies, models, condition).terms)
        case NotSpec():
            from promptgen.energies.compose import Not

            return Not(build_energies({"not": spec.energy}, models, condition), spec.bound)


def load_model(name: str, models: Path, kind: str, **arguments: Any) -> Any:
    """Return the frozen model of the card `name`.

    Args:
        name: name of the card.
        models: folder of the weight files.
        kind: what it has to be, such as ``classifier``.
        arguments: keyword arguments beside those of the card.

    Raises:
        ConfigError: there is no such card, or it is of another kind.
        ModelFileError: the weight file is missing or damaged.
    """
    found = _card_of(name, models, kind)
    factory = import_object(MODELS[found.type], f"the card of {name}")
    return _frozen(factory(*resolve(name, models), **found.arguments, **arguments))


def random_model(name: str, models: Path, kind: str, **arguments: Any) -> Any:
    """Return the frozen network of the card `name` with random weights; it needs none of the card's files.

    Args:
        name: name of the card.
        models: folder of the weight files.
        kind: what it has to be, such as ``classifier``.
        arguments: keyword arguments that replace those of the card.

    Raises:
        ConfigError: there is no such card, it is of another kind, or nothing builds its network without its files.
    """
    found = _card_of(name, models, kind)
    if found.type not in RANDOM:
        raise ConfigError(f"{name} is a {found.type}, which has no random weights; expected {', '.join(RANDOM)}")
    factory = import_object(RANDOM[found.type], f"the card of {name}")
    return _frozen(factory(**{**found.arguments, **arguments}))


def import_object(path: str, wanted_by: str) -> Any:
    """Return what ``module:name`` stands for.

    Raises:
        ConfigError: the module cannot be imported, or has no such name.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{wanted_by} names {path}, which cannot be imported: {error}") from error


def identities(specs: Iterable[Spec], models: Path) -> dict[str, str]:
    """Return the sha256 of all that `specs` stand for: weights, arguments on their cards, and modules of custom code.

    With it a step tells whether what it was computed from is still the same.

    Raises:
        ConfigError: there is no such card or module.
        ModelFileError: a card without a sha256 names a file that has not been fetched.
    """
    found: dict[str, str] = {}
    for spec in specs:
        for name in cards_of(spec):
            found |= digests(name, models)
            if arguments := find_card(name, models).arguments:
                found[f"{name}/arguments"] = fingerprint(arguments, {}, version=1)
        for path in custom_code_of(spec):
            found[path] = _source_sha256(path)
    return found


def cards_of(spec: Spec) -> list[str]:
    """Return the names of the cards whose files `spec` needs."""
    match spec:
        case CardModel() | ClipLabelsModel() | WorldSpec():
            return [spec.model]
        case PublishedGenerator():
            return [spec.model] if spec.weights == "published" else []
        case ClipTextSpec():
            return list(spec.models)
        case MomentSpec():
            return [*cards_of(spec.classifier), spec.beta]
        case _:
            return [name for part in _parts(spec) for name in cards_of(part)]


def custom_code_of(spec: Spec) -> list[str]:
    """Return the dotted paths that `spec` names."""
    match spec:
        case CustomModel(factory=path) | CustomEnergySpec(function=path):
            return [path]
        case _:
            return [path for part in _parts(spec) for path in custom_code_of(part)]


def _parts(spec: Spec) -> list[Any]:
    """Return the specs inside `spec`."""
    match spec:
        case JointModel():
            return list(spec.classifiers)
        case ClassifierSpec() | MomentSpec():
            return [spec.classifier]
        case PoseSpec():
            return [spec.estimator]
        case IdentitySpec():
            return [spec.embedder]
        case AnyOfSpec():
            return list(spec.energies.values())
        case NotSpec():
            return [spec.energy]
        case _:
            return []


class _HasGenerator(Section):
    generator: GeneratorSpec


def _card_of(name: str, models: Path, kind: str) -> Card:
    found = find_card(name, models)
    if found.kind != kind:
        raise ConfigError(f"the model {name} is of kind {found.kind}, expected one of kind {kind}")
    return found


def _custom(spec: CustomModel, what: str, attributes: tuple[str, ...] = ()) -> Any:
    """Call a factory of the user's and check what it returns."""
    factory = import_object(spec.factory, "params.yaml")
    try:
        inspect.signature(factory).bind(**spec.arguments)
    except TypeError as error:
        raise ConfigError(f"{spec.factory} does not take the arguments {spec.arguments}: {error}") from error
    made = factory(**spec.arguments)
    missing = [name for name in attributes if not hasattr(made, name)]
    if missing or not callable(made):
        lack = f"has no {' and no '.join(missing)}" if missing else "cannot be called"
        raise ConfigError(f"{spec.factory} returned a {type(made).__name__} that {lack}; expected {what}")
    return _frozen(made)


def _frozen(model: Any) -> Any:
    """Switch a network to evaluation without weight gradients; anything else is left as it is."""
    return model.requires_grad_(False).eval() if isinstance(model, nn.Module) else model


def _source_sha256(path: str) -> str:
    """Return the sha256 of the file of the module in ``module:name``."""
    module = path.partition(":")[0]
    try:
        found = importlib.util.find_spec(module)
    except ImportError as error:
        raise ConfigError(f"params.yaml names {path}, which cannot be imported: {error}") from error
    if found is None or found.origin is None:
        raise ConfigError(f"params.yaml names {path}, but there is no module {module} on the Python path")
    return sha256_of(found.origin)
