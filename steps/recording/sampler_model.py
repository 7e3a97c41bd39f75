"""A trained chain as an MLflow model: seeds in, PNG images out as base64 text; it needs none of the control models.

    mlflow.pyfunc.load_model("models:/world-no-makeup@least-biased").predict([1, 2, 3])

`steps.recording.registry` copies this file into the model's folder, with the library beside it, and MLflow runs it from
there.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from PIL import Image

from promptgen.config.build import build_chain
from promptgen.finite import require_finite
from promptgen.flows.sampling import generate
from promptgen.generators.base import Generator


class Sampler(PythonModel):
    """Draws one image per seed."""

    generator: Generator

    def load_context(self, context: PythonModelContext) -> None:
        """Load the chain and the generator under it."""
        models = Path(context.artifacts["project"]) / "models"
        self.generator = build_chain(Path(context.artifacts["checkpoint"]), models, sampling=True)

    def predict(
        self, context: PythonModelContext, model_input: list[int], params: dict[str, str] | None = None
    ) -> list[str]:
        """Return one PNG image per seed, as base64 text."""
        return [self._png(seed) for seed in model_input]

    def _png(self, seed: int) -> str:
        _, images = next(iter(generate(self.generator, 1, seed=seed, stream="serve", batch=1)))
        image = require_finite(images, f"the pixels for seed {seed}")[0]
        pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="png")
        return base64.b64encode(buffer.getvalue()).decode()


set_model(Sampler())
