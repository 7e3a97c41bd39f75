"""Few-step text-to-image pipelines of diffusers in params.yaml."""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, cast

from pydantic import Field, model_validator

from promptgen.config.build import GENERATOR, load_model
from promptgen.config.spec import GeneratorBase, Shape
from promptgen.drawn import PROMPT, Drawn, SeveralPrompts, drawn_prompts
from promptgen.errors import ConfigError, ModelFileError
from promptgen.files import sha256_of
from promptgen.generators.pipeline.folder import PipelineFolder
from promptgen.model_files.cards import find_card
from promptgen.model_files.snapshots import snapshot
from promptgen.model_files.store import sha256_now

if TYPE_CHECKING:
    from promptgen.generators.base import Generator

Pixels = Annotated[int, Field(ge=1, le=8192)]
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class DiffusersSpec(GeneratorBase):
    """A few-step text-to-image pipeline in diffusers' format; its latent is the noise of the first step.

    Attributes:
        model: folder of a saved pipeline, with a slash in it, such as ``./sd-turbo``; ``OWNER/NAME`` on the Hugging
            Face hub, with a `revision`; or name of a card. A relative folder starts at that of params.yaml.
        revision: commit of the hub, 40 hexadecimal digits.
        variant: part of the names of weight files, such as ``fp16``; null for the plain ones.
        prompt: what the images show, read by the pipeline's own text encoders.
        prompts: shares by which one of several prompts is drawn for each image, in place of `prompt`.
        negative_prompt: what guidance moves away from, where it compares two prompts.
        embeddings: safetensors file with the prompt's embeddings, in place of `prompt`.
        steps: steps of the sampler.
        guidance: guidance scale; null means that of the published model.
        height: height of the images, pixels; null means that of the pipeline.
        width: the same for the width.
        precision: type of numbers of the networks; null means that of their files.
    """

    type: Literal["diffusers"]
    model: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None = None
    variant: Annotated[str, Field(pattern=r"^\w+$")] | None = None
    prompt: str | None = None
    prompts: SeveralPrompts = None
    negative_prompt: str | None = None
    embeddings: str | None = None
    steps: Annotated[int, Field(ge=1, le=1000)] = 1
    guidance: Annotated[float, Field(ge=0)] | None = None
    height: Pixels | None = None
    width: Pixels | None = None
    precision: Literal["float16", "bfloat16", "float32"] | None = None

    @model_validator(mode="after")
    def _has_one_prompt(self) -> Self:
        if [self.prompt, self.prompts, self.embeddings].count(None) != 2:
            raise ValueError(
                "give either a prompt or a file of embeddings, or several `prompts` with their shares, and only one of "
                "these, such as `prompt: a photo of a doctor`"
            )
        if self.embeddings and self.negative_prompt is not None:
            raise ValueError("negative_prompt goes with a prompt; put its embeddings into the file")
        if self.revision and not HUB_ID.fullmatch(self.model):
            raise ValueError(f"a revision goes with a hub id OWNER/NAME, got model: {self.model}")
        return self

    @property
    def name(self) -> str:
        return self.model

    @property
    def card_name(self) -> str | None:
        return None if "/" in self.model else self.model

    def cards(self) -> list[str]:
        return [self.card_name] if self.card_name else []

    def build(self, models: Path, *, sampling: bool = False) -> Generator:
        from promptgen.generators.pipeline.generator import load_pipeline

        if self.card_name:
            return cast("Generator", load_model(self.card_name, models, GENERATOR.kind, **self._options(models)))
        return load_pipeline(self._folder(models), **self._options(models))

    def settings(self) -> dict[str, Any]:
        return self.model_dump(exclude={"type", "model"}, exclude_none=True)

    def own_shape(self, models: Path) -> Shape | None:
        if (pipeline := self._pipeline(models)) is None:
            return None
        height, width = size = pipeline.size(self.height, self.width)
        held = 1 if self.prompts else 0
        latent = {"noise": prod(pipeline.latent_shape(size)), **({PROMPT: held} if held else {})}
        return Shape(height, latent, width, held)

    def drawn(self, models: Path) -> Drawn | None:
        return drawn_prompts(self.prompts)

    def latent_form(self, models: Path) -> dict[str, Any] | None:
        if (pipeline := self._pipeline(models)) is None:
            return None
        shape = pipeline.latent_shape(pipeline.size(self.height, self.width))
        form = {"shape": list(shape), "patch": pipeline.family.packing}
        return {**form, "prompts": self.prompts} if self.prompts else form

    def digests(self, models: Path) -> dict[str, str]:
        if self.revision:
            sums = {f"{self.model}/revision": self.revision}
        elif self.card_name:
            sums = {}
        else:
            folder = PipelineFolder(self._folder(models), self.variant)
            sums = {f"{self.model}/{file.relative_to(folder.path)}": sha256_now(file) for file in folder.files()}
        if self.embeddings:
            path = models.parent / self.embeddings
            if not path.is_file():
                raise ModelFileError(f"{path} is missing; write the prompt's embeddings to it, or give a prompt")
            sums[self.embeddings] = sha256_of(path)
        return sums

    def _options(self, models: Path) -> dict[str, Any]:
        options = self.model_dump(exclude={"type", "model", "revision"}, exclude_none=True)
        return options | ({"embeddings": models.parent / self.embeddings} if self.embeddings else {})

    def _pipeline(self, models: Path) -> PipelineFolder | None:
        """Return the pipeline if it is on this machine; None if it is not there yet."""
        variant, folder = self.variant, None
        if self.card_name:
            card, card_folder = find_card(self.card_name, models), models / self.card_name
            variant = variant or card.arguments.get("variant")
            folder = card_folder if all((card_folder / file.file).is_file() for file in card.files) else None
        elif self.revision:
            folder = snapshot(self.model, self.revision, variant, offline=True)
        elif HUB_ID.fullmatch(self.model) or (models.parent / self.model).is_dir():
            folder = self._folder(models)
        return PipelineFolder(folder, variant) if folder else None

    def _folder(self, models: Path) -> Path:
        """Return the folder of a pipeline without a card.

        Raises:
            ConfigError: there is no such folder, and the hub needs a revision.
            ModelFileError: the hub does not have it.
        """
        if self.revision:
            folder = snapshot(self.model, self.revision, self.variant)
            if folder is None:
                raise ModelFileError(f"hub:{self.model} has no whole pipeline at {self.revision[:12]}")
            return folder
        folder = models.parent / self.model
        if not folder.is_dir() and HUB_ID.fullmatch(self.model):
            raise ConfigError(
                f"{self.model} is not a folder here, and a hub id needs a revision: add `revision:` with the 40 digits "
                "of a commit, shown on the page of its files"
            )
        return folder
