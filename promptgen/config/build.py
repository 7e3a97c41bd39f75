"""Build frozen models from cards, factories and sections of params.yaml; each one's code is imported only then."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ConfigDict, TypeAdapter, ValidationError

from promptgen.config.registry import import_object
from promptgen.errors import ConfigError, ModelFileError, first_line
from promptgen.files import fingerprint, sha256_of
from promptgen.model_files.cards import Card, find_card

if TYPE_CHECKING:
    from torch import Tensor

    from promptgen.config.energies import EnergySpec
    from promptgen.config.models import ModelSpec, ReaderSpec
    from promptgen.config.spec import Spec
    from promptgen.energies.base import WeightedSum
    from promptgen.generators.base import Generator
    from promptgen.perception.base import Classifier, Embedder


class Factory(NamedTuple):
    """What builds the networks of cards of one `type`.

    Attributes:
        module: where its functions are.
        load: called with the paths of the card's files and with the card's arguments.
        random: called with the card's arguments alone, for random weights; None where there are none.
    """

    module: str
    load: str
    random: str | None = None


FACTORIES: Mapping[str, Factory] = {
    "stylegan2": Factory("promptgen.generators.stylegan2.generator", "load_stylegan2", "random_stylegan2"),
    "stylegan3": Factory("promptgen.generators.stylegan3.generator", "load_stylegan3", "random_stylegan3"),
    "r3gan": Factory("promptgen.generators.r3gan.generator", "load_r3gan", "random_r3gan"),
    "biggan": Factory("promptgen.generators.biggan.generator", "load_biggan", "random_biggan"),
    "nvae": Factory("promptgen.generators.nvae.generator", "load_nvae", "random_nvae"),
    "diffae": Factory("promptgen.generators.diffae.generator", "load_diffae", "random_diffae"),
    "stylenerf": Factory("promptgen.generators.stylenerf.generator", "load_stylenerf", "random_stylenerf"),
    "dcgan": Factory("promptgen.generators.dcgan", "load_dcgan", "random_dcgan"),
    "diffusers": Factory("promptgen.generators.pipeline.generator", "load_pipeline_files"),
    "open-clip": Factory("promptgen.perception.clip", "load_open_clip", "random_open_clip"),
    "fairface": Factory("promptgen.perception.fairface", "load_fairface", "FairFace"),
    "celeba": Factory("promptgen.perception.celeba", "load_celeba", "CelebaAttribute"),
    "faceapi_expression": Factory("promptgen.perception.faceapi", "load_expression", "FaceAPIExpression"),
    "faceapi_age_gender": Factory("promptgen.perception.faceapi", "load_age_gender", "FaceAPIAgeGender"),
    "human_faceres": Factory("promptgen.perception.human", "load_faceres"),
    "human_emotion": Factory("promptgen.perception.human", "load_emotion"),
    "arcface": Factory("promptgen.perception.arcface", "load_arcface", "random_arcface"),
    "deca": Factory("promptgen.perception.deca", "load_deca", "DecaPose"),
    "inception": Factory("promptgen.perception.inception", "load_inception", "InceptionFeatures"),
    "beta": Factory("promptgen.perception.beta", "load_beta"),
    "world-generator": Factory("promptgen.world.generator", "load_generator"),
    "world-network": Factory("promptgen.world.networks", "load_network"),
}
"""What builds a model, by the `type` of its card."""


@dataclass(frozen=True)
class Role:
    """What a model is for.

    Attributes:
        kind: the `kind` of the cards that fit.
        noun: what errors call it.
        attributes: what a model of the user's own must have.
    """

    kind: str
    noun: str
    attributes: tuple[str, ...] = ()


GENERATOR = Role("generator", "a generator", ("prior", "image_shape"))
CLASSIFIER = Role("classifier", "a classifier", ("attributes",))
EMBEDDER = Role("identity", "an embedder")
FEATURES = Role("features", "a feature network")
POSE = Role("pose", "a pose estimator")


def load_model(name: str, models: Path, kind: str, **arguments: Any) -> Any:
    """Return the frozen model of the card `name`.

    Args:
        name: name of the card.
        models: folder of the weight files.
        kind: the kind it has to be of, such as ``classifier``.
        arguments: keyword arguments beside those of the card.

    Raises:
        ConfigError: there is no such card, or it is of another kind.
        ModelFileError: the weight file is missing or damaged.
    """
    from promptgen.model_files.store import replacing, resolve

    card = _card_of(name, models, kind)
    factory = FACTORIES[card.type]
    load = import_object(f"{factory.module}:{factory.load}", f"the card of {name}")
    files = resolve(name, models)
    try:
        return _frozen(_call(load, name, *files, **{**card.arguments, **arguments}))
    except ModelFileError as error:
        if not (way_out := replacing(name, models)):
            raise
        raise ModelFileError(f"{error}; {way_out}") from error


def has_random(card: Card) -> bool:
    """Return whether the network of a card can be built with random weights, without the card's files."""
    return card.type in FACTORIES and FACTORIES[card.type].random is not None


def random_model(name: str, models: Path, kind: str, **arguments: Any) -> Any:
    """Return the frozen network of the card `name` with random weights; it needs none of the card's files.

    Args:
        name: name of the card.
        models: folder of the weight files, beside which the user's own cards are.
        kind: the kind it has to be of, such as ``classifier``.
        arguments: keyword arguments that replace those of the card.

    Raises:
        ConfigError: there is no such card, it is of another kind, or its type has no random weights.
    """
    card = _card_of(name, models, kind)
    factory = FACTORIES[card.type]
    if factory.random is None:
        types = ", ".join(name for name, other in FACTORIES.items() if other.random)
        raise ConfigError(f"{name} is a {card.type}, which has no random weights; expected {types}")
    make = import_object(f"{factory.module}:{factory.random}", f"the card of {name}")
    return _frozen(_call(make, name, **{**card.arguments, **arguments}))


def load_custom(path: str, arguments: Mapping[str, Any], role: Role) -> Any:
    """Return what a factory of the user's own returns, frozen.

    Args:
        path: ``module:callable`` of the factory.
        arguments: its keyword arguments.
        role: what the model is for.

    Raises:
        ConfigError: the factory cannot be imported or takes other arguments, or the model lacks what its role needs.
    """
    factory = import_object(path, "params.yaml")
    try:
        inspect.signature(factory).bind(**arguments)
    except TypeError as error:
        raise ConfigError(f"{path} does not take the arguments {arguments}: {error}") from error
    model = factory(**arguments)
    missing = [name for name in role.attributes if not hasattr(model, name)]
    if missing or not callable(model):
        lack = f"has no {' and no '.join(missing)}" if missing else "cannot be called"
        raise ConfigError(f"{path} returned a {type(model).__name__} that {lack}; expected {role.noun}")
    return _frozen(model)


def build_classifier(spec: ReaderSpec, models: Path) -> Classifier:
    """Return the frozen classifier that `spec` names; errors as of `promptgen.config.models.ModelBase.build`."""
    classifier: Classifier = spec.build(models, CLASSIFIER)
    return classifier


def build_embedder(spec: ModelSpec, models: Path) -> Embedder:
    """Return the frozen network that tells identities apart; errors as of `build_classifier`."""
    embedder: Embedder = spec.build(models, EMBEDDER)
    return embedder


def build_features(spec: ModelSpec, models: Path) -> Callable[[Tensor], Tensor]:
    """Return the frozen network, images (B, 3, H, W) to features (B, D), that `spec` names.

    Cards of kind ``features`` fit, and those of classifiers that expose the features below their logits, such as
    ``world-judge``. Errors as of `build_classifier`.

    Raises:
        ConfigError: the classifier exposes no features.
    """
    exposing = [name for name in spec.cards() if find_card(name, models).kind == "classifier"]
    model = spec.build(models, CLASSIFIER if exposing else FEATURES)
    if exposing and not hasattr(model, "features"):
        raise ConfigError(f"{exposing[0]} exposes no features, expected a classifier such as world-judge")
    features: Callable[[Tensor], Tensor] = model.features if exposing else model
    return features


def build_pose_estimator(spec: ModelSpec, models: Path) -> Callable[[Tensor], Tensor]:
    """Return the frozen network that sees rotations, (B, 3, 3), in images; errors as of `build_classifier`."""
    from torch import nn

    from promptgen.rotations import YawPitchRotation
    from promptgen.world.networks import PoseNet

    estimator: Callable[[Tensor], Tensor] = spec.build(models, POSE)
    return nn.Sequential(estimator, YawPitchRotation()) if isinstance(estimator, PoseNet) else estimator


def build_energies(
    specs: Mapping[str, EnergySpec], models: Path, condition: Sequence[str] = ("pitch", "yaw")
) -> WeightedSum:
    """Return the weighted sum of energies; arguments and errors as of `promptgen.config.energies.EnergyBase.build`."""
    from promptgen.energies.base import Term, WeightedSum

    return WeightedSum({name: Term(spec.build(models, condition), spec.weight) for name, spec in specs.items()})


def build_chain(checkpoint: Path, models: Path, *, sampling: bool = False) -> Generator:
    """Return what a chain's checkpoint describes, its flows on its generator; no control model is needed.

    Args:
        checkpoint: file of the chain.
        models: folder of the weight files.
        sampling: see `promptgen.config.generators.GeneratorBase.build`.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        ModelFileError: the generator's weight file is missing or damaged.
    """
    from promptgen.config.generators import generator_spec
    from promptgen.flows.chain_file import load_chain
    from promptgen.flows.chained import ChainedGenerator

    chain = load_chain(checkpoint)
    generator = generator_spec(chain.generator_spec).build(models, sampling=sampling)
    for flow in chain.flows:
        generator = ChainedGenerator(generator, flow)
    return generator


def identities(specs: Iterable[Spec], models: Path) -> dict[str, str]:
    """Return the sha256 of everything that `specs` are built from: weights, arguments on their cards, and custom code.

    A step stores them, to detect later that something has changed.

    Raises:
        ConfigError: there is no such card or module.
        ModelFileError: a card without a sha256 names a file that has not been fetched.
    """
    from promptgen.model_files.store import digests

    sums: dict[str, str] = {}
    for spec in specs:
        for name in spec.cards():
            sums |= digests(name, models)
            if arguments := find_card(name, models).arguments:
                sums[f"{name}/arguments"] = fingerprint(arguments, {}, version=1)
        for path in spec.custom_code():
            sums[path] = _source_sha256(path)
        sums |= spec.digests(models)
    return sums


def _card_of(name: str, models: Path, kind: str) -> Card:
    card = find_card(name, models)
    if card.kind != kind:
        raise ConfigError(f"the model {name} is of kind {card.kind}, expected one of kind {kind}")
    if card.type not in FACTORIES:
        raise ConfigError(f"the card of {name} has the type {card.type!r}, expected one of {', '.join(FACTORIES)}")
    return card


def _call(function: Callable[..., Any], card: str, /, *files: Path, **arguments: Any) -> Any:
    """Return what a factory makes of the files and arguments of a card, if these are what it takes.

    Raises:
        ConfigError: there are too many or too few of them, one has another name or type, or a size is out of range.
    """
    problem = f"the files or arguments on the card of {card} do not fit its type"
    signature = inspect.signature(function, eval_str=True)
    try:
        bound = signature.bind(*files, **arguments).arguments
    except TypeError as error:
        raise ConfigError(f"{problem}: {error}") from error
    for name, parameter in signature.parameters.items():
        if name in bound:
            try:
                TypeAdapter(parameter.annotation, config=ConfigDict(arbitrary_types_allowed=True)).validate_python(
                    bound[name]
                )
            except ValidationError as error:
                fault = error.errors(include_url=False)[0]
                raise ConfigError(f"{problem}: {name}: {fault['msg']}, got {str(fault['input'])[:80]!r}") from error
    try:
        return function(*files, **arguments)
    except (RuntimeError, MemoryError) as error:  # of torch, about a size that no network has
        raise ConfigError(f"{problem}, or memory does not suffice: {first_line(error)}") from error


def _frozen(model: Any) -> Any:
    """Switch a network to evaluation without weight gradients; anything else is left as it is."""
    from torch import nn

    from promptgen.networks.frozen import FrozenModule

    if isinstance(model, FrozenModule):
        return model.frozen()
    return model.requires_grad_(False).eval() if isinstance(model, nn.Module) else model


def _source_sha256(path: str) -> str:
    """Return the sha256 of the file of the module in ``module:name``."""
    module = path.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except ImportError as error:
        raise ConfigError(f"params.yaml names {path}, which cannot be imported: {error}") from error
    if spec is None or spec.origin is None:
        raise ConfigError(f"params.yaml names {path}, but there is no module {module} on the Python path")
    return sha256_of(spec.origin)
