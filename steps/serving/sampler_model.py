"""A trained chain as an MLflow model: seeds in, PNG images out as base64 text; it needs none of the control models.

    model = mlflow.pyfunc.load_model("models:/world-no-makeup@least-biased")
    model.predict([{"seed": 1}, {"seed": 2, "size": 64}])

`steps.serving.registry` copies this file into the model's folder, with the library beside it, and MLflow runs it from
there.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from promptgen.config.build import build_chain
from promptgen.errors import DataError
from promptgen.flows.sampling import generate
from promptgen.generators.base import Generator
from promptgen.networks.finite import require_finite


class Request(BaseModel):
    """A request for an image.

    Attributes:
        seed: equal seeds give equal images.
        condition: values of conditions by name, such as ``{"yaw": 0.2}``; others follow from the seed.
        size: pixels along the longer side of the image; None keeps the size of the generator's images.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    seed: int
    condition: dict[str, float] = {}
    size: int | None = Field(default=None, ge=1, le=8192)


class Sampler(PythonModel):
    """Draws one image per request."""

    generator: Generator

    def load_context(self, context: PythonModelContext) -> None:
        """Load the chain and its generator."""
        models = Path(context.artifacts["project"]) / "models"
        self.generator = build_chain(Path(context.artifacts["checkpoint"]), models, sampling=True)

    def predict(self, context: PythonModelContext, model_input: list[Request]) -> list[str]:
        """Return one PNG image per request, as base64 text.

        Raises:
            MlflowException: a condition is unknown; a server answers with status 400.
        """
        return [self._png(request) for request in model_input]

    def _png(self, request: Request) -> str:
        seed = request.seed
        try:
            _, images = next(
                iter(generate(self.generator, 1, seed=seed, stream="serve", batch=1, condition=request.condition))
            )
        except DataError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from error
        image = require_finite(images, f"the pixels for seed {seed}")[0]
        picture = Image.fromarray((image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy())
        if request.size is not None:
            scale = request.size / max(picture.size)
            picture = picture.resize([max(1, round(side * scale)) for side in picture.size], Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        picture.save(buffer, format="png")
        return base64.b64encode(buffer.getvalue()).decode()


set_model(Sampler())
