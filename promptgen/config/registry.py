"""Every kind of generator, classifier and energy that params.yaml may name: one line each.

A line names the class of the section. The class defines everything else: its `type` and keys, how it is built, which
cards and user code it needs, how many images its models see, and its description in words. It may be in any module
that imports torch only while building, since params.yaml is read without torch.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Annotated, Any

from pydantic import Field

from promptgen.errors import ConfigError

GENERATORS = [
    "promptgen.config.generators:WorldSpec",
    "promptgen.config.generators:StyleGAN2Spec",
    "promptgen.config.generators:StyleGAN3Spec",
    "promptgen.config.generators:R3GANSpec",
    "promptgen.config.generators:BigGANSpec",
    "promptgen.config.generators:NVAESpec",
    "promptgen.config.generators:DiffAESpec",
    "promptgen.config.generators:StyleNeRFSpec",
    "promptgen.config.generators:DCGANSpec",
    "promptgen.config.pipelines:DiffusersSpec",
    "promptgen.config.generators:CustomGenerator",
]

MODELS = [
    "promptgen.config.models:CardModel",
    "promptgen.config.models:CustomModel",
]
"""Estimators of poses, embedders of faces and networks of features."""

CLASSIFIERS = [
    *MODELS,
    "promptgen.config.models:ClipLabelsModel",
]
"""What reads attributes on its own; `promptgen.config.models:JointModel` joins several of them."""

ENERGIES = [
    "promptgen.config.energies:ClipTextSpec",
    "promptgen.config.energies:ClassifierSpec",
    "promptgen.config.energies:MomentSpec",
    "promptgen.config.energies:PoseSpec",
    "promptgen.config.energies:IdentitySpec",
    "promptgen.config.energies:DiversitySpec",
    "promptgen.config.energies:CustomEnergySpec",
    "promptgen.config.energies:AnyOfSpec",
    "promptgen.config.energies:NotSpec",
]


def union(paths: Sequence[str]) -> Any:
    """Return the type of a field that holds one of the classes at ``module:name``, discriminated by their `type`.

    Raises:
        ConfigError: a module cannot be imported, or has no such name.
    """
    classes = [import_object(path, "the registry") for path in paths]
    return Annotated[reduce(or_, classes), Field(discriminator="type")]


def import_object(path: str, named_by: str) -> Any:
    """Return the object at ``module:name``.

    Args:
        path: the module and the name in it.
        named_by: what names it, for the error.

    Raises:
        ConfigError: the module cannot be imported, or has no such name.
    """
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{named_by} names {path}, which cannot be imported: {error}") from error
